"""Quantum natural gradient against AdamW for circuits' angles, paired over seeds, per step and per second.

    python -m benchmarks.natural_gradient [ground-state regression gpt]

Each contender gets four learning rates, tried with seeds of their own; the best one goes on to the paired seeds. Then
AdamW gets as many more steps as it can do in the time of the other's, with a search of its own at that number. Times
are of the processor, in turns. Negative differences favour the natural gradient.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial
from statistics import mean, median

import numpy as np
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import n_local
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning.neural_networks import EstimatorQNN
from torch import Tensor, nn

import qiskit_qattn as qa
from benchmarks import machine
from qiskit_qattn.evaluation.paired_tests import bootstrap_intervals, permutation_p_values
from qiskit_qattn.training.data import Corpus, load_corpus, random_batch
from qiskit_qattn.training.natural_gradient import QuantumNaturalGradient

SEARCH = range(1000, 1003)
_TIMED = 30  # steps of each contender


@dataclass
class Trial:
    """A model at the start of its training.

    Attributes:
        model: The model.
        loss: The loss of the next batch.
        final: The figure that is compared, lower is better.
    """

    model: nn.Module
    loss: Callable[[], Tensor]
    final: Callable[[], float]

    @property
    def angles(self) -> list[nn.Parameter]:
        """The circuits' angles."""
        circuits = [each for each in self.model.modules() if isinstance(each, qa.QuantumHead | qa.TorchConnector)]
        return [each.weight for each in circuits]


@dataclass(frozen=True)
class Problem:
    """What is trained, from a seed, for how many steps."""

    start: Callable[[int], Trial]
    steps: int
    figure: str
    seeds: range = range(10)


Optimizers = list[torch.optim.Optimizer]


def adamw(trial: Trial, rate: float) -> torch.optim.Optimizer:
    """Return AdamW over the angles."""
    return torch.optim.AdamW(trial.angles, lr=rate, betas=(0.9, 0.99), weight_decay=0.0)


def natural(trial: Trial, rate: float, **options: float) -> torch.optim.Optimizer:
    """Return the natural gradient over the angles."""
    return QuantumNaturalGradient(trial.angles, trial.model, rate, **options)


CONTENDERS: dict[str, tuple[Callable[[Trial, float], torch.optim.Optimizer], tuple[float, ...]]] = {
    "AdamW": (adamw, (0.03, 0.1, 0.2, 0.3)),
    "natural gradient": (natural, (0.003, 0.01, 0.03, 0.06)),
    "natural gradient, no momentum": (partial(natural, momentum=0.0), (0.03, 0.06, 0.1, 0.2)),
}


def ground_state(seed: int, num_qubits: int = 6) -> Trial:
    """Lower the energy of a transverse-field Ising ring at its critical field."""
    ring = [("ZZ", [i, (i + 1) % num_qubits], -1.0) for i in range(num_qubits)]
    energy = SparsePauliOp.from_sparse_list([*ring, *(("X", [i], -1.0) for i in range(num_qubits))], num_qubits)
    lowest = float(np.linalg.eigvalsh(energy.to_matrix())[0])
    ansatz = n_local(num_qubits, ["ry", "rz"], "cx", reps=3, entanglement="linear")
    network = EstimatorQNN(circuit=ansatz, observables=[energy], input_params=[], weight_params=ansatz.parameters)
    model = qa.TorchConnector(network, _angles(seed, ansatz.num_parameters))
    return Trial(model, lambda: model().sum(), lambda: model().item() - lowest)


def regression(seed: int, num_qubits: int = 4, layers: int = 2) -> Trial:
    """Fit a function of four numbers with a circuit that reads them twice."""
    x, w = ParameterVector("x", num_qubits), ParameterVector("w", 2 * num_qubits * (layers + 1))
    circuit, angles = QuantumCircuit(num_qubits), iter(w)
    for layer in range(layers + 1):
        for qubit in range(num_qubits):
            circuit.ry(next(angles), qubit)
            circuit.rz(next(angles), qubit)
        for qubit in range(num_qubits if layer < layers else 0):
            circuit.cx(qubit, (qubit + 1) % num_qubits)
        for qubit in range(num_qubits if layer < layers else 0):
            circuit.rx(x[qubit], qubit)
    network = EstimatorQNN(circuit=circuit, input_params=x, weight_params=w, observables=[SparsePauliOp("ZZZZ")])
    model = qa.TorchConnector(network, _angles(seed, len(w)))
    generator = torch.Generator().manual_seed(seed)
    train, test = (3 * torch.rand(count, num_qubits, generator=generator) - 1.5 for count in (256, 1024))

    def target(rows: Tensor) -> Tensor:
        return torch.sin(rows[:, :1] + rows[:, 1:2]) * torch.cos(rows[:, 2:3] - rows[:, 3:4])

    def loss() -> Tensor:
        rows = train[torch.randint(len(train), (32,), generator=generator)]
        return nn.functional.mse_loss(model(rows), target(rows))

    return Trial(model, loss, lambda: nn.functional.mse_loss(model(test), target(test)).item())


