"""How long work will still take, of its progress so far: one estimate for all commands."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

Clock = Callable[[], float]
LONG = 60.0  # seconds; of what takes longer it is said how long
QUEUE = "time: not known, since it depends on the device's queue"
_MOST = 256  # points that are kept
_FEWEST, _SOONEST = 3, 2.0  # units and seconds after which an estimate is worth telling


def duration(seconds: float) -> str:
    """Return a time in words, to two digits at most: ``40 s``, ``12 min``, ``2.5 h``."""
    if seconds < 59.5:
        return f"{max(1, math.ceil(seconds))} s"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min" if seconds < 600 else f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def forecast_text(seconds: Sequence[float] | None) -> str:
    """Return what is said of work before it starts; nothing of work that is not long.

    Args:
        seconds: How long each of its parts will take; None where a device's queue decides.
    """
    if seconds is None:
        return QUEUE
    return f"time: about {duration(sum(seconds))}" if sum(seconds) > LONG else ""


def seconds_left(reached: Sequence[tuple[float, float]], total: float, now: float) -> float | None:
    r"""Return how many seconds work of ``total`` units will still take; None if nothing of it is done yet.

    .. math:: \max\big((N - n)\, p - w,\; (N - n - u)\, p,\; w / 10,\; 1\big)

    with n units done, the last u of them w seconds ago, at a pace of p seconds per unit in the later half of what is
    done: a slow start does not count for long. Time that passes is taken off, but a unit that is late does not make the
    units after it any shorter, and the later it is, the longer it may still take.

    Args:
        reached: When how many units were done: pairs of a time and a number, both ascending, the start first.
        total: N.
        now: The time.
    """
    first, (last, done) = reached[0][1], reached[-1]
    if done >= total:
        return 0.0
    if done <= first or len(reached) < 2:
        return None
    half = next(point for point in reversed(reached[:-1]) if point[1] <= (first + done) / 2 or point == reached[0])
    pace = (last - half[0]) / (done - half[1])
    unit, waiting = done - reached[-2][1], now - last
    return max((total - done) * pace - waiting, (total - done - unit) * pace, waiting / 10, 1.0)


class Remaining:
    """The time that work of a number of units will still take.

    Args:
        total: The number of units.
        done: How many are done at the start.
        clock: Returns the time in seconds.
    """

    def __init__(self, total: float, done: float = 0, clock: Clock = time.monotonic) -> None:
        self.total, self._clock, self._told = total, clock, math.inf
        self._reached = [(clock(), float(done))]

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._reached[0][0]

    @property
    def known(self) -> bool:
        """Whether enough is done for an estimate that is worth telling."""
        (_, first), (_, last) = self._reached[0], self._reached[-1]
        return last - first >= _FEWEST and self.elapsed >= _SOONEST

    def reach(self, done: float) -> None:
        """Note that so many units are done."""
        if done > self._reached[-1][1]:
            self._reached.append((self._clock(), float(done)))
        if len(self._reached) > _MOST:
            self._reached = [self._reached[0], *self._reached[1:-2:2], *self._reached[-2:]]

    def left(self) -> float | None:
        """Return the seconds left; None before the first unit is done."""
        return seconds_left(self._reached, self.total, self._clock())

    def news(self) -> str:
        """Return the time left in words where it is long and not told yet, or at most half of what was told last."""
        left = self.left() or 0.0
        if not (self.known and LONG < left < self._told / 2):
            return ""
        self._told = left
        return duration(left)


class RunTime:
    """The time that a run will still take: its steps, final validations, and the models after this one.

    Each of these takes as long as this one, or in the ratio of what was forecast for both.

    Args:
        clock: Returns the time in seconds.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._forecast, self._final = [1.0], 0.0  # of this model and of those after it
        self._is_measured = False
        self._steps: Remaining | None = None
        self._validating: Remaining | None = None
        self._validation, self._event = 0.0, clock()

    def forecast(self, seconds: Sequence[float]) -> None:
        """Expect models that take so long each."""
        self._forecast, self._is_measured = list(seconds), True

    def planned(self, phases: int, final: float) -> None:
        """Expect so many models, unless forecast, and of each a final validation as long as ``final`` others."""
        self._final = final
        if not self._is_measured:
            self._forecast = [1.0] * phases

    def started(self, step: int, max_steps: int) -> None:
        """Note that the steps of a model start."""
        self._steps, self._validating = Remaining(max_steps, step, self._clock), None
        self._event = self._clock()

    def stepped(self, step: int) -> None:
        """Note the end of a step."""
        if self._steps is not None:
            self._steps.reach(step)
        self._event = self._clock()

    def validated(self) -> None:
        """Note the end of a validation."""
        self._validation, self._event = self._clock() - self._event, self._clock()

    def validating(self, done: int, total: int) -> None:
        """Note how far the final validation is."""
        if self._validating is None or self._validating.total != total:
            self._validating = Remaining(total, done - 1, self._clock)
        self._validating.reach(done)

    def finished(self) -> None:
        """Note the end of a model."""
        del self._forecast[:1]

    @property
    def known(self) -> bool:
        """Whether an estimate is worth telling."""
        return self._steps is not None and self._steps.known

    def left(self) -> float | None:
        """Return the seconds left; None if that is not known yet."""
        if self._steps is None or (steps := self._steps.left()) is None:
            return None
        final = self._final * self._validation
        if self._validating is not None:
            steps = 0.0
            final = (self._validating.left() or 0.0) if self._validating.elapsed else final
        this, *later = self._forecast or [1.0]
        return steps + final + sum(later) / this * (self._steps.elapsed + steps + final)
