"""Circuits without the qubits nothing uses, and without final measurements."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from qiskit import QuantumCircuit
from qiskit.quantum_info import PauliList, SparsePauliOp

from qiskit_qattn.errors import CircuitError, counted
from qiskit_qattn.simulation.gates import IDLE, refusal, standard_name

_LEFT_OUT = {"barrier", "global_phase"}


@dataclass(frozen=True)
class Cut:
    """A circuit without its unused qubits.

    Attributes:
        circuit: The circuit on the qubits in use.
        qubits: For each of these, its index in the original circuit.
    """

    circuit: QuantumCircuit
    qubits: tuple[int, ...]

    def label(self, label: str) -> str:
        """Return a Pauli string of the original circuit on the qubits in use."""
        return "".join(label[-1 - qubit] for qubit in reversed(self.qubits))

    def observables(self, observables: Iterable[SparsePauliOp]) -> list[SparsePauliOp]:
        """Return observables of the original circuit, which act on qubits in use only, on these."""
        kept = list(self.qubits)
        return [
            SparsePauliOp(PauliList.from_symplectic(op.paulis.z[:, kept], op.paulis.x[:, kept]), op.coeffs)
            for op in observables
        ]


def cut(circuit: QuantumCircuit, measured: Iterable[int], *, classical: bool = False) -> Cut:
    """Return a circuit on the qubits that it acts on or that are measured, at least one.

    Barriers and phases are left out. A qubit with nothing but ``id`` and ``delay`` is not in use; on the others these
    are kept, since they may carry noise.

    Args:
        circuit: The circuit.
        measured: Qubits to keep even if nothing acts on them.
        classical: Whether to keep classical bits and registers too.

    Raises:
        CircuitError: For a circuit with classical bits in use, unless they are kept, or with classical variables.
    """
    _refuse_variables(circuit)
    clashes = sorted({item.operation.name for item in circuit.data if item.clbits})
    if clashes and not classical:
        raise CircuitError(f"Expectations need circuits without classical bits in use, got {clashes}.")
    kept = [item for item in circuit.data if standard_name(item.operation) not in _LEFT_OUT]
    acting = [item for item in kept if standard_name(item.operation) not in IDLE]
    used = {circuit.find_bit(qubit).index for item in acting for qubit in item.qubits} | set(measured)
    qubits = tuple(sorted(used)) or (0,)
    index = {qubit: i for i, qubit in enumerate(qubits)}
    part = QuantumCircuit(len(qubits))
    if classical:
        part = QuantumCircuit(part.qubits, circuit.clbits, *circuit.cregs, metadata=circuit.metadata)
    for item in kept:
        where = [circuit.find_bit(qubit).index for qubit in item.qubits]
        if index.keys() >= set(where):
            part.append(item.operation, [index[qubit] for qubit in where], item.clbits)
    return Cut(part, qubits)


def without_final_measurements(circuit: QuantumCircuit) -> QuantumCircuit:
    """Return the circuit without its final measurements and their classical bits.

    Raises:
        CircuitError: If a measurement that is not final, or anything else, uses classical bits or variables.
    """
    _refuse_variables(circuit)
    if not circuit.clbits:
        return circuit
    kept, followed = [], set[Any]()  # by class: a user's gate may be called measure, or barrier
    for item in reversed(circuit.data):
        name = standard_name(item.operation)
        if name == "measure" and followed.isdisjoint(item.qubits):
            continue
        if item.clbits:
            where = {circuit.find_bit(qubit).index for qubit in item.qubits}
            raise refusal(item.operation.name, where, "uses classical bits before the end")
        if name != "barrier":
            followed.update(item.qubits)
        kept.append(item)
    rest = QuantumCircuit(circuit.qubits, *circuit.qregs, name=circuit.name, metadata=circuit.metadata)
    rest.global_phase, rest._layout = circuit.global_phase, circuit.layout  # of an ISA circuit
    for item in reversed(kept):
        rest.append(item)
    return rest


def in_use(circuit: QuantumCircuit, observables: Sequence[SparsePauliOp]) -> tuple[QuantumCircuit, list[SparsePauliOp]]:
    """Return a circuit and observables on the qubits that these or its gates act on; unchanged if those are all.

    Final measurements do not count, and are left out with the qubits.

    Raises:
        CircuitError: For observables on another number of qubits; with idle qubits also as :func:`cut` does.
    """
    asked = measured_qubits(circuit, observables)
    ignored = {*IDLE, *_LEFT_OUT, "measure"}
    acting = {q for item in circuit.data if standard_name(item.operation) not in ignored for q in item.qubits}
    if len(asked.union(circuit.find_bit(qubit).index for qubit in acting)) == circuit.num_qubits:
        return circuit, list(observables)
    part = cut(without_final_measurements(circuit), asked)
    return part.circuit, part.observables(observables)


def measured_qubits(circuit: QuantumCircuit, observables: Sequence[SparsePauliOp]) -> set[int]:
    """Return the qubits on which some observable is not the identity.

    Raises:
        CircuitError: For an observable on another number of qubits than the circuit.
    """
    count = circuit.num_qubits
    for observable in observables:
        if observable.num_qubits != count:
            raise CircuitError(
                f"The circuit has {counted(count, 'qubit')}, the observables {observable.num_qubits}; they must match."
            )
    return {int(qubit) for each in observables for qubit in (each.paulis.x | each.paulis.z).any(0).nonzero()[0]}


def _refuse_variables(circuit: QuantumCircuit) -> None:
    if circuit.num_vars:
        names = ", ".join(sorted(var.name for var in circuit.iter_vars()))
        raise CircuitError(f"A circuit with classical variables cannot be simulated, got {names}.")
