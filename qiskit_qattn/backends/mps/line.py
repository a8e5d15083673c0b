"""Circuits on a line of qubits, where matrix product states live, and how wide their bonds can get."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from qiskit import QuantumCircuit
from qiskit.transpiler import CouplingMap

from qiskit_qattn.errors import CircuitError
from qiskit_qattn.simulation.decomposition import device_circuit, from_zero, preset_pass_manager, transpiled
from qiskit_qattn.simulation.gates import standard_name

MAX_QUBITS = 30
_RANK_TWO = ["cx", "cy", "cz", "cp", "rxx", "ryy", "rzz", "rzx"]  # sums of two products; other gates of four
_ONE_QUBIT = ["rx", "ry", "rz", "p", "u", "h", "x", "y", "z", "s", "sdg", "t", "tdg", "sx", "sxdg"]
_BASIS = [*_ONE_QUBIT, *_RANK_TWO, "swap"]


def check_width(circuit: QuantumCircuit) -> None:
    """Raise :class:`CircuitError` for more than 30 qubits."""
    if circuit.num_qubits > MAX_QUBITS:
        raise CircuitError(f"Matrix product states take at most {MAX_QUBITS} qubits here, got {circuit.num_qubits}.")


def on_a_line(circuit: QuantumCircuit) -> QuantumCircuit:
    """Return the circuit with gates between neighbours only, and swaps where that takes them.

    Raises:
        CircuitError: For more than 30 qubits, or a circuit that measures or resets.
    """
    check_width(circuit)
    line = transpiled(_line(circuit.num_qubits), _acting(circuit))
    foreign = sorted(set(line.count_ops()) - {*_BASIS, "barrier"})
    if foreign:
        raise CircuitError(f"Matrix product states take unitary gates only, got {foreign}.")
    return line


def _acting(circuit: QuantumCircuit) -> QuantumCircuit:
    """Return the circuit without what does nothing: waiting, and resets at the start."""
    circuit = from_zero(device_circuit(circuit))
    target = circuit.copy_empty_like()
    for item in circuit.data:
        if standard_name(item.operation) not in ("id", "delay"):
            target.append(item)
    return target


def bond_bound(line: QuantumCircuit) -> int:
    r"""Return a bound on the widest bond that a circuit of neighbouring gates can make.

    .. math:: d_b \leftarrow \min(r\, d_b, 2 d_{b-1}, 2 d_{b+1})

    for a gate of operator Schmidt rank r across bond b: a sum of r products, between two qubits of dimension 2.
    """
    bonds = [1] * (line.num_qubits + 1)  # bond b is left of qubit b; the outer two stay 1
    widest = 1
    for item in line.data:
        if len(item.qubits) == 2 and item.name != "barrier":
            at = max(line.find_bit(qubit).index for qubit in item.qubits)
            rank = 2 if item.name in _RANK_TWO else 4
            bonds[at] = min(rank * bonds[at], 2 * bonds[at - 1], 2 * bonds[at + 1])
            widest = max(widest, bonds[at])
    return widest


@lru_cache(maxsize=MAX_QUBITS)
def _line(num_qubits: int) -> Any:
    return preset_pass_manager(1, basis_gates=_BASIS, coupling_map=CouplingMap.from_line(num_qubits), seed_transpiler=0)
