r"""Time evolution :math:`e^{-itH}` as elementary operations, exactly, for a time that may be an expression.

The terms of H fall into groups that commute with each other: the connected components of the graph that joins terms
which do not commute. A term that commutes with all others is a rotation about a Pauli string. A larger group is
diagonalised on the qubits it acts on, :math:`H_g = V \Lambda V^\dagger`, so that

.. math:: e^{-itH_g} = V e^{-it\Lambda} V^\dagger, \qquad \Lambda = \sum_S \lambda_S Z_S .
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.linalg
from qiskit.circuit import ParameterExpression
from qiskit.circuit.library import PauliEvolutionGate
from qiskit.quantum_info import Operator, PauliList, SparseObservable, SparsePauliOp
from qiskit.synthesis import MatrixExponential
from scipy.sparse import SparseEfficiencyWarning, csr_array
from scipy.sparse.csgraph import connected_components

from qiskit_qattn.errors import CircuitError
from qiskit_qattn.simulation.elementary import (
    Angle,
    Operation,
    ParityRotation,
    Phase,
    Unitary,
    pauli_rotation,
)

MAX_QUBITS = 8  # of a group of terms: 256 eigenvalues, each up to as many diagonal rotations
_COMPARED_QUBITS = 6  # up to which a product formula is compared with the exponential
_ZERO = 1e-14  # relative size of coefficients that are rounding


def pauli_evolution(operator: Any, time: Angle, qubits: tuple[int, ...]) -> Iterator[Operation]:
    r"""Yield :math:`e^{-itH}` for a sum H of Pauli strings.

    Args:
        operator: What Qiskit's ``PauliEvolutionGate`` holds: H, or a list of operators whose sum is H.
        time: t, a number or an expression.
        qubits: Where H acts, its least significant qubit first.

    Raises:
        CircuitError: For groups of terms on more than 8 qubits.
    """
    parts = operator if isinstance(operator, list) else [operator]
    total = SparsePauliOp.sum([_as_sum(part) for part in parts]).simplify(atol=0)
    for members in _groups(total.paulis):
        paulis, coefficients = total.paulis[members], total.coeffs.real[members]
        where = np.flatnonzero((paulis.x | paulis.z).any(0))
        own = tuple(qubits[k] for k in where)
        if len(members) == 1:
            letters: Any = [letter for letter in reversed(paulis[0].to_label()) if letter != "I"]
            yield from pauli_rotation(letters, own, time * (2 * float(coefficients[0])))
            continue
        if len(own) > MAX_QUBITS:
            raise CircuitError(
                f"Time evolution under terms that do not commute, on {len(own)} qubits together, cannot be "
                f"exponentiated exactly; at most {MAX_QUBITS}."
            )
        local = SparsePauliOp(PauliList.from_symplectic(paulis.z[:, where], paulis.x[:, where]), coefficients)
        yield from matrix_evolution(local.to_matrix(), time, own)


def matrix_evolution(hamiltonian: np.ndarray, time: Angle, qubits: tuple[int, ...]) -> Iterator[Operation]:
    r"""Yield :math:`e^{-itH}` for a Hermitian matrix H.

    Args:
        hamiltonian: H, shape ``(2**k, 2**k)``.
        time: t, a number or an expression.
        qubits: Where H acts, its least significant qubit first.

    Raises:
        CircuitError: For an expression on more than 8 qubits.
    """
    plain = hamiltonian if np.iscomplexobj(hamiltonian) and hamiltonian.imag.any() else hamiltonian.real
    values, vectors = np.linalg.eigh(plain)
    if not isinstance(time, ParameterExpression):
        yield Unitary(qubits, (vectors * np.exp(-1j * time * values)) @ vectors.conj().T)
        return
    if len(qubits) > MAX_QUBITS:
        raise CircuitError(
            f"Time evolution on {len(qubits)} qubits for a time that depends on parameters cannot be exponentiated "
            f"exactly; at most {MAX_QUBITS}."
        )
    yield Unitary(qubits, vectors.conj().T)
    for subset, value in enumerate(_walsh(values)):
        if subset == 0:
            yield Phase(time * -float(value))
        elif abs(value) > _ZERO * np.abs(values).max():
            own = tuple(q for k, q in enumerate(qubits) if subset >> k & 1)
            yield ParityRotation(own, time * (2 * float(value)))
    yield Unitary(qubits, vectors)


def _as_sum(operator: Any) -> SparsePauliOp:
    """Return an operator as a sum of Pauli strings."""
    if isinstance(operator, SparseObservable):
        return SparsePauliOp.from_sparse_observable(operator)
    return SparsePauliOp(operator)


def _groups(paulis: PauliList) -> list[np.ndarray]:
    """Return the positions of the terms in each connected component of the graph of terms that do not commute."""
    clash = (paulis.x.astype(int) @ paulis.z.T.astype(int) + paulis.z.astype(int) @ paulis.x.T.astype(int)) % 2
    count, which = connected_components(csr_array(clash), directed=False)
    return [np.flatnonzero(which == group) for group in range(count)]


def _walsh(values: np.ndarray) -> np.ndarray:
    """Return the coefficients of a diagonal over Z strings, with bit k of a position for Z on qubit k."""
    size = len(values)
    result = values.astype(float)
    step = 1
    while step < size:
        pairs = result.reshape(-1, 2, step)
        result = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], 1).reshape(-1)
        step *= 2
    return result / size


def operator_of(operation: Any) -> Operator:
    """Return an operation's matrix, without scipy's warning that it converts what Qiskit exponentiates."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SparseEfficiencyWarning)
        return Operator(operation)


class ProductFormulaWarning(UserWarning):
    """A ``PauliEvolutionGate`` that runs as a product formula, which differs from its exponential."""


def warn_of_product_formula(gate: PauliEvolutionGate) -> None:
    """Warn if the product formula of an evolution is not its exponential."""
    operator = SparsePauliOp.from_sparse_observable(gate._extract_sparse_observable())
    if len(operator.paulis.group_commuting()) <= 1 or isinstance(gate.synthesis, MatrixExponential):
        return
    difference = ""
    if not getattr(gate.time, "parameters", ()) and gate.num_qubits <= _COMPARED_QUBITS:
        exact = scipy.linalg.expm(-1j * float(gate.time) * operator.to_matrix())
        run = Operator(gate.definition).data
        overlap = np.vdot(exact, run)
        distance = float(np.linalg.norm(run * (abs(overlap) / overlap if overlap else 1) - exact, 2))
        if distance < 1e-8:
            return
        difference = f" by {distance:.2g} in spectral norm"
    terms = ", ".join(operator.paulis.to_labels()[:4]) + (", …" if len(operator) > 4 else "")
    warnings.warn(
        f"PauliEvolutionGate of {terms}: the terms do not commute. Simulators and devices run its product formula, "
        f"{type(gate.synthesis).__name__} with reps={getattr(gate.synthesis, 'reps', 1)}, which differs from the "
        f"exponential{difference}; exact engines use the exponential. To reduce the difference, raise "
        f"reps of its synthesis or use SuzukiTrotter of a higher order.",
        ProductFormulaWarning,
        stacklevel=2,
    )
