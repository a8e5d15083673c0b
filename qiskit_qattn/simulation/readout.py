"""Observables as signs of the outcomes of a few measurement bases, and amplitudes of these outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from qiskit.quantum_info import Pauli, PauliList, SparseObservable, SparsePauliOp
from qiskit.quantum_info.operators.base_operator import BaseOperator
from torch import Tensor, nn

from qiskit_qattn.errors import CircuitError
from qiskit_qattn.library.observables import basis_rotation, measurement_bases
from qiskit_qattn.simulation import cost
from qiskit_qattn.simulation.constants import ConstantModule
from qiskit_qattn.simulation.elementary import Fixed
from qiskit_qattn.simulation.operators import Block, multiply
from qiskit_qattn.simulation.program import LocalStep


@dataclass(frozen=True, eq=False)
class Readout:
    r"""How expectations follow from measurements.

    .. math:: \langle O_m \rangle = \sum_{b, i} |\langle i | V_b | \psi \rangle|^2 \, S_{(b, i), m}

    Attributes:
        bases: One of ``X``, ``Y``, ``Z`` per qubit, qubit 0 last.
        rotations: V, the basis changes, shape ``(num_bases, n, 2, 2)``, qubit 0 first.
        signs: S, shape ``(num_bases * 2**n, M)``.
    """

    bases: tuple[str, ...]
    rotations: np.ndarray
    signs: np.ndarray

    @property
    def num_qubits(self) -> int:
        """The number of qubits n."""
        return self.rotations.shape[1]

    def matrix(self) -> np.ndarray:
        """Return all basis changes stacked, shape ``(num_bases * 2**n, 2**n)``."""
        return np.concatenate([reduce(np.kron, rotation[::-1]) for rotation in self.rotations])

    def needed_outcomes(self) -> tuple[np.ndarray, np.ndarray]:
        """Return which outcomes expectations need, and the signs that go with them, shape ``(R, M)``.

        Probabilities of a basis sum to 1, so its commonest row of signs can be moved to the first basis, and the
        outcomes that had it need not be computed: half of them in a basis with a single Pauli string.
        """
        signs = self.signs.reshape(len(self.bases), -1, self.signs.shape[-1]).copy()
        keep = np.ones(signs.shape[:2], dtype=bool)
        for basis in range(1, len(self.bases)):
            rows, position, counts = np.unique(signs[basis], axis=0, return_inverse=True, return_counts=True)
            common = rows[counts.argmax()]
            keep[basis] = position.reshape(-1) != counts.argmax()
            signs[basis] -= common
            signs[0] += common
        return np.flatnonzero(keep), signs[keep]


def build_readout(observables: Sequence[BaseOperator]) -> Readout:
    """Group the Pauli terms of several observables into measurement bases.

    Args:
        observables: Hermitian operators on the same qubits; anything :class:`SparsePauliOp` can be made from.

    Raises:
        CircuitError: For no observable, complex coefficients or different numbers of qubits.
    """
    operators = [as_pauli_sum(observable) for observable in observables]
    sizes = sorted({operator.num_qubits for operator in operators})
    if len(sizes) != 1:
        raise CircuitError(f"Observables must be at least one, all on the same qubits; got numbers of qubits {sizes}.")
    num_qubits = sizes[0]
    terms: dict[str, dict[int, float]] = {}
    for m, operator in enumerate(operators):
        if np.abs(operator.coeffs.imag).max(initial=0.0) > 1e-12:
            raise CircuitError(f"Observable {m} has complex coefficients; observables must be Hermitian.")
        for label, coefficient in zip(operator.paulis.to_labels(), operator.coeffs.real, strict=True):
            row = terms.setdefault(label, {})
            row[m] = row.get(m, 0.0) + float(coefficient)
    labels = list(terms)
    grouped = measurement_bases(labels)
    index = np.arange(2**num_qubits)
    signs = np.zeros((len(grouped), 2**num_qubits, len(operators)))
    for b, (_, members) in enumerate(grouped):
        for member in members:
            label = labels[member]
            mask = sum(1 << q for q, letter in enumerate(reversed(label)) if letter != "I")
            parity = 1.0 - 2.0 * (np.bitwise_count(index & mask) & 1)
            for m, coefficient in terms[label].items():
                signs[b, :, m] += coefficient * parity
    bases = tuple(basis for basis, _ in grouped)
    rotations = np.stack([np.stack(basis_rotation(basis)) for basis in bases])
    return Readout(bases, rotations, signs.reshape(-1, len(operators)))


def as_pauli_sum(observable: BaseOperator) -> SparsePauliOp:
    """Return an observable as a sum of Pauli strings without zero terms."""
    if isinstance(observable, SparsePauliOp):
        return observable
    if isinstance(observable, Pauli | PauliList):
        return SparsePauliOp(observable)
    if isinstance(observable, SparseObservable):
        return SparsePauliOp.from_sparse_observable(observable)
    return SparsePauliOp.from_operator(observable)


class MeasurementBases(ConstantModule):
    """Turn state vectors into all measurement bases, and select the outcomes that are needed.

    Args:
        readout: The bases and their rotations.
        outcomes: Positions among the outcomes of all bases, shape ``(R,)``.
    """

    outcomes: Tensor

    def __init__(self, readout: Readout, outcomes: np.ndarray) -> None:
        super().__init__()
        num_qubits = readout.num_qubits
        self.trivial = all(set(basis) == {"Z"} for basis in readout.bases)  # outcomes are basis states
        self._all_outcomes = len(outcomes) == len(readout.signs)
        self.add_constant("outcomes", outcomes)
        if num_qubits <= cost.COSTS.dense_qubits:
            self.add_constant("matrix", readout.matrix()[outcomes], double=True)  # (R, 2**n)
        steps = [LocalStep(tuple((Fixed(q, m),) for q, m in enumerate(r))) for r in readout.rotations]
        self._blocks = nn.ModuleList(Block([step], (), num_qubits) for step in steps)

    def forward(self, columns: Tensor) -> Tensor:
        """Return amplitudes, shape ``(..., R, C)``, for states as columns of ``(..., 2**n, C)``."""
        if hasattr(self, "matrix") and columns.dtype in (torch.float64, torch.complex128):
            return multiply(self.constant("matrix"), columns)
        if not self.trivial:
            no_weights = columns.real.new_zeros(0)
            columns = torch.cat([block(columns, no_weights) for block in self._blocks], -2)
        return columns if self._all_outcomes else columns.index_select(-2, self.outcomes)
