r"""Whether two kinds of head differ: paired statistics over seeds, and a verdict in words.

Runs of two kinds with the same seed see the same batches, so the statistics are of the paired differences
:math:`d_s = \ell_s^{kind} - \ell_s^{reference}` of their validation losses, one per seed. A claim requires both a
permutation test that is significant after Holm's correction over all kinds, and an interval that excludes zero.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import special
from statsmodels.stats.multitest import multipletests

from qiskit_qattn.errors import ConfigError, counted, unknown_name
from qiskit_qattn.evaluation.paired_tests import (
    POWER,
    Floats,
    bootstrap_intervals,
    detectable_effect,
    minimum_seeds,
    permutation_p_values,
    predicted_power,
    seeds_needed,
)

Verdict = Literal["better", "worse", "no difference shown", "not enough seeds"]
_ROUNDING = 1e-12  # relative to the losses; smaller differences count as zero


@dataclass(frozen=True)
class Comparison:
    """The comparison of one kind with the reference. Negative differences favour the kind.

    Attributes:
        kind: The kind of head.
        reference: The kind that it is compared with.
        seeds: The number n of seeds for which both have a finite loss.
        diverged: Seeds excluded because a loss is not finite; if there are any, no claim is made.
        mean_difference: Mean of the paired differences, kind minus reference; None without seeds.
        interval: Its 95% bootstrap interval, see ``bootstrap_intervals``; None below two seeds.
        effect_size: Cohen's d_z = mean / standard deviation of the differences, times Hedges' correction
            Γ(ν/2) / (√(ν/2) Γ((ν − 1)/2)) for ν = n − 1; None below three seeds or without spread.
        p_value: Two-sided, of the sign-flip test of ``permutation_p_values``; None below two seeds.
        adjusted_p: The same after Holm's correction over all kinds.
        difference: The true difference that the next two refer to.
        seeds_needed: Seeds needed to detect ``difference`` with power 0.8 after the correction over all kinds; None
            below two seeds.
        power: Predicted power of this study to detect ``difference``; None below two seeds.
        detectable: The true difference that this study detects with power 0.8; None if there is none.
        verdict: One of :data:`Verdict`.
        sentence: The verdict and its reasons in words.
    """

    kind: str
    reference: str
    seeds: int
    diverged: tuple[int, ...]
    mean_difference: float | None
    interval: tuple[float, float] | None
    effect_size: float | None
    p_value: float | None
    adjusted_p: float | None
    difference: float
    seeds_needed: int | None
    power: float | None
    detectable: float | None
    verdict: Verdict
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON."""
        fields = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


def compare_to_reference(
    losses: Mapping[str, Mapping[int, float]],
    reference: str,
    *,
    difference: float = 0.01,
    alpha: float = 0.05,
    seed: int = 0,
    measure: str = "loss",
) -> dict[str, Comparison]:
    """Compare every kind with the reference, over the seeds that both have.

    The verdict is "not enough seeds" where even the smallest possible p, times the number of kinds, exceeds ``alpha``;
    "better" or "worse" where the adjusted p is at most ``alpha`` and the interval excludes zero; otherwise "no
    difference shown".

    Args:
        losses: For each kind the validation losses by seed; lower is better.
        reference: The kind to compare with.
        difference: The true difference for which power and the number of seeds are reported.
        alpha: The family-wise error rate.
        seed: Seed of the bootstrap, and of random sign flips where there are too many to enumerate.
        measure: What the losses are, in words.

    Returns:
        A comparison for each other kind, in the order of ``losses``.

    Raises:
        UnknownNameError: If ``reference`` is not in ``losses``.
        ConfigError: If there is no other kind, or a number is out of range.
    """
    if reference not in losses:
        raise unknown_name("reference", reference, losses)
    kinds = [kind for kind in losses if kind != reference]
    if not kinds:
        raise ConfigError(f"Only {reference!r} was given; there is no other kind to compare with it.")
    given = [(kind, reference, losses[kind], losses[reference]) for kind in kinds]
    found = compare_pairs(given, difference=difference, alpha=alpha, seed=seed, measure=measure)
    return dict(zip(kinds, found, strict=True))


def compare_pairs(
    pairs: Sequence[tuple[str, str, Mapping[int, float], Mapping[int, float]]],
    *,
    difference: float = 0.01,
    alpha: float = 0.05,
    seed: int = 0,
    measure: str = "loss",
    what: str = "kinds",
) -> list[Comparison]:
    """Compare pairs of kinds over the seeds that both have, with Holm's correction over all of them.

    Args:
        pairs: For each pair the kind, what it is compared with, and the losses of both by seed.
        difference: The true difference for which power and the number of seeds are reported.
        alpha: The family-wise error rate.
        seed: As for :func:`compare_to_reference`.
        measure: What the losses are, in words.
        what: What the pairs are, in words.

    Raises:
        ConfigError: If a number is out of range.
    """
    if not (math.isfinite(difference) and difference > 0):
        raise ConfigError(f"difference is {difference}, but must be a positive number.")
    minimum_seeds(alpha, max(1, len(pairs)))  # validates alpha
    family = _Family(len(pairs), alpha, difference, measure, what)
    found = [_Paired.of(kind, losses, others, seed) for kind, _, losses, others in pairs]
    known = [1.0 if pair.p is None else pair.p for pair in found]
    adjusted = multipletests(known, alpha=alpha, method="holm")[1] if known else ()
    return [
        _judge(pair, against, float(p), family)
        for pair, (_, against, *_), p in zip(found, pairs, adjusted, strict=True)
    ]


