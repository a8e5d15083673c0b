"""Circuits without the qubits nothing uses, and without final measurements."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from qiskit import QuantumCircuit

from qiskit_qattn.errors import CircuitError
from qiskit_qattn.simulation.gates import IDLE, refusal, standard_name

_LEFT_OUT = {"barrier", "global_phase"}


@dataclass(frozen=True)
class Cut:
    """A circuit without the qubits that nothing acts on and nothing is asked of.

    Attributes:
        circuit: The circuit on the qubits in use.
        qubits: The qubit of the whole circuit that each of them was.
    """

    circuit: QuantumCircuit
    qubits: tuple[int, ...]

    def label(self, label: str) -> str:
        """Return a Pauli string of the whole circuit on the qubits in use."""
        return "".join(label[-1 - qubit] for qubit in reversed(self.qubits))


def cut(circuit: QuantumCircuit, asked: Iterable[int]) -> Cut:
    """Return a circuit on the qubits that it acts on or that are asked for, at least one, without classical bits.

    Barriers and phases are left out. A qubit that only waits, in ``id`` or ``delay``, is not in use; on the others
    waiting is kept, since noise may come with it.

    Args:
        circuit: The whole circuit.
        asked: Qubits that are kept though nothing acts on them.

    Raises:
        CircuitError: For a circuit with classical bits in use.
    """
    clashes = sorted({item.operation.name for item in circuit.data if item.clbits})
    if clashes:
        raise CircuitError(f"Expectations are of circuits without classical bits in use, got {clashes}.")
    kept = [item for item in circuit.data if standard_name(item.operation) not in _LEFT_OUT]
    acting = [item for item in kept if standard_name(item.operation) not in IDLE]
    used = {circuit.find_bit(qubit).index for item in acting for qubit in item.qubits} | set(asked)
    qubits = tuple(sorted(used)) or (0,)
    place = {qubit: index for index, qubit in enumerate(qubits)}
    part = QuantumCircuit(len(qubits))
    for item in kept:
        where = [circuit.find_bit(qubit).index for qubit in item.qubits]
        if place.keys() >= set(where):
            part.append(item.operation, [place[qubit] for qubit in where])
    return Cut(part, qubits)


def without_final_measurements(circuit: QuantumCircuit) -> QuantumCircuit:
    """Return the circuit without the measurements that nothing follows, and their classical bits.

    Raises:
        CircuitError: If a measurement, or anything else that uses classical bits, is left.
    """
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
