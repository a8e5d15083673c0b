from __future__ import annotations

import gc
import json
import math
from collections.abc import Iterator, Mapping

import numpy as np
import pytest

from qiskit_qattn.errors import ConfigError, UnknownNameError
from qiskit_qattn.evaluation.statistics import Comparison, compare_to_reference

SEEDS = range(9)


@pytest.fixture(autouse=True)
def quick_collection() -> Iterator[None]:
    """Spare statsmodels' correction, which collects garbage at every call, all that was imported before."""
    gc.freeze()
    yield
    gc.unfreeze()


def cells(rng: np.random.Generator, shifts: Mapping[str, float], seeds: range = SEEDS) -> dict[str, dict[int, float]]:
    """Simulate losses: what the kinds share by seed, noise of their own of spread 1, and a shift in such spreads."""
    shared = {seed: rng.normal(2.0, 5.0) for seed in seeds}
    own = 1 / math.sqrt(2)  # so that the difference of two kinds has spread 1
    return {
        kind: {seed: base + shift + rng.normal(0, own) for seed, base in shared.items()}
        for kind, shift in shifts.items()
    }


def one(differences: list[float], **options: float) -> Comparison:
    """Compare two kinds whose losses differ by these, seed by seed."""
    kind = {seed: 2.0 + d for seed, d in enumerate(differences)}
    return compare_to_reference({"classical": dict.fromkeys(kind, 2.0), "qisa": kind}, "classical", **options)["qisa"]


@pytest.mark.parametrize("kinds", ["ab", "abcd"])
def test_null_studies_show_no_difference(rng: np.random.Generator, kinds: str):
    studies = [compare_to_reference(cells(rng, dict.fromkeys(kinds, 0.0)), "a") for _ in range(100)]
    quiet = sum(all(c.verdict == "no difference shown" for c in found.values()) for found in studies)
    assert quiet >= 95 - 2 * math.sqrt(100 * 0.05 * 0.95)  # the rate itself is held in test_paired_tests.py


@pytest.mark.parametrize(("shift", "verdict"), [(-3.0, "better"), (3.0, "worse")])
def test_a_planted_difference_is_found_and_named(rng: np.random.Generator, shift: float, verdict: str):
    found = compare_to_reference(cells(rng, {"classical": 0, "null": 0, "qisa": shift}), "classical")
    assert found["qisa"].verdict == verdict
    assert found["null"].verdict == "no difference shown"
    # What is better is for a comparison with the dequantised control to say.
    assert found["qisa"].sentence.startswith(f"qisa has a {'lower' if shift < 0 else 'higher'} loss than classical: ")
    low, high = found["qisa"].interval
    assert low < found["qisa"].mean_difference < high
    assert found["qisa"].p_value < found["qisa"].adjusted_p <= 0.05


def test_holm_corrects_over_the_kinds(rng: np.random.Generator):
    found = compare_to_reference(cells(rng, {"a": 0, "b": -2, "c": 0.4, "d": 0}), "a")
    raw = sorted(item.p_value for item in found.values())
    expected = np.minimum(np.maximum.accumulate(np.array([3, 2, 1]) * raw), 1)
    assert sorted(item.adjusted_p for item in found.values()) == pytest.approx(expected)


def test_five_seeds_are_never_enough(rng: np.random.Generator):
    found = compare_to_reference(cells(rng, {"classical": 0, "qisa": -50}, range(5)), "classical")["qisa"]
    assert (found.verdict, found.p_value) == ("not enough seeds", 2 / 2**5)
    assert "at least 6" in found.sentence


def test_more_kinds_take_more_seeds():
    kinds = {name: {seed: 2.0 + 0.001 * seed * (name != "a") for seed in range(6)} for name in "abc"}
    found = compare_to_reference(kinds, "a")
    assert {item.verdict for item in found.values()} == {"not enough seeds"}
    assert "at least 7 to reach 0.05 with 2 kinds" in found["b"].sentence
    assert one([0.001 * seed for seed in range(6)]).verdict == "no difference shown"


