"""Circuits in which every angle of a parametric gate is a separate parameter, as the parameter-shift rule requires."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from qiskit import QuantumCircuit
from qiskit.circuit import (
    AnnotatedOperation,
    ControlFlowOp,
    Parameter,
    ParameterExpression,
    ParameterVector,
    ParameterVectorElement,
)
from qiskit.circuit.library import PauliEvolutionGate

from qiskit_qattn.errors import CircuitError
from qiskit_qattn.simulation.cutting import without_final_measurements
from qiskit_qattn.simulation.decomposition import (
    definition_of,
    takes_a_name,
)
from qiskit_qattn.simulation.evolution import warn_of_product_formula
from qiskit_qattn.simulation.gates import is_parametric, standard_name

# Gates that are products of e^{-iθG/2} (up to a phase), one factor per angle, where the two eigenvalues of G differ by
# 2: the shift rule is exact for each angle. G is a Pauli string, or twice a projector for phases. Controlled phases
# have such a G too, but Aer binds parameters of controlled gates wrong (its issue 2403), so their definition is used.
SHIFT_GATES = {"rx", "ry", "rz", "p", "u", "u1", "u2", "u3", "rxx", "ryy", "rzz", "rzx"}


def unroll(circuit: QuantumCircuit) -> tuple[QuantumCircuit, list[Parameter], list[ParameterExpression]]:
    """Return the circuit with one new parameter per angle, those parameters, and the angles that they replace.

    Gates are identified by class. Parametric ones without a shift rule go through their definition, and so does every
    gate that has the name of one of Qiskit's but is none. The global phase, which no expectation sees, is dropped, as
    are measurements at the end; loops over known numbers are unrolled.

    Warns:
        ProductFormulaWarning: For a ``PauliEvolutionGate`` with a parameter whose terms do not commute.

    Raises:
        CircuitError: For a parametric gate without a shift rule or a definition that leads to one; for measurements
            before the end, and control flow that a measurement decides.
    """
    circuit = without_final_measurements(circuit)
    target = circuit.copy_empty_like()
    target.global_phase = 0
    expressions: list[ParameterExpression] = []
    angles = ParameterVector("α", 0)
    _append(circuit, list(target.qubits), target, _grow(angles), expressions)
    return target, list(angles), expressions


def _grow(vector: ParameterVector) -> Iterator[ParameterVectorElement]:
    """Yield the elements of a vector, which grows as they are asked for."""
    while True:
        vector.resize(len(vector) + 1)
        yield vector[-1]


def _append(
    source: QuantumCircuit,
    qubits: list[Any],
    target: QuantumCircuit,
    params: Iterator[Parameter],
    expressions: list[ParameterExpression],
) -> None:
    """Append ``source`` to ``target``, replacing each angle that has parameters by the next of ``params``."""
    for item in source.data:
        operation = item.operation
        where = [qubits[source.find_bit(qubit).index] for qubit in item.qubits]
        name, parametric = standard_name(operation), is_parametric(operation)
        if parametric and name in SHIFT_GATES:
            fresh = operation.to_mutable()
            for index, value in enumerate(operation.params):
                if isinstance(value, ParameterExpression) and value.parameters:
                    expressions.append(value)
                    fresh.params[index] = next(params)
            target.append(fresh, where)
        elif name == "global_phase":
            continue
        elif parametric or takes_a_name(operation) or isinstance(operation, ControlFlowOp | AnnotatedOperation):
            if isinstance(operation, PauliEvolutionGate):
                warn_of_product_formula(operation)
            _append(_definition(operation), where, target, params, expressions)
        else:
            target.append(operation, where)


def _definition(operation: Any) -> QuantumCircuit:
    definition = definition_of(operation)
    if definition is None and isinstance(operation, ControlFlowOp):
        raise CircuitError(
            f"Control flow {operation.name!r} is decided while the circuit runs, which PUBs of expectations do not "
            f"support. Loops over known numbers do."
        )
    if definition is None:
        raise CircuitError(
            f"Gate {operation.name!r} has parameters but neither a parameter-shift rule nor a definition. "
            f"Known: {sorted(SHIFT_GATES)}."
        )
    return definition
