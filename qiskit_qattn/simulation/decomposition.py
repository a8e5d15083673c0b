"""Circuits in Qiskit's own gates, as simulators and devices expect them.

Transpilers, simulators and services identify a gate by its name, and users choose names: a composite gate called
``swap`` runs as SWAP. So :func:`device_circuit` is applied wherever a circuit enters a backend: at the start of our
pass managers (:func:`preset_pass_manager`), and in each estimator, for circuits that reach it directly.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import (
    AnnotatedOperation,
    BoxOp,
    BreakLoopOp,
    ContinueLoopOp,
    ControlFlowOp,
    ControlledGate,
    ControlModifier,
    ForLoopOp,
    InverseModifier,
    Operation,
    PowerModifier,
)
from qiskit.circuit.exceptions import CircuitError as QiskitCircuitError
from qiskit.circuit.library import PauliEvolutionGate, UnitaryGate, get_standard_gate_name_mapping
from qiskit.converters import circuit_to_dag, dag_to_circuit
from qiskit.dagcircuit import DAGCircuit
from qiskit.exceptions import QiskitError
from qiskit.primitives.containers.estimator_pub import EstimatorPub, EstimatorPubLike
from qiskit.transpiler import PassManager, StagedPassManager, TransformationPass, generate_preset_pass_manager
from qiskit.transpiler.passes import HighLevelSynthesis, RemoveResetInZeroState

from qiskit_qattn.errors import CircuitError
from qiskit_qattn.simulation.evolution import operator_of, warn_of_product_formula
from qiskit_qattn.simulation.gates import is_parametric, is_pauli_product_rotation, standard_name

STANDARD_NAMES = frozenset(get_standard_gate_name_mapping()) | {"barrier", "initialize"}
_TAKEN = STANDARD_NAMES | {"ms"}  # IonQ's MS, which qiskit-braket-provider teaches Qiskit, is not Qiskit's MSGate
_OWN_MODULES = ("qiskit.circuit.library.", "qiskit_aer.")
_ROOT_QUBITS = 8  # up to which a power that is no whole number is formed as a matrix


def device_circuit(circuit: QuantumCircuit) -> QuantumCircuit:
    r"""Return a circuit as simulators and devices run it, in gates and instructions of Qiskit's own.

    Gates are identified by class. A composite gate, a subclass, a controlled gate of either, a renamed gate and a gate
    with open controls are replaced by their definitions, an annotated operation by its synthesis, and a loop over known
    numbers by its iterations. Every ``PauliEvolutionGate`` :math:`e^{-itH}` becomes the product formula that its
    synthesis gives.

    Warns:
        ProductFormulaWarning: Where that is not the exponential.

    Raises:
        CircuitError: For a gate that has the name of a Qiskit gate but neither a definition nor a matrix, or for an
            annotated operation that cannot be synthesised.
    """
    return _decomposed(circuit, evolutions=True)


def decompose_custom_gates(circuit: QuantumCircuit) -> QuantumCircuit:
    """Return what :func:`device_circuit` returns, but leave each ``PauliEvolutionGate`` as it is.

    Raises:
        CircuitError: As there.
    """
    return _decomposed(circuit, evolutions=False)


def device_pubs(pubs: Iterable[EstimatorPubLike], precision: float | None = None) -> list[EstimatorPub]:
    """Return coerced PUBs with their circuits converted by :func:`device_circuit`; shared circuits stay shared.

    Raises:
        CircuitError: As there.
    """
    coerced = [EstimatorPub.coerce(pub, precision) for pub in pubs]
    circuits = {id(pub.circuit): pub.circuit for pub in coerced}
    ours = {key: device_circuit(circuit) for key, circuit in circuits.items()}
    return [
        pub
        if ours[id(pub.circuit)] is pub.circuit
        else EstimatorPub(ours[id(pub.circuit)], pub.observables, pub.parameter_values, pub.precision)
        for pub in coerced
    ]


def preset_pass_manager(optimization: int, **options: Any) -> StagedPassManager:
    """Return Qiskit's preset pass manager with :func:`device_circuit` before its first stage.

    Args:
        optimization: Qiskit's optimization level, 0 to 3.
        options: As for ``generate_preset_pass_manager``.
    """
    manager = generate_preset_pass_manager(optimization, **options)
    manager.pre_init = PassManager([_DeviceCircuit()])
    manager.__class__ = _Preset
    manager.made_from = functools.partial(preset_pass_manager, optimization, **options)
    return manager


class _Preset(StagedPassManager):
    """A preset pass manager, which Qiskit's cannot be pickled: this one is pickled as what it was made from."""

    made_from: Callable[[], StagedPassManager]

    def __reduce__(self) -> Any:
        return self.made_from, ()

    def __deepcopy__(self, memo: dict[int, Any]) -> StagedPassManager:
        return self


