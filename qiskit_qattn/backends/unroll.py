"""Circuits in which every parametric gate has an angle of its own, as the parameter-shift rule needs them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterExpression, ParameterVector

from qiskit_qattn.errors import CircuitError
from qiskit_qattn.simulation.gates import is_parametric

# Gates e^{-iθG/2} (up to a phase) whose generator has two eigenvalues 2 apart: the shift rule is exact for them.
# G is a Pauli string, or twice a projector for the phase gates.
SHIFT_GATES = {"rx", "ry", "rz", "p", "u1", "cp", "cu1", "rxx", "ryy", "rzz", "rzx"}


def unroll(circuit: QuantumCircuit) -> tuple[QuantumCircuit, list[Parameter], list[ParameterExpression]]:
    """Return the circuit with one fresh parameter a gate, those parameters, and the angles that they stand for.

    Gates without a shift rule go through their definition. The global phase, which no expectation sees, is dropped.

    Raises:
        CircuitError: For a parametric gate without a shift rule or a definition that leads to one.
    """
    target = circuit.copy_empty_like()
    target.global_phase = 0
    params = list(ParameterVector("α", _count(circuit)))
    expressions: list[ParameterExpression] = []
    _append(circuit, list(target.qubits), target, iter(params), expressions)
    return target, params, expressions


def _count(circuit: QuantumCircuit) -> int:
    """Return how many angles :func:`_append` will ask for."""
    total = 0
    for item in circuit.data:
        if is_parametric(item.operation):
            total += 1 if item.operation.name in SHIFT_GATES else _count(_definition(item.operation))
    return total


def _definition(operation: Any) -> QuantumCircuit:
    if operation.definition is None:
        raise CircuitError(
            f"Gate {operation.name!r} holds parameters but has neither a parameter-shift rule nor a definition. "
            f"Known: {sorted(SHIFT_GATES)}."
        )
    return operation.definition


def _append(
    source: QuantumCircuit,
    qubits: list[Any],
    target: QuantumCircuit,
    params: Iterator[Parameter],
    expressions: list[ParameterExpression],
) -> None:
    """Append ``source`` to ``target``, replacing each parametric gate's angle by the next of ``params``."""
    for item in source.data:
        operation = item.operation
        where = [qubits[source.find_bit(qubit).index] for qubit in item.qubits]
        if not is_parametric(operation):
            target.append(operation, where)
        elif operation.name in SHIFT_GATES:
            expressions.append(operation.params[0])
            fresh = operation.to_mutable()
            fresh.params = [next(params)]
            target.append(fresh, where)
        elif operation.name != "global_phase":
            _append(_definition(operation), where, target, params, expressions)
