"""Paired differences over a few seeds: a permutation test, a bootstrap interval, and the power of a study."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from qiskit_qattn.errors import ConfigError

Floats = NDArray[np.float64]

CONFIDENCE = 0.95  # of the interval
POWER = 0.8  # for which numbers of seeds and detectable effects are reported
EXACT_SEEDS = 12  # up to here all sign flips are enumerated, and power is simulated
_FLIPS = 9999  # random sign flips beyond
_RESAMPLES = 9999
_STUDIES = 2000
_QUANTILES = 200
_MOST_SEEDS = 100_000
_ROUNDING = 1e-12  # relative; sums that differ by less are equal


def permutation_p_values(differences: Floats, *, seed: int = 0) -> Floats:
    """Return two-sided p-values of the paired sign-flip test of a zero mean, shape ``(...)``.

    Under the null hypothesis the members of a pair are exchangeable, so both signs of every difference are equally
    likely; p is the share of sign flips whose mean is at least as far from zero as the observed one. Up to 12 seeds all
    2ⁿ are enumerated; beyond, the observed one and 9999 random ones are used.

    Args:
        differences: Paired differences, shape ``(..., n)``, n at least 2.
        seed: Seed of the random flips.

    Source: R. A. Fisher, The Design of Experiments (1935), section 21; Phipson and Smyth, arXiv 1603.05766.
    """
    n = differences.shape[-1]
    if n <= EXACT_SEEDS:  # flipping all signs changes no distance from zero, so the last sign is fixed
        signs = 1.0 - 2.0 * (np.arange(2 ** (n - 1)) >> np.arange(n)[:, None] & 1)  # (n, flips)
    else:
        signs = np.random.default_rng(seed).choice([-1.0, 1.0], (n, _FLIPS + 1))
        signs[:, 0] = 1.0
    observed = np.abs(differences.sum(-1, keepdims=True))  # (..., 1)
    rounding = _ROUNDING * np.abs(differences).sum(-1, keepdims=True)
    return np.asarray(np.mean(np.abs(differences @ signs) >= observed - rounding, -1))


def bootstrap_intervals(differences: Floats, *, seed: int = 0, resamples: int = _RESAMPLES) -> tuple[Floats, Floats]:
    r"""Return 95% bootstrap intervals of the mean: their lower and upper ends, each of shape ``(...)``.

    Percentile intervals of few values are too short, so the percentiles are taken at
    :math:`\alpha'/2 = \Phi(-\sqrt{n/(n-1)}\; t_{\alpha/2,\,n-1})`, which widens them as Student's t would. For normal
    data they cover the mean in 92 % of cases with 5 seeds and in 94 % with 8.

    Args:
        differences: Shape ``(..., n)``, n at least 2.
        seed: Seed of the resampling.
        resamples: Number of resamples.

    Source: T. Hesterberg, What teachers should know about the bootstrap, arXiv 1411.5279, on expanded percentiles.
    """
    n = differences.shape[-1]
    quantile = stats.t.isf((1 - CONFIDENCE) / 2, n - 1)
    found = stats.bootstrap(
        (differences,),
        np.mean,
        confidence_level=1 - 2 * stats.norm.sf(math.sqrt(n / (n - 1)) * quantile),
        method="percentile",
        vectorized=True,
        axis=-1,
        n_resamples=resamples,
        batch=256,
        rng=np.random.default_rng(seed),
    )
    return np.asarray(found.confidence_interval.low), np.asarray(found.confidence_interval.high)


def minimum_seeds(alpha: float = 0.05, num_comparisons: int = 1) -> int:
    """Return the fewest seeds n with which 2/2ⁿ, the smallest possible p, is at most ``alpha`` after Holm's correction.

    Raises:
        ConfigError: If ``alpha`` is not between 0 and 1, or there is no comparison.
    """
    if not 0 < alpha < 1:
        raise ConfigError(f"alpha is {alpha}, but must lie between 0 and 1.")
    if num_comparisons < 1:
        raise ConfigError(f"num_comparisons is {num_comparisons}, but must be at least 1.")
    return next(n for n in range(2, 1100) if 2 * num_comparisons / 2**n <= alpha)


@lru_cache(maxsize=256)
def predicted_power(num_seeds: int, effect: float, alpha: float = 0.05, num_comparisons: int = 1) -> float:
    """Return the power of a study of ``num_seeds`` seeds to detect a difference of ``effect`` standard deviations.

    The standard deviation is that of the paired differences, which are assumed normal; the kind has to pass the
    strictest step of Holm's correction. The condition that the interval excludes zero is ignored, since it rarely
    decides. Up to 12 seeds the test itself is run on 2,000 simulated studies; beyond, the power of Student's test is
    returned, with which it agrees.

    Raises:
        ConfigError: If a number is out of range.
    """
    if num_seeds < 1 or not math.isfinite(effect):
        raise ConfigError(f"Power requires at least 1 seed and a finite effect; got {num_seeds} and {effect}.")
    if num_seeds < minimum_seeds(alpha, num_comparisons):
        return 0.0
    level = alpha / num_comparisons
    if num_seeds > EXACT_SEEDS:
        return _student_power(num_seeds, effect, level)
    studies = np.random.default_rng(num_seeds).normal(effect, 1.0, (_STUDIES, num_seeds))  # (studies, n)
    return float(np.mean(permutation_p_values(studies) <= level))


@lru_cache(maxsize=256)
def seeds_needed(effect: float, alpha: float = 0.05, num_comparisons: int = 1) -> int | None:
    """Return the fewest seeds that detect ``effect`` standard deviations with power 0.8; None if above 100,000."""
    low, high = minimum_seeds(alpha, num_comparisons), _MOST_SEEDS
    if predicted_power(high, effect, alpha, num_comparisons) < POWER:
        return None
    while low < high:
        middle = (low + high) // 2
        if predicted_power(middle, effect, alpha, num_comparisons) >= POWER:
            high = middle
        else:
            low = middle + 1
    return low


@lru_cache(maxsize=256)
def detectable_effect(num_seeds: int, alpha: float = 0.05, num_comparisons: int = 1) -> float | None:
    """Return the effect, in standard deviations, that is detected with power 0.8; None if the seeds are too few."""
    if num_seeds < minimum_seeds(alpha, num_comparisons):
        return None

    def excess(effect: float) -> float:
        return predicted_power(num_seeds, effect, alpha, num_comparisons) - POWER

    return float(optimize.brentq(excess, 0.0, 100.0, xtol=1e-3))


def _student_power(n: int, effect: float, level: float) -> float:
    """Return the power of Student's two-sided test: P(|Z + √n effect| > t s) averaged over quantiles of the spread s.

    SciPy's noncentral t distribution is NaN far from zero.
    """
    quantiles = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    bounds = stats.t.isf(level / 2, n - 1) * np.sqrt(stats.chi2.ppf(quantiles, n - 1) / (n - 1))  # (quantiles,)
    shift = math.sqrt(n) * effect
    return float(np.mean(special.ndtr(shift - bounds) + special.ndtr(-shift - bounds)))
