"""Whether memory leaks: the slope of the resident memory of a process over the steps of a training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from scipy import stats

LEAST_STEPS = 20  # below, no slope is given
_MOST_POINTS = 400


class Leak(TypedDict):
    """Whether resident memory grows, by KiB per step: the slope, its 95% interval, and a verdict in words."""

    steps: int
    slope_kib: float | None
    low_kib: float | None
    high_kib: float | None
    leaks: bool | None
    verdict: str


def leak(steps: Sequence[int], resident_mib: Sequence[float]) -> Leak:
    r"""Return whether resident memory grows with the steps: the Theil–Sen slope with its 95% interval.

    The slope is the median of :math:`(m_j - m_i) / (s_j - s_i)` over all pairs of steps, which a single jump, such as
    that of an allocator that asks for more, does not move (Sen 1968). The first quarter of the steps, in which caches
    fill, is left out. It is called a leak if the slope is above zero in both halves of the rest.

    Args:
        steps: The number of each step, in order.
        resident_mib: The resident memory of the process after each, in MiB.
    """
    steps, values = steps[len(steps) // 4 :], np.asarray(resident_mib[len(steps) // 4 :], dtype=float)
    watched = steps[-1] - steps[0] if len(steps) else 0
    if len(steps) < LEAST_STEPS:
        verdict = (
            f"Too few steps to tell whether memory leaks: {len(steps)} after the first ones, but at least"
            f" {LEAST_STEPS} are needed."
        )
        return _leak(watched, None, None, None, None, verdict)
    slope, low, high = _slope(steps, values)
    half = len(steps) // 2
    growing = [_slope(steps[part], values[part])[1] > 0 for part in (slice(half), slice(half, None))]
    leaks = low > 0 and all(growing)
    figures = f"{slope:+,.1f} KiB per step (95% interval {low:+,.1f} to {high:+,.1f}) over {watched:,} steps"
    if leaks:
        verdict = f"Memory leaks, or something is collected on purpose: resident memory changes by {figures}."
    elif low > 0:
        verdict = (
            f"No steady leak: resident memory changes by {figures}, but not in both halves of them, as with caches that"
            " fill. Watch more steps to be sure."
        )
    else:
        verdict = f"No leak seen: resident memory changes by {figures}."
    return _leak(watched, slope, low, high, leaks, verdict)


def _leak(
    steps: int, slope: float | None, low: float | None, high: float | None, leaks: bool | None, verdict: str
) -> Leak:
    return {"steps": steps, "slope_kib": slope, "low_kib": low, "high_kib": high, "leaks": leaks, "verdict": verdict}


def _slope(steps: Sequence[int], values: np.ndarray) -> tuple[float, float, float]:
    """Return the slope and its interval in KiB per step, of at most :data:`_MOST_POINTS` medians of steps in a row."""
    size = -(-len(values) // _MOST_POINTS)
    blocks = range(0, len(values), size)
    y = [float(np.median(values[i : i + size])) * 1024 for i in blocks]
    x = [float(np.mean(steps[i : i + size])) for i in blocks]
    slope, _, low, high = stats.theilslopes(y, x, alpha=0.95)
    return float(slope), float(low), float(high)
