"""From PUBs to circuits measured in a basis, and from the outcomes back to expectations.

For providers that run circuits and return bits. A plan depends only on its PUB, so that a later process
makes the same one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.quantum_info import PauliList, SparseObservable, SparsePauliOp

from qiskit_qattn.backends.jobs.device import Values
from qiskit_qattn.errors import BackendError

_SHOTS = 10**9


def shots_of(precision: float) -> int:
    r"""Return :math:`\lceil 1 / \varepsilon^2 \rceil`, the samples per basis for a standard error of ε.

    Raises:
        BackendError: For a precision of 0 or less, or one that asks for more than 10⁹ samples.
    """
    if not precision > 0 or precision**2 * _SHOTS < 1:
        raise BackendError(
            f"This device samples: the precision must be a standard error of at least {_SHOTS**-0.5:.1e}, "
            f"got {precision}. Set shots in the backend string."
        )
    return math.ceil(1 / precision**2)


@dataclass(frozen=True)
class Samples:
    """What one circuit measured.

    Attributes:
        bits: Outcomes, shape ``(S, n)``; column i is qubit i.
        weights: Frequency of each outcome, shape ``(S,)``, with sum 1.
        shots: Number of samples.
    """

    bits: np.ndarray
    weights: np.ndarray
    shots: int


@dataclass(frozen=True)
class Basis:
    """A measurement basis of a PUB.

    Attributes:
        label: X, Y, Z or I for each qubit, the last letter for qubit 0.
        rows: Parameter sets that are measured in it.
        terms: Which Pauli strings of the plan it gives.
    """

    label: str
    rows: np.ndarray
    terms: np.ndarray


class Plan:
    r"""The measurements of a PUB: Pauli strings that commute qubit by qubit share a basis, as do equal strings.

    An observable is :math:`O_k = \sum_t c_{kt} P_t`. With M the Pauli strings of one basis, a sample b gives
    :math:`o_k(b) = \sum_{t \in M} c_{kt} (-1)^{b \cdot s_t}`; means and variances of the bases add up.

    Args:
        pub: A PUB of any broadcast shape.

    Attributes:
        parameters: The circuit's parameters, in the order of the columns of ``points``.
        points: Parameter sets, shape ``(N, P)``.
        terms: Pauli strings, without the identity.
        bases: The bases in which they are measured.
    """

    def __init__(self, pub: EstimatorPub) -> None:
        self.pub = pub
        self.parameters = list(pub.circuit.parameters)
        values = pub.parameter_values.as_array(self.parameters)  # (*shape, P)
        self.points = values.reshape(math.prod(values.shape[:-1]), len(self.parameters))  # (N, P)
        operators, which = _operators(pub)
        identity = "I" * pub.circuit.num_qubits
        labels = [label for operator in operators for label in operator.paulis.to_labels()]
        self.terms = [label for label in dict.fromkeys(labels) if label != identity]
        column = {label: index for index, label in enumerate(self.terms)}
        self._weights = np.zeros((len(operators), len(self.terms)))  # (K, T)
        self._offsets = np.zeros(len(operators))
        for row, operator in enumerate(operators):
            for label, factor in zip(operator.paulis.to_labels(), operator.coeffs.real, strict=True):
                if label == identity:
                    self._offsets[row] += factor
                else:
                    self._weights[row, column[label]] += factor
        points = np.arange(len(self.points)).reshape(values.shape[:-1])
        self._points, self._which = np.broadcast_arrays(points, which)
        self._signs = np.array([[letter != "I" for letter in reversed(label)] for label in self.terms], dtype=int)
        self.bases = list(self._bases())

    @property
    def size(self) -> int:
        """Number of circuits that are run: one per basis and parameter set."""
        return sum(len(basis.rows) for basis in self.bases)

    def from_samples(self, samples: Iterator[Samples]) -> Values:
        """Return means and standard errors.

        Args:
            samples: One for each basis and each of its rows, in this order; no more than :attr:`size` are taken.
        """
        means = np.tile(self._offsets, (len(self.points), 1))  # (N, K)
        variances = np.zeros_like(means)
        for basis in self.bases:
            weights = self._weights[:, basis.terms].T  # (t, K)
            for row in basis.rows:
                sample = next(samples)
                signs = 1.0 - 2.0 * (sample.bits @ self._signs[basis.terms].T % 2)  # (S, t)
                outcomes = signs @ weights  # (S, K)
                mean = sample.weights @ outcomes
                means[row] += mean
                variances[row] += np.clip(sample.weights @ outcomes**2 - mean**2, 0, None) / sample.shots
        return self._pick(means, np.sqrt(variances))

    def from_expectations(self, table: np.ndarray) -> Values:
        """Return exact values from the expectation of each Pauli string, shape ``(N, T)``."""
        means = table @ self._weights.T + self._offsets
        return self._pick(means, np.zeros_like(means))

    def _pick(self, means: np.ndarray, errors: np.ndarray) -> Values:
        return Values(means[self._points, self._which], errors[self._points, self._which])

    def _bases(self) -> Iterator[Basis]:
        if not self.terms:
            return
        column = {label: index for index, label in enumerate(self.terms)}
        for group in PauliList(self.terms).group_commuting(qubit_wise=True):
            terms = np.array([column[label] for label in group.to_labels()])
            used = np.flatnonzero(self._weights[:, terms].any(1))  # observables
            rows = np.unique(self._points[np.isin(self._which, used)])
            letters = (max(letters, key="IXYZ".index) for letters in zip(*group.to_labels(), strict=True))
            if rows.size:
                yield Basis("".join(letters), rows, terms)


def _operators(pub: EstimatorPub) -> tuple[list[SparsePauliOp], np.ndarray]:
    """Return the distinct observables as sums of Pauli strings, and for each place of the array which of them it is."""
    terms = [tuple(sorted(observable.items())) for observable in pub.observables.ravel().tolist()]
    unique = {key: index for index, key in enumerate(dict.fromkeys(terms))}
    operators = [
        SparsePauliOp.from_sparse_observable(SparseObservable.from_list(list(key)).as_paulis()).simplify()
        for key in unique
    ]
    return operators, np.array([unique[key] for key in terms], dtype=int).reshape(pub.observables.shape)
