"""What a case reports: one ratio a row, with the goal it is held to."""

from __future__ import annotations

from dataclasses import dataclass

from timing import Spread, Timings


@dataclass(frozen=True)
class Goal:
    """A bound on a figure."""

    bound: float
    at_least: bool

    def met(self, value: float) -> bool:
        return value >= self.bound if self.at_least else value <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {number(self.bound)}"


def at_least(bound: float) -> Goal:
    return Goal(bound, at_least=True)


def at_most(bound: float) -> Goal:
    return Goal(bound, at_least=False)


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        case: What was measured.
        against: What it is compared with.
        ours: What it took, with its unit.
        theirs: What the other took.
        figure: The ratio. Where the goal is a lower bound, and for peers, how many times faster; otherwise the cost
            as a multiple of the other's.
        goal: The bound the median is held to, if any.
        note: How it was measured, where that is not as for all others.
        unit: The figure's unit; ``×`` for a ratio.
    """

    case: str
    against: str
    ours: str
    theirs: str
    figure: Spread
    goal: Goal | None = None
    note: str = ""
    unit: str = "×"


def compared(
    case: str, timings: Timings, ours: str, theirs: str, goal: Goal | None, against: str = "", note: str = ""
) -> Row:
    """Return the row of two contenders' times in the same run."""
    times = [duration(timings.spread(name).median) for name in (ours, theirs)]
    return Row(case, against or theirs, *times, timings.ratio(ours, theirs), goal, note)


def number(value: float) -> str:
    """Three digits, thousands by commas."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def duration(seconds: float) -> str:
    for limit, scale, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms")):
        if seconds < limit:
            return f"{number(seconds * scale)} {unit}"
    return f"{number(seconds)} s"


def rate(per_second: float, unit: str) -> str:
    return f"{number(per_second)} {unit}/s"
