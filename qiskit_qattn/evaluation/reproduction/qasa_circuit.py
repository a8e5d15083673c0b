"""QASA's circuit: its gates, its entanglement, and an expressibility that was taken against the wrong dimension."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial

import torch

from qiskit_qattn.errors import counted
from qiskit_qattn.evaluation.reproduction.runs import Options, Reproduction, shortened_note
from qiskit_qattn.evaluation.state_measures import haar_divergence, meyer_wallach
from qiskit_qattn.library.catalog import attention_circuit
from qiskit_qattn.simulation.statevector import StateProgram
from qiskit_qattn.training.progress import Progress

PAIRS, SAMPLES = 5000, 1000  # of random states, as published
_AT_ONCE, _TIMED = 500, 50


def run(options: Options, progress: Progress) -> Reproduction:
    """Count the circuit's gates and measure its states; ``options.steps`` is the number of pairs of states."""
    circuit = attention_circuit("qasa", 9, num_observables=8)
    pairs = options.steps or PAIRS
    progress.message(f"{counted(pairs, 'pair')} of random states of {counted(circuit.num_qubits, 'qubit')}")
    program = StateProgram(circuit).double()
    progress.forecast(lambda: [_seconds(program, pairs)])
    states = _random_states(program, pairs, options.seed, partial(progress.counted, "states"))  # (2, pairs, 512)
    overlaps = (states[0].conj() * states[1]).sum(-1).abs().square()  # (pairs,)
    gates = circuit.circuit.count_ops()
    figures = {
        "qubits": circuit.num_qubits,
        "weights": len(circuit.weight_params),
        "cx": gates["cx"],
        "gates": sum(gates.values()),
        "meyer_wallach": float(meyer_wallach(states[0, :SAMPLES]).mean()),
        "entropy": float(_entropies(states[0, :SAMPLES]).mean()),
        "expressibility_8": haar_divergence(overlaps, 2**8),
        "expressibility_9": haar_divergence(overlaps, 2**9),
    }
    published = {
        "qubits": ("qubits", "9"),
        "weights": ("weights", "36"),
        "cx": ("CX gates", "27"),
        "gates": ("gates", "110"),
        "meyer_wallach": ("Meyer-Wallach entanglement", "0.981"),
        "entropy": ("entropy of qubits 0 to 3, nats", "2.26"),
        "expressibility_8": ("divergence from Haar, of 8 qubits", "0.029"),
        "expressibility_9": ("divergence from Haar, of 9 qubits", "–"),
    }
    return Reproduction(
        claim="qasa-circuit",
        title="QASA's circuit of 36 weights is near-maximally entangling and expressive",
        source="QASA, arXiv 2504.05336, version 3, and its code",
        head=["", "Published", "Ours"],
        rows=[[label, told, _shown(figures[name])] for name, (label, told) in published.items()],
        reasons=[
            "One of the published weights, of the auxiliary qubit before the first layer, enters no gate: 35 are left.",
            "The published divergence compares overlaps of 9-qubit states with those of random states of 8 qubits. Of"
            f" 9 qubits it is {figures['expressibility_9']:.4f}; a finite number of pairs alone gives up to"
            f" {75 / (2 * pairs):.4f}.",
            "The published entanglement is of the 8 data qubits, after the auxiliary one is traced out; ours of all 9.",
            "The published entropy is called bits, of at most 4; it is in nats, of at most 2.77.",
            "Overlaps are of two random sets of weights with the same random input, weights and inputs uniform in"
            " [−π, π]. Random states of 9 qubits have a Meyer-Wallach entanglement of"
            f" {1 - 3 / (2**9 + 1):.3f} in the mean, so large values alone say little about usefulness.",
        ],
        figures=figures,
        settings={"pairs": pairs, "samples": min(pairs, SAMPLES), "seed": options.seed},
        shortened=shortened_note(options.steps, PAIRS, "pairs of states"),
    )


@torch.no_grad()
def _random_states(
    program: StateProgram, pairs: int, seed: int, on_pairs: Callable[[int, int], None] = lambda done, pairs: None
) -> torch.Tensor:
    """Return states of pairs of random weights with the same random input, shape ``(2, pairs, 2**n)``.

    Args:
        program: The circuit.
        pairs: How many.
        seed: Of the angles.
        on_pairs: Called before the first pairs and after each part of them, with how many are done.
    """
    generator = torch.Generator().manual_seed(seed)

    def angles(*shape: int) -> torch.Tensor:
        return math.pi * (2 * torch.rand(*shape, generator=generator, dtype=torch.float64) - 1)

    inputs, weights = angles(pairs, 1, program.num_inputs), angles(2, pairs, program.num_weights)
    parts = []
    on_pairs(0, pairs)
    for x, w in zip(inputs.split(_AT_ONCE), weights.split(_AT_ONCE, 1), strict=True):
        parts.append(program.states(x, w).squeeze(-2))
        on_pairs(min(len(parts) * _AT_ONCE, pairs), pairs)
    return torch.cat(parts, 1)


def _seconds(program: StateProgram, pairs: int) -> float:
    """Return how long a number of pairs takes, from some that are timed after as many that fill caches."""
    some = min(pairs, _TIMED)
    _random_states(program, some, 0)
    begin = time.perf_counter()
    _random_states(program, some, 0)
    return (time.perf_counter() - begin) * pairs / some


def _entropies(states: torch.Tensor) -> torch.Tensor:
    """Return the entropies of qubits 0 to 3 in nats, shape ``(N,)``, of states ``(N, 2**n)``."""
    chances = torch.linalg.svdvals(states.unflatten(-1, (-1, 2**4))).square()  # (N, 16), qubit 0 last
    return -torch.special.xlogy(chances, chances).sum(-1)


def _shown(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3f}"
