"""A circuit cut to the qubits in use."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from qiskit import QuantumCircuit

from qiskit_qattn.simulation.gates import standard_name


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


def cut(circuit: QuantumCircuit, asked: Iterable[int], idle: Collection[str] = ()) -> Cut:
    """Return a circuit on the qubits that it acts on or that are asked for, at least one, without classical bits.

    Args:
        circuit: The whole circuit, which uses no classical bits. Its barriers are left out.
        asked: Qubits that are kept though nothing acts on them.
        idle: Names of Qiskit's own instructions that are no reason to keep a qubit.
    """
    acting = [item for item in circuit.data if standard_name(item.operation) != "barrier"]
    busy = [item for item in acting if standard_name(item.operation) not in idle]
    used = {circuit.find_bit(qubit).index for item in busy for qubit in item.qubits} | set(asked)
    qubits = tuple(sorted(used)) or (0,)
    place = {qubit: index for index, qubit in enumerate(qubits)}
    part = QuantumCircuit(len(qubits))
    for item in acting:
        where = [circuit.find_bit(qubit).index for qubit in item.qubits]
        if used.issuperset(where):
            part.append(item.operation, [place[qubit] for qubit in where])
    return Cut(part, qubits)