def transpiled(manager: Any, circuit: QuantumCircuit) -> QuantumCircuit:
    """Return a circuit transpiled by a pass manager.

    Raises:
        CircuitError: If that fails; the message contains the reason.
    """
    try:
        return manager.run(circuit)
    except QiskitError as error:
        raise CircuitError(f"The circuit cannot be transpiled: {error.message}") from error


def from_zero(circuit: QuantumCircuit) -> QuantumCircuit:
    """Return a circuit without resets of qubits that are still in |0⟩, for devices that cannot reset.

    Args:
        circuit: A circuit of Qiskit's own gates. An ``Initialize`` counts as resets and gates.
    """
    names = {standard_name(item.operation) for item in circuit.data}
    if "initialize" in names:
        circuit = circuit.decompose("initialize")
    return RemoveResetInZeroState()(circuit) if names & {"initialize", "reset"} else circuit


def is_own(operation: Any) -> bool:
    """Return whether an operation is one of Qiskit's own under its own name, so that its name identifies it."""
    name = standard_name(operation)
    if name is not None:
        return operation.name == name
    if isinstance(operation, ControlledGate) and "1" * operation.num_ctrl_qubits != f"{operation.ctrl_state:b}":
        return False
    if is_pauli_product_rotation(operation) and not operation.pauli().to_label().strip("I"):
        return False  # a phase, which its definition lacks
    kind = getattr(operation, "base_class", type(operation))
    return kind.__module__.startswith(_OWN_MODULES) and operation.name not in _TAKEN


def takes_a_name(operation: Any) -> bool:
    """Return whether an operation has the name of a Qiskit operation but is another."""
    return operation.name in STANDARD_NAMES and not is_own(operation)


def definition_of(operation: Any) -> QuantumCircuit | None:
    """Return the definition of an operation, or None if it has none.

    The definition of a parameter-free gate that only has a matrix is that unitary.

    Raises:
        CircuitError: If its definition cannot be built, or an annotated operation cannot be synthesised.
    """
    try:
        if isinstance(operation, AnnotatedOperation):
            return _synthesis(operation)
        if isinstance(operation, ControlFlowOp):
            return _unrolled(operation)
        if is_pauli_product_rotation(operation) and not is_own(operation):
            return QuantumCircuit(operation.num_qubits, global_phase=-operation.params[0] / 2)
        found = getattr(operation, "definition", None)
        if isinstance(found, QuantumCircuit):
            return found
        if is_parametric(operation) or not hasattr(operation, "to_matrix"):
            return None
        matrix = np.asarray(operation.to_matrix())
    except QiskitCircuitError:  # a gate without a matrix
        return None
    except (QiskitError, TypeError, ValueError) as error:
        raise CircuitError(f"The definition of {operation.name!r} cannot be built: {error}") from error
    alone = QuantumCircuit(operation.num_qubits)
    alone.append(UnitaryGate(matrix), range(operation.num_qubits))
    return alone


class _DeviceCircuit(TransformationPass):
    """:func:`device_circuit` as a transpiler pass."""

    def run(self, dag: DAGCircuit) -> DAGCircuit:
        circuit = dag_to_circuit(dag, copy_operations=False)
        ours = device_circuit(circuit)
        return dag if ours is circuit else circuit_to_dag(ours)


def _decomposed(circuit: QuantumCircuit, *, evolutions: bool) -> QuantumCircuit:
    if all(_stays(item.operation, evolutions) for item in circuit.data):
        return circuit
    target = circuit.copy_empty_like()
    _append(circuit, target.qubits, target.clbits, target, evolutions)
    return target


def _stays(operation: Any, evolutions: bool) -> bool:
    """Return whether an operation is left unchanged."""
    if isinstance(operation, PauliEvolutionGate):
        return not evolutions
    if isinstance(operation, ControlFlowOp):
        return _unrolled(operation) is None
    if is_own(operation):
        return True
    # a device's own gate, or a channel: no definition to use, and no clash with a Qiskit name
    return (
        not isinstance(operation, AnnotatedOperation) and not takes_a_name(operation) and operation.definition is None
    )


