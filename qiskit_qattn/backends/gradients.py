"""Gradient rules for estimators: which circuits a backward pass runs, and how their values make a gradient."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from qiskit_qattn.backends.spec import BackendSpec
from qiskit_qattn.errors import ConfigError, unknown_name

_SAMPLES = 8
_CHUNK = 2**20  # numbers of the differences that are copied at a time

GRADIENTS = {
    "parameter_shift": "exact up to sampling noise; two circuits per angle",
    "spsa": "random directions; two circuits per direction, whatever the number of angles",
    "simulated": "of the noiseless circuit, by the exact engine; no circuit on the backend",
}
GRADIENT_OPTIONS = {
    "gradient": f"how expectations are differentiated: {', '.join(GRADIENTS)}; the first by default",
    "spsa_samples": f"random directions per row with gradient=spsa; {_SAMPLES} by default",
}


class DifferenceRule(Protocol):
    r"""A gradient estimate from symmetric differences along S displacements :math:`\delta_s`.

    .. math:: \nabla_\alpha f \approx \sum_s \big[f(\alpha + \delta_s) - f(\alpha - \delta_s)\big] c_s
    """

    def displacements(self, rows: int, angles: int) -> tuple[np.ndarray, np.ndarray]:
        """Return δ and c, each of shape ``(rows, S, angles)``, or ``(1, S, angles)`` where all rows share them."""


@dataclass(frozen=True)
class ParameterShift:
    r"""The exact derivative: :math:`\delta_k = \tfrac\pi2 e_k` and :math:`c_k = \tfrac12 e_k` for every angle k.

    Source: Mitarai et al., PRA 98, 032309 (2018), arXiv 1803.00745, equation (13); Schuld et al., PRA 99, 032331
    (2019), arXiv 1811.11184.
    """

    def displacements(self, rows: int, angles: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the displacements of :class:`DifferenceRule`, the same for all rows."""
        unit = np.eye(angles)[None]
        return np.pi / 2 * unit, unit / 2