def test_figures_by_hand():
    found = one([-0.1, -0.2, -0.3])
    assert found.mean_difference == pytest.approx(-0.2)
    assert found.effect_size == pytest.approx(-2 * (1 / math.gamma(0.5)))  # ν = 2: Γ(1) / (√1 Γ(1/2))
    assert found.p_value == 0.25
    assert found.verdict == "not enough seeds"


def test_only_seeds_that_both_have_are_paired():
    found = compare_to_reference({"a": {0: 1.0, 1: 2.0, 7: 3.0}, "b": {1: 2.5, 7: 3.5, 8: 9.0}}, "a")["b"]
    assert (found.seeds, found.mean_difference) == (2, 0.5)


@pytest.mark.parametrize("losses", [{}, {5: 1.0}, {0: 1.0}])
def test_fewer_than_two_pairs_say_so(losses: dict[int, float]):
    found = compare_to_reference({"a": {0: 1.0, 1: 1.0}, "b": losses}, "a")["b"]
    assert (found.verdict, found.p_value, found.interval, found.power) == ("not enough seeds", None, None, None)
    json.dumps(found.to_dict(), allow_nan=False)


def test_equal_losses_show_nothing():
    found = one([0.0] * 8)
    assert (found.verdict, found.p_value, found.interval) == ("no difference shown", 1.0, (0.0, 0.0))
    assert found.effect_size is None
    assert found.seeds_needed == 6


def test_rounding_is_no_spread():
    found = one([0.1] * 8)  # 2.1 - 2.0 differs from 0.1 in the last bits
    assert (found.effect_size, found.verdict, found.power) == (None, "worse", 1.0)
    assert one([1e-15, -1e-15, 2e-15, 0, 0, 0, 0, 0]).p_value == 1.0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_diverged_seed_forbids_every_claim(bad: float):
    found = one([-0.11, -0.12, -0.13, -0.1, -0.14, -0.12, -0.11, -0.1, bad])
    assert (found.verdict, found.seeds, found.diverged) == ("no difference shown", 8, (8,))
    assert found.adjusted_p <= 0.05
    assert "not finite" in found.sentence
    assert one([-0.11, -0.12, -0.13, -0.1, -0.14, -0.12, -0.11, -0.1]).verdict == "better"


def test_no_verdict_where_interval_and_test_disagree():
    assert one([0.01] * 12 + [-1.0]).verdict == "no difference shown"


def test_an_undecided_study_says_what_it_could_have_seen():
    found = one([0.01, -0.02, 0.015, -0.005, 0.01, -0.01, 0.02, -0.015])
    assert found.detectable > found.difference
    assert found.power < 0.8
    assert found.seeds_needed > 8
    assert f"{found.detectable:.4f}" in found.sentence
    assert "advantage" not in found.sentence.lower()


def test_the_same_seed_repeats_itself(rng: np.random.Generator):
    losses = cells(rng, {"a": 0, "b": 0.5}, range(15))
    assert compare_to_reference(losses, "a") == compare_to_reference(losses, "a")
    assert compare_to_reference(losses, "a")["b"] != compare_to_reference(losses, "a", seed=1)["b"]


@pytest.mark.parametrize(
    ("losses", "options", "error", "told"),
    [
        ({"a": {}, "b": {}}, {"reference": "classic"}, UnknownNameError, "classic"),
        ({"a": {}}, {}, ConfigError, "no other kind"),
        ({"a": {}, "b": {}}, {"difference": 0.0}, ConfigError, "difference is 0.0"),
        ({"a": {}, "b": {}}, {"alpha": 1.0}, ConfigError, "alpha is 1.0"),
    ],
)
def test_what_cannot_be_compared_is_refused(losses, options, error, told):
    with pytest.raises(error, match=told):
        compare_to_reference(losses, **{"reference": "a", **options})