def _append(
    source: QuantumCircuit, qubits: Sequence[Any], clbits: Sequence[Any], target: QuantumCircuit, evolutions: bool
) -> None:
    """Append a circuit's operations to ``target``."""
    for item in source.data:
        operation = item.operation
        where = [qubits[source.find_bit(qubit).index] for qubit in item.qubits]
        bits = [clbits[source.find_bit(bit).index] for bit in item.clbits]
        if _stays(operation, evolutions):
            target.append(operation, where, bits)
            continue
        if isinstance(operation, PauliEvolutionGate):
            warn_of_product_formula(operation)
        definition = definition_of(operation)
        if definition is None:
            raise CircuitError(
                f"The gate {operation.name!r} on qubits {[target.find_bit(qubit).index for qubit in where]} has the "
                f"name of one of Qiskit's but is another, without a definition or a matrix. Give it a definition."
            )
        target.global_phase += definition.global_phase
        _append(definition, where, bits, target, evolutions)


def _unrolled(operation: ControlFlowOp) -> QuantumCircuit | None:
    """Return a box or a loop over known numbers as a circuit; None for any other control flow."""
    if isinstance(operation, BoxOp):
        return operation.blocks[0]
    if not isinstance(operation, ForLoopOp) or not isinstance(operation.params[0], range | tuple | list):
        return None
    values, parameter, body = operation.params
    if _leaves_early(body):
        return None
    turns = body.copy_empty_like()
    turns.global_phase = 0
    for value in values:
        turns.compose(body if parameter is None else body.assign_parameters({parameter: value}), inplace=True)
    return turns


def _leaves_early(body: QuantumCircuit) -> bool:
    """Return whether a loop's body contains ``break`` or ``continue``."""
    return any(
        isinstance(item.operation, BreakLoopOp | ContinueLoopOp)
        or (isinstance(item.operation, ControlFlowOp) and any(map(_leaves_early, item.operation.blocks)))
        for item in body.data
    )


def _synthesis(operation: AnnotatedOperation) -> QuantumCircuit:
    """Return an annotated operation as a circuit."""
    alone = QuantumCircuit(operation.num_qubits)
    if any(isinstance(each, PowerModifier) and each.power % 1 for each in operation.modifiers):
        return _root(operation)
    if isinstance(operation.base_op, PauliEvolutionGate):  # modified evolutions are evolutions
        alone.append(_modified(operation.base_op, operation.modifiers), range(operation.num_qubits))
        return alone
    base: Operation = operation.base_op
    if not is_own(base):
        definition = definition_of(base)
        if definition is None:
            raise CircuitError(f"The annotated gate {base.name!r} has neither a definition nor a matrix.")
        gate = decompose_custom_gates(definition).to_gate()
        gate.name = "custom"  # not the name of a Qiskit gate
        base = gate
    alone.append(AnnotatedOperation(base, operation.modifiers), range(operation.num_qubits))
    return PassManager([HighLevelSynthesis(basis_gates=sorted(STANDARD_NAMES))]).run(alone)


def _root(operation: AnnotatedOperation) -> QuantumCircuit:
    """Return an operation with a power that is no whole number, as a circuit of its matrix.

    Such powers do not commute with other modifiers, as :class:`HighLevelSynthesis` takes them to, and
    ``PauliEvolutionGate.power``, which multiplies the time, is on another branch.
    """
    if is_parametric(operation.base_op) or operation.num_qubits > _ROOT_QUBITS:
        powers = ", ".join(f"{each.power:g}" for each in operation.modifiers if isinstance(each, PowerModifier))
        raise CircuitError(
            f"Power {powers} of {operation.base_op.name!r} has no circuit: with parameters, or on more than "
            f"{_ROOT_QUBITS} qubits, powers must be whole numbers."
        )
    alone = QuantumCircuit(operation.num_qubits)
    matrix = operator_of(operation).data
    if not alone.num_qubits:
        alone.global_phase = float(np.angle(matrix.item()))
    else:
        alone.append(UnitaryGate(matrix), alone.qubits)
    return alone


def _modified(gate: PauliEvolutionGate, modifiers: Iterable[Any]) -> PauliEvolutionGate:
    """Return an evolution under modifiers as an evolution."""
    for modifier in modifiers:
        if isinstance(modifier, InverseModifier):
            gate = gate.inverse()
        elif isinstance(modifier, PowerModifier):
            gate = gate.power(modifier.power)
        elif isinstance(modifier, ControlModifier):
            gate = gate.control(modifier.num_ctrl_qubits, ctrl_state=modifier.ctrl_state)
    return gate