@dataclass(frozen=True)
class _Family:
    """What the comparisons of one call have in common.

    Attributes:
        size: Their number, over which p-values are corrected.
        alpha: The family-wise error rate.
        difference: The true difference for which power and the number of seeds are reported.
        measure: What the losses are, in words.
        what: What the pairs are, in words.
    """

    size: int
    alpha: float
    difference: float
    measure: str
    what: str

    @property
    def least_seeds(self) -> int:
        """The fewest seeds with which the test can reach ``alpha``."""
        return minimum_seeds(self.alpha, self.size)


@dataclass(frozen=True)
class _Paired:
    """The paired differences of one kind, with statistics that do not depend on other kinds."""

    kind: str
    values: Floats  # (n,)
    diverged: tuple[int, ...]
    spread: float  # their standard deviation
    p: float | None
    interval: tuple[float, float] | None

    @classmethod
    def of(cls, kind: str, losses: Mapping[int, float], others: Mapping[int, float], seed: int) -> _Paired:
        """Pair the losses of a kind with those of the reference."""
        shared = sorted(set(losses) & set(others))
        finite = [s for s in shared if math.isfinite(losses[s]) and math.isfinite(others[s])]
        values = np.array([losses[s] - others[s] for s in finite], dtype=np.float64)
        scale = max((abs(losses[s]) + abs(others[s]) for s in finite), default=0.0)
        values = np.where(np.abs(values) <= _ROUNDING * scale, 0.0, values)  # equal up to rounding
        p, interval, spread = None, None, 0.0
        if len(values) > 1:
            if np.ptp(values) > _ROUNDING * scale:
                spread = float(values.std(ddof=1))
            p = float(permutation_p_values(values, seed=seed))
            low, high = bootstrap_intervals(values, seed=seed)
            interval = float(low), float(high)
        return cls(kind, values, tuple(s for s in shared if s not in finite), spread, p, interval)


def _judge(pair: _Paired, reference: str, adjusted: float, family: _Family) -> Comparison:
    """Return the comparison of one kind, with its verdict."""
    n, least = len(pair.values), family.least_seeds
    mean = float(pair.values.mean()) if n else None
    needed = power = detectable = hedges_d = None
    if n > 1 and not pair.spread:  # without spread, the smallest number of seeds detects any difference
        needed, power = least, float(n >= least)
    elif mean is not None and pair.spread:
        effect, level = family.difference / pair.spread, (family.alpha, family.size)
        needed, power = seeds_needed(effect, *level), predicted_power(n, effect, *level)
        unit = detectable_effect(n, *level)
        detectable = None if unit is None else unit * pair.spread
        hedges_d = mean / pair.spread * _hedges(n) if n > 2 else None
    found = Comparison(
        kind=pair.kind,
        reference=reference,
        seeds=n,
        diverged=pair.diverged,
        mean_difference=mean,
        interval=pair.interval,
        effect_size=hedges_d,
        p_value=pair.p,
        adjusted_p=None if pair.p is None else adjusted,
        difference=family.difference,
        seeds_needed=needed,
        power=power,
        detectable=detectable,
        verdict=_verdict(pair, adjusted, family),
        sentence="",
    )
    return dataclasses.replace(found, sentence=_sentence(found, family))


def _verdict(pair: _Paired, adjusted: float, family: _Family) -> Verdict:
    if len(pair.values) < family.least_seeds or pair.interval is None:
        return "not enough seeds"
    low, high = pair.interval
    if adjusted > family.alpha or low <= 0 <= high or pair.diverged:
        return "no difference shown"
    return "better" if high < 0 else "worse"


def _hedges(n: int) -> float:
    """Return the factor that makes d unbiased: Γ(ν/2) / (√(ν/2) Γ((ν − 1)/2)), ν = n − 1 (Hedges 1981)."""
    degrees = n - 1
    logarithm = special.gammaln(degrees / 2) - special.gammaln((degrees - 1) / 2)
    return math.exp(logarithm) / math.sqrt(degrees / 2)


def _sentence(found: Comparison, family: _Family) -> str:
    """Return the verdict and its reasons in words."""
    least = family.least_seeds
    correction = "" if family.size == 1 else f" with {family.size} {family.what}"
    pair = f"{found.kind} and {found.reference}"
    excluded = ""
    if found.diverged:
        listed = ", ".join(str(seed) for seed in found.diverged)
        excluded = f" A loss is not finite for seed {listed}: excluded, and no claim is made."
    if found.verdict == "not enough seeds":
        more = found.seeds_needed
        for_difference = (
            f", and about {more} to detect a difference of {found.difference:g}" if more and more > least else ""
        )
        return (
            f"Not enough seeds to distinguish {pair}: {found.seeds} paired, but the test needs at least {least} to"
            f" reach {family.alpha:g}{correction}{for_difference}.{excluded}"
        )
    assert found.mean_difference is not None and found.interval is not None and found.adjusted_p is not None
    figures = (
        f"mean difference {found.mean_difference:+.4f} over {counted(found.seeds, 'seed')}, 95% interval"
        f" {found.interval[0]:+.4f} to {found.interval[1]:+.4f}, Holm-adjusted p = {found.adjusted_p:.3g}"
    )
    if found.verdict == "no difference shown":
        could = ""
        if found.detectable is not None:
            could = f" A true difference of {found.detectable:.4f} would be detected in {POWER:.0%} of such studies."
        return f"No difference shown between {pair}: {figures}.{could}{excluded}"
    sign = "lower" if found.verdict == "better" else "higher"
    return f"{found.kind} has a {sign} {family.measure} than {found.reference}: {figures}."