@dataclass(frozen=True, eq=False)
class SPSA:
    r"""Random directions: :math:`\Delta_s \in \{-1, 1\}^K`.

    .. math:: \delta_s = \varepsilon \Delta_s, \qquad c_s = \Delta_s / (2 \varepsilon S)

    The mean is the derivative up to :math:`O(\varepsilon^2)`; the variance falls as 1/S and grows with the number of
    angles. Cheaper than the shift rule where a row has more than ``samples`` angles.

    Args:
        samples: S, directions per row, drawn in each backward pass.
        epsilon: ε in radians. Sampling noise of the values is divided by it, so it must not be small.
        rng: Source of the directions.

    Source: Spall, IEEE Trans. Autom. Control 37, 332 (1992), doi 10.1109/9.119632, equations (2.1) and (2.2).
    """

    samples: int = _SAMPLES
    epsilon: float = 0.1
    rng: np.random.Generator = field(default_factory=np.random.default_rng, repr=False)

    def displacements(self, rows: int, angles: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the displacements of :class:`DifferenceRule`, different for each row."""
        signs = self.rng.choice([-1.0, 1.0], size=(rows, self.samples, angles))
        return self.epsilon * signs, signs / (2 * self.epsilon * self.samples)


@dataclass(frozen=True)
class Simulated:
    """Values from the backend, gradients of the noiseless circuit from the exact engine."""


Gradient = ParameterShift | SPSA | Simulated


def gradient_option(spec: BackendSpec, seed: int | None = None) -> Gradient:
    """Return the rule a backend string asks for with ``gradient`` and ``spsa_samples``.

    Args:
        spec: The parsed string.
        seed: Seed of the random directions.

    Raises:
        UnknownNameError: For a rule that is not in ``GRADIENTS``.
        ConfigError: For ``spsa_samples`` below 1, or with another rule.
    """
    name = spec.options.get("gradient", "parameter_shift")
    if name not in GRADIENTS:
        raise unknown_name("gradient", name, GRADIENTS)
    samples = spec.integer("spsa_samples", minimum=1, maximum=2**16)
    if samples is not None and name != "spsa":
        raise ConfigError(f"spsa_samples is for gradient=spsa, but the gradient of {str(spec)!r} is {name}.")
    if name == "simulated":
        return Simulated()
    if name == "parameter_shift":
        return ParameterShift()
    # A separate stream: the estimator samples from the seed's first one.
    rng = np.random.default_rng(np.random.SeedSequence(seed).spawn(1)[0])
    return SPSA(samples or _SAMPLES, rng=rng)


def unique_rows(rows: np.ndarray, tolerance: float | None = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct rows in the order in which they first appear, and for each row which of them it is.

    Rows are equal where no entry differs by more than the tolerance. Sorting along one direction makes equal rows
    neighbours; a different row in between would only cost an evaluation.

    Args:
        rows: Shape ``(N, K)``.
        tolerance: Differences that rounding may have made; None takes all rows as distinct.
    """
    if tolerance is None:
        return rows, np.arange(len(rows))
    direction = np.sqrt(np.arange(2, rows.shape[1] + 2))
    order = np.argsort(rows @ direction, kind="stable")
    new = (np.abs(np.diff(rows[order], axis=0)) > tolerance).any(-1)
    group = np.empty(len(rows), dtype=int)
    group[order] = np.cumsum(np.concatenate([np.zeros(min(1, len(rows)), dtype=bool), new]))
    _, first, which = np.unique(group, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return rows[first[order]], np.argsort(order)[which]


class VectorJacobian:
    r"""A vector–Jacobian product by a difference rule.

    .. math:: g_{nk} = \sum_m v_{nm} \, \partial f_m(\alpha_n) / \partial \alpha_{nk}

    Equal rows are evaluated once, unless ``tolerance`` is None; rows with a cotangent of zero not at all. The Jacobian
    is not formed.

    Args:
        rule: Which displacements to evaluate.
        angles: α, shape ``(N, K)``.
        cotangent: v, shape ``(N, M)``.
        wanted: Which angles need a derivative, shape ``(K,)``; that of the others is 0.
        tolerance: Differences up to which angles count as equal.

    Attributes:
        angles: The displaced angles at which f is to be evaluated, shape ``(R, K)``.
    """

    def __init__(
        self,
        rule: DifferenceRule,
        angles: np.ndarray,
        cotangent: np.ndarray,
        wanted: np.ndarray,
        tolerance: float | None = 0.0,
    ) -> None:
        self._shape, self._cotangent = angles.shape, cotangent
        self._rows, self._columns = np.flatnonzero(cotangent.any(-1)), np.flatnonzero(wanted)
        self.angles = angles[:0]
        if self._rows.size and self._columns.size:
            points, self._which = unique_rows(angles[self._rows], tolerance)  # (U, K)
            shifts, factors = rule.displacements(len(points), len(self._columns))  # (U or 1, S, wanted)
            self._factors = np.broadcast_to(factors, (len(points), *factors.shape[1:]))
            moved = np.empty((len(points), 2, shifts.shape[1], angles.shape[1]))
            moved[:] = points[:, None, None]
            moved[:, 0][..., self._columns] += shifts
            moved[:, 1][..., self._columns] -= shifts
            self.angles = moved.reshape(-1, angles.shape[1])

    def product(self, values: np.ndarray) -> np.ndarray:
        """Return g, shape ``(N, K)``, of the values of f at :attr:`angles`, shape ``(R, M)``."""
        result = np.zeros(self._shape)
        if not len(values):
            return result
        count, samples = self._factors.shape[:2]
        pairs = values.reshape(count, 2, samples, -1)
        differences = pairs[:, 0] - pairs[:, 1]  # (U, S, M)
        step = max(1, _CHUNK // max(differences[0].size, self._factors[0].size))
        for start in range(0, len(self._rows), step):
            rows, at = self._rows[start : start + step], self._which[start : start + step]
            along = differences[at] @ self._cotangent[rows, :, None]  # (n, S, 1)
            result[rows[:, None], self._columns] = (along * self._factors[at]).sum(1)
        return result
