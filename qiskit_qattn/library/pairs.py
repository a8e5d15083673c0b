"""Circuits of a pair: what a device runs to compare the states of a query and of a key."""

from __future__ import annotations

from itertools import product
from typing import Literal, get_args

from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.quantum_info import SparsePauliOp

from qiskit_qattn.errors import CircuitError, unknown_name
from qiskit_qattn.library.attention_circuit import AttentionCircuit

Comparison = Literal["overlap", "mixed", "complex"]
SUMMARIES: dict[Comparison, str] = {
    "overlap": r"|⟨q|k⟩|² by compute–uncompute: the query's circuit and the inverse of the key's",
    "mixed": "Tr(ρσ) of half of the qubits of q and k: destructive swap test; arXiv 2403.02871",
    "complex": r"⟨q|k⟩ by a Hadamard test: q and k in the branches of an ancilla; arXiv 2503.19002",
}


def pair_circuit(states: AttentionCircuit, comparison: Comparison) -> AttentionCircuit:
    r"""Return the circuit of a query and a key whose expectations compare their states.

    With :math:`|q\rangle = A(\theta) E(x) |0\rangle` and :math:`|k\rangle = A(\varphi) E(y) |0\rangle`:

    - ``overlap``: :math:`|\langle q | k \rangle|^2`, by compute–uncompute: the query's circuit, the inverse of the
      key's, and the probability of :math:`|0 \dots 0\rangle`; n qubits, one measurement basis.
    - ``mixed``: :math:`\mathrm{Tr}(\rho \sigma)` of the first :func:`kept_qubits` of each state, the others traced
      out, by the destructive swap test: both circuits side by side and Bell measurements; 2n qubits, one basis.
    - ``complex``: :math:`\mathrm{Re} \langle q | k \rangle` and :math:`\mathrm{Im} \langle q | k \rangle`, by a
      Hadamard test: the X and Y of the ancilla in :math:`(|0\rangle |q\rangle + |1\rangle |k\rangle) / \sqrt 2`;
      n + 1 qubits, two bases.

    Inputs are the encoding's angles of the query, then those of the key; weights θ, then φ.

    Args:
        states: The encoding E and ansatz A.
        comparison: Which of the three.

    Raises:
        UnknownNameError: For another comparison.
        CircuitError: For ``complex`` and a parametric gate that is not RX, RY or RZ.

    Source: Havlíček et al., Nature 567, 209 (2019), arXiv 1804.11326, "Quantum kernel estimation"; Garcia-Escartin and
    Chamorro-Posada, Phys. Rev. A 87, 052330 (2013), arXiv 1303.6814, section IV.
    """
    if comparison not in get_args(Comparison):
        raise unknown_name("comparison of states", comparison, get_args(Comparison))
    query, key = _renamed(states, "q", "θ"), _renamed(states, "k", "φ")
    circuit, observables = {"overlap": _overlap, "mixed": _mixed, "complex": _complex}[comparison](query, key)
    circuit.name = pair_name(states.name, comparison)
    (_, q, theta), (_, k, phi) = query, key
    return AttentionCircuit.from_circuit(circuit, observables, [*q, *k], [*theta, *phi])


def pair_name(states: str, comparison: Comparison) -> str:
    """Return what the circuit of a pair is called, after the circuit of its states."""
    return f"{states}-{comparison}"


def kept_qubits(num_qubits: int) -> int:
    """Return how many qubits of a mixed state are kept, ⌈n / 2⌉; the others are traced out."""
    return (num_qubits + 1) // 2


_State = tuple[QuantumCircuit, ParameterVector, ParameterVector]
_Compared = tuple[QuantumCircuit, list[SparsePauliOp]]


def _renamed(states: AttentionCircuit, inputs: str, weights: str) -> _State:
    """Return the circuit of a state with parameter vectors of its own for inputs and weights."""
    x, theta = ParameterVector(inputs, len(states.input_params)), ParameterVector(weights, len(states.weight_params))
    names = dict(zip([*states.input_params, *states.weight_params], [*x, *theta], strict=True))
    return states.circuit.assign_parameters(names), x, theta


def _overlap(query: _State, key: _State) -> _Compared:
    n = query[0].num_qubits
    strings = ["".join(letters) for letters in product("IZ", repeat=n)]
    return query[0].compose(key[0].inverse()), [SparsePauliOp(strings, [2.0**-n] * 2**n)]


def _mixed(query: _State, key: _State) -> _Compared:
    n = query[0].num_qubits
    circuit = QuantumCircuit(2 * n)
    circuit.compose(query[0], range(n), inplace=True)
    circuit.compose(key[0], range(n, 2 * n), inplace=True)
    swap = SparsePauliOp("I" * 2 * n)
    for qubit in range(kept_qubits(n)):
        circuit.cx(qubit, n + qubit)
        circuit.h(qubit)
        terms = [("", [], 0.5), ("Z", [qubit], 0.5), ("Z", [n + qubit], 0.5), ("ZZ", [qubit, n + qubit], -0.5)]
        swap = swap.compose(SparsePauliOp.from_sparse_list(terms, 2 * n))  # −1 where both are 1, else 1
    return circuit, [swap]


def _complex(query: _State, key: _State) -> _Compared:
    n = query[0].num_qubits
    circuit = QuantumCircuit(n + 1)
    circuit.h(n)
    for of_query, of_key in zip(query[0].data, key[0].data, strict=True):
        qubits = [query[0].find_bit(qubit).index for qubit in of_query.qubits]
        gate = of_query.operation
        if not gate.params or of_query.operation == of_key.operation:
            circuit.append(gate, qubits)
            continue
        if gate.name not in ("rx", "ry", "rz"):
            raise CircuitError(f"The overlap with its phase takes circuits of RX, RY and RZ, got {gate.name}.")
        a, b = gate.params[0], of_key.operation.params[0]
        for angle in ((a + b) / 2, (a - b) / 2):  # a where the ancilla is 0, b where it is 1
            circuit.append(gate.base_class(angle), qubits)
            (circuit.cx if gate.name == "rz" else circuit.cz)(n, qubits[0])
    return circuit, [SparsePauliOp(letter + "I" * n) for letter in "XY"]
