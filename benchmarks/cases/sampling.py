"""Sampled values of a circuit: a run after the first, which makes the program, and against exact values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from networks import user_network
from rows import Row, at_least, compared, duration
from timing import Effort, interleave

import qiskit_qattn as qa

_BACKEND = "statevector?shots=1024"
_QUBITS, _POINTS = 4, 32


def measure(effort: Effort) -> Iterator[Row]:
    network = user_network(_QUBITS)
    torch.manual_seed(0)
    values = torch.randn(_POINTS, network.circuit.num_parameters).numpy()
    pub = (network.circuit, [[observable] for observable in network.observables], values)

    def run(backend: Any, precision: float | None = None) -> None:
        backend.estimator.run([pub], precision=precision).result()

    kept = qa.get_backend(_BACKEND)
    contenders = {
        "first": lambda: run(qa.get_backend(_BACKEND)),
        "again": lambda: run(kept),
        "exact": lambda: run(kept, 0.0),
    }
    timings = interleave(contenders, effort)
    case = f"{_BACKEND}, {_QUBITS} qubits, {_POINTS} points"
    times = [duration(timings.spread(name).median) for name in ("again", "first")]
    yield Row(f"{case}, a later run", "a first run", *times, timings.ratio("first", "again"), at_least(3))
    yield compared(f"{case}, a later run", timings, "again", "exact", None, "exact values, a later run")
