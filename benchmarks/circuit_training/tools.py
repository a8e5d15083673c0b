"""Small GPTs trained with and without a tool, with the same batches for all of one seed, and what the tool changed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from circuit_training.starts import draw, mirrored_recipe
from qiskit_qattn.evaluation.noise_sweep.sweep import window_losses
from qiskit_qattn.evaluation.paired_tests import bootstrap_intervals, permutation_p_values
from qiskit_qattn.evaluation.text_metrics import spaced_windows
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.nn.heads import QuantumHead
from qiskit_qattn.nn.kinds import head_kind, register_head
from qiskit_qattn.training.config import TrainConfig, resolve
from qiskit_qattn.training.data import Corpus, load_corpus, random_batch
from qiskit_qattn.training.optimizer import clip_gradients, lr_factor, make_optimizer, set_learning_rates

NOISE = "density_matrix?noise=depolarizing&p1=0.003&p2=0.03"
SHOTS = "statevector?shots=64&seed=1"
HEADER = ("model", "tool", "judged", "loss without", "with minus without", "95% interval", "p", "CPU time ×")
_WINDOWS = 128  # of the validation split
_RATE = 3e-3  # learning rate of classical weights


@dataclass(frozen=True)
class Problem:
    """A model: one block of two heads of one kind, of width 16.

    Attributes:
        kind: The kind.
        num_qubits: Of its circuits.
        reps: Their layers.
        steps: Steps of 8 windows of 32 characters.
        seeds: How many.
        first: The first of them; new ones check what others showed.
    """

    kind: str
    num_qubits: int
    reps: int
    steps: int = 600
    seeds: int = 8
    first: int = 0

    @property
    def title(self) -> str:
        """What it is called in a table."""
        return f"{self.kind}, {self.num_qubits} qubits, {self.reps} rep{'s' * (self.reps > 1)}"

    def config(self, seed: int, circuit_rate: float) -> TrainConfig:
        """Return the settings of a run whose circuit weights learn at ``circuit_rate`` times the rate of others."""
        given: dict[str, Any] = {
            "seed": seed,
            "n_layer": 1,
            "n_head": 2,
            "n_embd": 32,
            "block_size": 32,
            "heads": f"{self.kind}:2",
            "num_qubits": self.num_qubits,
            "reps": self.reps,
            "batch_size": 8,
            "max_steps": self.steps,
            "warmup_steps": 20,
            "learning_rate": _RATE,
            "min_lr": _RATE / 10,
            "circuit_lr": circuit_rate * _RATE,
        }
        return resolve(given)


@dataclass(frozen=True)
class Tool:
    r"""How circuits are trained.

    Attributes:
        name: What it is called in a table.
        start: As for :func:`~circuit_training.starts.draw`.
        circuit_rate: Learning rate of circuit weights over that of others.
        constant: Whether the rate of circuit weights stays at its peak after the warm-up.
        angle_noise: Standard deviation in radians of what is added to each angle for one step: the gradient is taken
            there and changes the angle as it was before.
        noisy: Which steps run under :data:`NOISE`: none, ``all``, a random quarter, or the ``last quarter``.
        variance: λ of the penalty :math:`\lambda \langle g_m^2 (1 - \langle P_m \rangle^2) \rangle`, the variance of a
            head's outputs when they are measured with one shot; Kreplin and Roth, arXiv 2306.01639.
        judged: The backend on which the model is judged.
    """

    name: str
    start: str = "uniform"
    circuit_rate: float = 5.0
    constant: bool = False
    angle_noise: float = 0.0
    noisy: str = ""
    variance: float = 0.0
    judged: tuple[str, ...] = ("exact",)


PLAIN = Tool("none")
UNDER_NOISE = [
    Tool("all steps under noise", noisy="all", judged=("noise", "exact")),
    Tool("a random quarter of steps under noise", noisy="random quarter", judged=("noise", "exact")),
    Tool("the last quarter of steps under noise", noisy="last quarter", judged=("noise", "exact")),
]
SHALLOW = [
    Tool("small angles", "small"),
    Tool("circuit rate × 1", circuit_rate=1.0),
    Tool("circuit rate × 25", circuit_rate=25.0),
    Tool("angle noise of 0.2", angle_noise=0.2, judged=("exact", "noise")),
]
MORE = [
    Tool("constant circuit rate", constant=True),
    Tool("angle noise of 0.05", angle_noise=0.05, judged=("exact", "noise")),
    Tool("variance penalty of 0.1", variance=0.1, judged=("shots", "exact", "noise")),
]
STUDY: dict[str, tuple[Problem, list[Tool]]] = {
    "qisa": (Problem("qisa-v3", 4, 1), [*SHALLOW, *MORE]),
    "qisa-again": (Problem("qisa-v3", 4, 1, seeds=12, first=8), SHALLOW[:1]),
    "angle": (Problem("angle", 4, 1), SHALLOW),
    "zz-deep": (Problem("zz", 8, 4, steps=150), [Tool("small angles", "small")]),
    "zz-blocks": (
        Problem("zz-mirrored", 8, 4, steps=150),
        [Tool("identity blocks", "identity"), Tool("small angles", "small")],
    ),
    "angle-deep": (Problem("angle", 8, 2, steps=150), [Tool("small angles", "small")]),
    "zz-noise": (Problem("zz", 4, 2), UNDER_NOISE),
    "qisa-noise": (Problem("qisa-v3", 4, 1), UNDER_NOISE),
}


def register() -> None:
    """Register the kinds whose circuits are of mirrored layers."""
    zz = head_kind("zz")
    register_head(replace(zz, name="zz-mirrored", circuit="zz-mirrored", recipe=mirrored_recipe("zz")))


def rows(names: Sequence[str], seeds: int | None = None, steps: int | None = None) -> Iterator[tuple[str, ...]]:
    """Train and compare; yield the rows of :data:`HEADER`.

    Args:
        names: Parts of :data:`STUDY`.
        seeds: How many, in place of a problem's own.
        steps: Likewise.
    """
    register()
    corpus = load_corpus("shakespeare", 32)
    for name in names:
        problem, tools = STUDY[name]
        problem = replace(problem, seeds=seeds or problem.seeds, steps=steps or problem.steps)
        judged = sorted({where for tool in tools for where in tool.judged})
        train(replace(problem, steps=3), PLAIN, corpus, 0)  # a warm-up, so that times are comparable
        plain, plain_time = _losses(problem, PLAIN, judged, corpus)
        for tool in tools:
            found, took = _losses(problem, tool, tool.judged, corpus)
            for where in tool.judged:
                yield (
                    problem.title,
                    tool.name,
                    where,
                    *_compared(found[where], plain[where]),
                    f"{took / plain_time:.1f}",
                )


def _compared(losses: Sequence[float], plain: Sequence[float]) -> tuple[str, ...]:
    differences = np.array(losses) - np.array(plain)
    low, high = bootstrap_intervals(differences)
    p = permutation_p_values(differences)
    return f"{np.mean(plain):.4f}", f"{differences.mean():+.4f}", f"{low:+.4f} to {high:+.4f}", f"{p:.3f}"


def _losses(
    problem: Problem, tool: Tool, judged: Sequence[str], corpus: Corpus
) -> tuple[dict[str, list[float]], float]:
    """Return the validation loss of each seed by where the model is judged, and the CPU time of training."""
    found: dict[str, list[float]] = {where: [] for where in judged}
    x, y = spaced_windows(corpus.val, 32, _WINDOWS)  # (W, T)
    seconds = 0.0
    for seed in range(problem.first, problem.first + problem.seeds):
        begin = time.process_time()
        model = train(problem, tool, corpus, seed)
        seconds += time.process_time() - begin
        for where in judged:
            with model.to_backend({"exact": "statevector", "noise": NOISE, "shots": SHOTS}[where]):
                found[where].append(float(window_losses(model, x, y, lambda share: None).mean()))
    return found, seconds


def train(problem: Problem, tool: Tool, corpus: Corpus, seed: int) -> GPT:
    """Return a trained model, on the exact engine."""
    config = problem.config(seed, tool.circuit_rate)
    torch.manual_seed(seed)
    model = GPT(replace(config.model, vocab_size=corpus.tokenizer.vocab_size))
    heads = [head for *_, head in model.quantum_heads()]
    if tool.start != "uniform":
        for head in heads:
            head.weight.data = draw(tool.start, head.weight.data, problem.reps)
    executions = {"": [head.execution for head in heads]}
    if tool.noisy:
        with model.to_backend(NOISE):
            executions["noise"] = [head.execution for head in heads]
    optimizer = make_optimizer(model, model.circuit_parameters(), config)
    batches, random = (torch.Generator().manual_seed(seed) for _ in range(2))
    for step in range(config.max_steps):
        noisy = {
            "": False,
            "all": True,
            "random quarter": float(torch.rand(1, generator=random)) < 0.25,
            "last quarter": step >= 0.75 * config.max_steps,
        }[tool.noisy]
        for head, execution in zip(heads, executions["noise" if noisy else ""], strict=True):
            head.run_on(execution)
        set_learning_rates(optimizer, lr_factor(step, config))
        if tool.constant and step >= config.warmup_steps:
            circuits = next(group for group in optimizer.param_groups if group["name"] == "circuits")
            circuits["lr"] = circuits["peak_lr"]
        x, y = random_batch(corpus.train, config.batch_size, config.model.block_size, batches)  # (B, T)
        with _shifted(heads, tool.angle_noise, random), _variances(heads) as variances:
            _, loss = model(x, y)
            assert loss is not None
            (loss + tool.variance * torch.stack([found.mean() for found in variances]).mean()).backward()
        clip_gradients(optimizer, config)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    for head, execution in zip(heads, executions[""], strict=True):
        head.run_on(execution)
    return model


@contextmanager
def _shifted(heads: Sequence[QuantumHead], spread: float, generator: torch.Generator) -> Iterator[None]:
    """Add Gaussian noise to all angles, and take it away again."""
    before = [head.weight.detach().clone() for head in heads]
    if spread:
        for head in heads:
            head.weight.data += spread * torch.randn(head.weight.shape, generator=generator)
    yield
    for head, weight in zip(heads, before, strict=True):
        head.weight.data.copy_(weight)


@contextmanager
def _variances(heads: Sequence[QuantumHead]) -> Iterator[list[Tensor]]:
    """Collect the variance of each output of the heads for a single shot, each ``(*heads, N, M)``."""
    found: list[Tensor] = []

    def note(head: QuantumHead, _args: object, out: Tensor) -> None:
        found.append(head.gain.unsqueeze(-2).square() - out.square())

    handles = [head.register_forward_hook(note) for head in heads]
    yield found
    for handle in handles:
        handle.remove()
