"""What the exact engine's operations cost on this machine, as the table by which it chooses how to compute a circuit.

    python -m benchmarks.engine_costs    # a minute; prints the table beside its defaults, and the line that uses it

Each number is a quotient of the shortest times of two calls that take turns, forward and backward where the engine
differentiates. Run it on an otherwise idle machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any

import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.quantum_info import SparsePauliOp
from rich.console import Console
from torch import Tensor

from benchmarks.machine import describe, prepare
from qiskit_qattn.evaluation.rendering import table
from qiskit_qattn.simulation import cost
from qiskit_qattn.simulation.elementary import Rotation
from qiskit_qattn.simulation.operators import Block, Permute, qubit_groups
from qiskit_qattn.simulation.products import quadratic_forms, squared_product
from qiskit_qattn.simulation.program import LocalStep, PermuteStep
from qiskit_qattn.simulation.statevector import StatevectorProgram

_ROWS, _QUBITS, _TURNS = 1024, 8, 7
_DENSE = (7, 8, 9, 10)
_COLUMNS = (64, 32, 16, 8, 4, 2)
Call = Callable[[], Any]


def main() -> None:
    """Measure and print."""
    prepare()
    console = Console()
    console.print(describe(), highlight=False)
    found = measure()
    defaults = cost.Costs()
    rows = [
        (each.name, f"{getattr(defaults, each.name):g}", f"{getattr(found, each.name):g}") for each in fields(found)
    ]
    console.print(table(("cost", "default", "measured"), rows), highlight=False)
    given = ", ".join(f"{name}={measured}" for name, _, measured in rows)
    console.print(f"\nfrom qiskit_qattn.simulation import cost\ncost.use(cost.Costs({given}))", highlight=False)


def measure(rows: int = _ROWS, turns: int = _TURNS) -> cost.Costs:
    """Return the table of this machine, to two digits.

    Args:
        rows: The batch.
        turns: How often each call is timed; the shortest time counts.
    """
    size = 2**_QUBITS
    product, gate, phase = _shortest((_product(rows), _gates(rows), _permutation(rows)), turns)
    multiplications = rows * size * 4 * sum(2 ** (stop - start) for start, stop in qubit_groups(_QUBITS))
    of_product, of_gate = product / (rows * size * size), gate / multiplications
    features, outcomes, observables = 32, 1024, 4
    forms, states = _shortest(_effective(rows, features, outcomes, observables), turns)
    effective = (forms / (observables * features**2)) / (states / (features * outcomes))
    return cost.Costs(
        dense_qubits=_dense_qubits(rows, turns),
        gate=_digits(of_gate / of_product),
        phase=_digits(phase / (rows * size) / of_gate),
        effective=_digits(effective),
        columns=_columns(rows, turns),
    )


def _product(rows: int) -> Call:
    """Return a large product of a batch with a square matrix."""
    x, matrix = torch.randn(rows, 2**_QUBITS), torch.randn(2**_QUBITS, 2**_QUBITS)
    return lambda: x @ matrix


def _gates(rows: int) -> Call:
    """Return a layer of gates on a batch of states."""
    step = LocalStep(tuple((Rotation("X", q, 0.1),) for q in range(_QUBITS)))
    block, columns = Block([step], (), _QUBITS), torch.randn(2**_QUBITS, rows, dtype=torch.complex64)
    return lambda: block(columns, torch.zeros(0))


def _permutation(rows: int) -> Call:
    """Return a pass over the amplitudes."""
    step = Permute(PermuteStep(torch.randperm(2**_QUBITS).numpy()))
    columns = torch.randn(2**_QUBITS, rows, dtype=torch.complex64)
    return lambda: step(columns)


def _effective(rows: int, features: int, outcomes: int, observables: int) -> tuple[Call, Call]:
    """Return expectations by effective observables, and by amplitudes."""
    x = torch.randn(rows, features, requires_grad=True)
    forms = torch.randn(observables, features, features, requires_grad=True)
    matrix, signs = torch.randn(features, outcomes, requires_grad=True), torch.ones(outcomes, observables)
    return (
        lambda: quadratic_forms(x, forms).sum().backward(),
        lambda: squared_product(x, matrix, signs).sum().backward(),
    )


def _dense_qubits(rows: int, turns: int) -> int:
    """Return up to how many qubits a matrix is faster than blocks of gates for a circuit with data on all qubits."""
    best = _DENSE[0]
    for num_qubits in _DENSE[1:]:
        dense, blocks = _shortest(_both(num_qubits, num_qubits, rows), turns)
        if dense > blocks:
            break
        best = num_qubits
    return best


def _columns(rows: int, turns: int) -> float:
    """Return how many times fewer columns than amplitudes make a matrix on 10 qubits faster than blocks of gates."""
    for best, following in pairwise(_COLUMNS):
        dense, blocks = _shortest(_both(10, 10 - following.bit_length() + 1, rows), turns)
        if dense > blocks:
            return best
    return _COLUMNS[-1]


def _both(num_qubits: int, num_inputs: int, rows: int) -> Iterator[Call]:
    """Yield a pass forward and backward by a matrix, and by blocks of gates."""
    x, w = ParameterVector("x", num_inputs), ParameterVector("w", 2 * num_qubits)
    circuit = QuantumCircuit(num_qubits)
    for q in range(num_inputs):
        circuit.rx(x[q], q)
    for k, param in enumerate(w):
        circuit.ry(param, k % num_qubits)
        if k % num_qubits == num_qubits - 1:
            for q in range(num_qubits):
                circuit.cx(q, (q + 1) % num_qubits)
    observables = [SparsePauliOp.from_sparse_list([("Z", [q], 1.0)], num_qubits) for q in range(num_qubits)]
    inputs = torch.randn(rows, num_inputs, requires_grad=True)
    weights = torch.randn(2 * num_qubits, requires_grad=True)
    before = cost.COSTS
    for least in (num_qubits, 1):
        try:
            cost.use(replace(before, dense_qubits=least, columns=2.0**num_qubits))
            program = StatevectorProgram(circuit, observables, input_params=list(x), weight_params=list(w))
        finally:
            cost.use(before)
        yield lambda program=program: _pass(program, inputs, weights)


def _pass(program: StatevectorProgram, inputs: Tensor, weights: Tensor) -> None:
    torch.autograd.grad(program(inputs, weights).sum(), (inputs, weights))


def _shortest(calls: tuple[Call, ...] | Iterator[Call], turns: int) -> list[float]:
    """Return the shortest time of each call, in seconds, after one that is not timed."""
    every = list(calls)
    found: list[list[float]] = [[] for _ in every]
    for turn in range(turns + 1):
        for call, times in zip(every, found, strict=True):
            begin = time.perf_counter()
            call()
            if turn:
                times.append(time.perf_counter() - begin)
    return [min(times) for times in found]


def _digits(value: float) -> float:
    return float(f"{value:.2g}")


if __name__ == "__main__":
    main()