def gpt(seed: int) -> Trial:
    """Train a small GPT on Shakespeare's characters, all of its heads quantum."""
    corpus = _corpus()
    torch.manual_seed(seed)
    size = corpus.tokenizer.vocab_size
    model = qa.GPT(
        qa.GPTConfig(vocab_size=size, block_size=32, n_layer=2, n_head=2, n_embd=32, heads="qisa:2", num_qubits=4)
    )
    generator = torch.Generator().manual_seed(seed)
    held_out = random_batch(corpus.val, 512, 32, torch.Generator().manual_seed(0))
    return Trial(
        model,
        lambda: model(*random_batch(corpus.train, 16, 32, generator))[1],
        lambda: model(*held_out)[1].item(),
    )


PROBLEMS = {
    "ground-state": Problem(ground_state, 150, "energy above the ground state", range(100, 124)),
    "regression": Problem(regression, 150, "mean square error on new data"),
    "gpt": Problem(gpt, 150, "validation loss in nats per character"),
}


def run(problem: Problem, contender: str, rate: float, seed: int, steps: int) -> float:
    """Return the final figure of a training."""
    trial = problem.start(seed)
    optimizers = _optimizers(trial, contender, rate)
    for _ in range(steps):
        _step(trial, optimizers)
    with torch.no_grad():
        return trial.final()


def best_rate(problem: Problem, contender: str, steps: int) -> float:
    """Return the learning rate that is best over the seeds of the search."""
    rates = CONTENDERS[contender][1]
    found = {rate: mean(run(problem, contender, rate, seed, steps) for seed in SEARCH) for rate in rates}
    print(
        f"    search: {contender}, {steps} steps: " + ", ".join(f"{r:g}: {v:.4g}" for r, v in found.items()), flush=True
    )
    return min(found, key=lambda rate: found[rate] if np.isfinite(found[rate]) else np.inf)


def step_times(problem: Problem) -> dict[str, float]:
    """Return the median processor time of a step of each contender, in seconds; they take turns."""
    trials = {name: problem.start(0) for name in CONTENDERS}
    optimizers = {name: _optimizers(trial, name, 1e-3) for name, trial in trials.items()}
    taken: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for _ in range(_TIMED):
        for name, trial in trials.items():
            begin = time.process_time()
            _step(trial, optimizers[name])
            taken[name].append(time.process_time() - begin)
    return {name: median(each) for name, each in taken.items()}


def compare(name: str) -> None:
    """Print the comparison of all contenders on one problem."""
    problem = PROBLEMS[name]
    print(f"{name}: {problem.figure}, {problem.steps} steps, {len(problem.seeds)} seeds", flush=True)
    times = step_times(problem)
    print("  ms per step: " + ", ".join(f"{key}: {1000 * value:.2f}" for key, value in times.items()), flush=True)
    reference = _figures(problem, "AdamW", problem.steps)
    for contender in list(CONTENDERS)[1:]:
        found = _figures(problem, contender, problem.steps)
        _show(f"{contender}, per step", found, reference)
        longer = round(problem.steps * times[contender] / times["AdamW"])
        _show(f"{contender}, per second: AdamW {longer} steps", found, _figures(problem, "AdamW", longer))


def _figures(problem: Problem, contender: str, steps: int) -> np.ndarray:
    rate = best_rate(problem, contender, steps)
    return np.array([run(problem, contender, rate, seed, steps) for seed in problem.seeds])


def _show(label: str, found: np.ndarray, reference: np.ndarray) -> None:
    differences = found - reference
    low, high = bootstrap_intervals(differences)
    p = permutation_p_values(differences)
    print(
        f"  {label}: {found.mean():.4f} against {reference.mean():.4f} (medians {np.median(found):.4f},"
        f" {np.median(reference):.4f}), difference {differences.mean():+.4f} [{low:+.4f}, {high:+.4f}], p {p:.4f},"
        f" better on {(differences < 0).sum()} of {len(differences)}",
        flush=True,
    )


def _optimizers(trial: Trial, contender: str, rate: float) -> Optimizers:
    angles = trial.angles
    known = set(angles)
    others = [weight for weight in trial.model.parameters() if weight not in known]
    rest = [torch.optim.AdamW(others, lr=3e-3, betas=(0.9, 0.99), weight_decay=0.1)] if others else []
    return [CONTENDERS[contender][0](trial, rate), *rest]


def _step(trial: Trial, optimizers: Optimizers) -> None:
    for optimizer in optimizers:
        optimizer.zero_grad()
    trial.loss().backward()
    for optimizer in optimizers:
        optimizer.step()


def _angles(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-np.pi, np.pi, count)


@cache
def _corpus() -> Corpus:
    return load_corpus("tinyshakespeare", 32)


def main(names: Iterable[str]) -> None:
    """Compare on the named problems."""
    torch.set_num_threads(1)
    print(machine.describe())
    for name in names:
        compare(name)


if __name__ == "__main__":
    main(sys.argv[1:] or PROBLEMS)
