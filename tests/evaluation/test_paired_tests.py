from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from qiskit_qattn.errors import ConfigError
from qiskit_qattn.evaluation.paired_tests import (
    bootstrap_intervals,
    detectable_effect,
    minimum_seeds,
    permutation_p_values,
    predicted_power,
    seeds_needed,
)

STUDIES = 2000


def off(rate: float, studies: int = STUDIES) -> float:
    """Return three standard errors of a rate."""
    return 3 * math.sqrt(rate * (1 - rate) / studies)


def by_scipy(d: np.ndarray, flips: int) -> np.ndarray:
    """Return p-values as SciPy finds them, over all flips."""
    options = {"permutation_type": "samples", "vectorized": True, "axis": -1, "n_resamples": flips}
    return stats.permutation_test((d,), np.mean, **options).pvalue


def shown(d: np.ndarray, level: float) -> np.ndarray:
    """Return which studies make a claim: small p, and an interval without zero."""
    low, high = bootstrap_intervals(d, resamples=1999)
    return (permutation_p_values(d) <= level) & ((low > 0) | (high < 0))


@pytest.mark.parametrize("n", [8, 10])
@pytest.mark.parametrize("draw", ["normal", "laplace", "uniform"])
def test_null_studies_are_seldom_wrong(rng: np.random.Generator, n: int, draw: str):
    d = getattr(rng, draw)(size=(STUDIES, n)) - (0.5 if draw == "uniform" else 0)
    assert shown(d, 0.05).mean() <= 0.05 + off(0.05)


@pytest.mark.parametrize("n", [6, 8, 10])
def test_at_least_95_of_100_null_studies_claim_nothing(rng: np.random.Generator, n: int):
    # A claim needs p ≤ 0.05, and over all sign flips p cannot be that small in more than 5 % of null studies.
    assert (permutation_p_values(rng.normal(size=(50_000, n))) > 0.05).mean() >= 0.95


def test_every_flip_counts():
    assert permutation_p_values(np.array([1.0, 2, 3, 4, 5, 6])) == 2 / 64
    assert permutation_p_values(np.array([1.0, 2, 3, 4, 5, -1])) == 6 / 64  # flips of at most one 1 reach 14 of 16
    assert permutation_p_values(np.zeros(6)) == 1


def test_p_values_are_those_of_scipy(rng: np.random.Generator):
    for n in (2, 5, 8):
        d = rng.normal(0.3, 1, (20, n)).round(1)  # with ties
        assert permutation_p_values(d) == pytest.approx(by_scipy(d, 2**n), abs=1e-12)


def test_random_flips_agree_with_all_of_them(rng: np.random.Generator):
    d = rng.normal(0.5, 1, (5, 13))
    assert permutation_p_values(d) == pytest.approx(by_scipy(d, 2**13), abs=0.03)


@pytest.mark.parametrize(("n", "coverage"), [(5, 0.92), (8, 0.94), (20, 0.95)])
def test_intervals_cover_the_mean(rng: np.random.Generator, n: int, coverage: float):
    low, high = bootstrap_intervals(rng.normal(3, 2, (STUDIES, n)), resamples=1999)
    assert ((low <= 3) & (high >= 3)).mean() == pytest.approx(coverage, abs=off(coverage))


@pytest.mark.parametrize(("n", "kinds", "effect"), [(6, 1, 2.0), (8, 1, 2.0), (8, 4, 2.0), (10, 7, 2.0), (9, 1, 0.7)])
def test_a_planted_difference_is_found_as_often_as_predicted(rng, n: int, kinds: int, effect: float):
    predicted = predicted_power(n, effect, num_comparisons=kinds)
    found = shown(rng.normal(effect, 1, (STUDIES, n)), 0.05 / kinds).mean()
    assert found == pytest.approx(
        predicted, abs=1.5 * off(max(predicted, 1 - predicted) if predicted > 0.98 else predicted)
    )


def test_predictions_agree_where_simulation_ends():
    for effect in (0.6, 1.0):
        assert predicted_power(12, effect) == pytest.approx(predicted_power(13, effect), abs=0.06)
    assert predicted_power(8, 0.0) <= 0.05 + off(0.05)
    assert predicted_power(40, 1e9) == pytest.approx(1)


def test_the_number_of_seeds_that_is_asked_for_suffices():
    for effect in (0.5, 1.0, 2.0, 5.0):
        for kinds in (1, 4):
            n = seeds_needed(effect, num_comparisons=kinds)
            assert n >= minimum_seeds(0.05, kinds)
            assert predicted_power(n, effect, num_comparisons=kinds) >= 0.77
            assert n == minimum_seeds(0.05, kinds) or predicted_power(n - 1, effect, num_comparisons=kinds) < 0.83
    assert seeds_needed(1e-4) is None
    assert seeds_needed(1e6) == 6


def test_what_can_be_seen_is_seen_in_four_of_five_studies():
    for n in (6, 9, 30):
        assert predicted_power(n, detectable_effect(n)) == pytest.approx(0.8, abs=0.04)
    assert detectable_effect(5) is None


@pytest.mark.parametrize(("kinds", "seeds"), [(1, 6), (2, 7), (3, 7), (4, 8), (7, 9)])
def test_the_smallest_p_sets_a_floor(kinds: int, seeds: int):
    assert minimum_seeds(0.05, kinds) == seeds
    assert 2 * kinds / 2**seeds <= 0.05 < 4 * kinds / 2**seeds
    assert predicted_power(seeds - 1, 100.0, num_comparisons=kinds) == 0


@pytest.mark.parametrize("arguments", [(0, 1.0), (5, math.nan), (5, 1.0, 0.0), (5, 1.0, 0.05, 0)])
def test_what_has_no_power_is_refused(arguments):
    with pytest.raises(ConfigError):
        predicted_power(*arguments)
