"""A circuit cut to the qubits in use."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from qiskit import QuantumCircuit


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


def cut(circuit: QuantumCircuit, asked: Iterable[int], ignored: Collection[str] = ("barrier",)) -> Cut:
    """Return a circuit on the qubits that it acts on or that are asked for, at least one, without classical bits.

    Args:
        circuit: The whole circuit, which uses no classical bits.
        asked: Qubits that are kept though nothing acts on them.
        ignored: Names of instructions that are left out.
    """
    acting = [item for item in circuit.data if item.operation.name not in ignored]
    used = {circuit.find_bit(qubit).index for item in acting for qubit in item.qubits} | set(asked)
    qubits = tuple(sorted(used)) or (0,)
    place = {qubit: index for index, qubit in enumerate(qubits)}
    part = QuantumCircuit(len(qubits))
    for item in acting:
        part.append(item.operation, [place[circuit.find_bit(qubit).index] for qubit in item.qubits])
    return Cut(part, qubits)
