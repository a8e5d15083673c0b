"""Interleaved timing: contenders take turns, so that what slows the machine down slows all of them."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from quiet import QUIET, OtherPrograms

_PATIENCE = 60.0  # seconds in all to wait for other programs
Round = tuple[float, dict[str, float]]  # the largest share of other programs in a turn, and seconds by contender


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Attributes:
        rounds: How many turns every contender has at least.
        seconds: The least length of a turn.
        precision: If given, rounds go on until the median quotient of any two contenders has a standard error of at
            most this share, up to four times as many.
        quick: Whether the figures are for a first look only.
    """

    rounds: int
    seconds: float
    precision: float | None = None
    quick: bool = False


QUICK = Effort(rounds=5, seconds=0.05, quick=True)
USUAL = Effort(rounds=15, seconds=0.1, precision=0.01)


@dataclass(frozen=True)
class Spread:
    """A median with the quartiles around it."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: np.ndarray) -> Spread:
        return cls(*(float(v) for v in np.quantile(values, [0.25, 0.5, 0.75])))


@dataclass(frozen=True)
class Timings:
    """Seconds per call, by contender and round."""

    seconds: Mapping[str, np.ndarray]

    def spread(self, name: str) -> Spread:
        return Spread.of(self.seconds[name])

    def ratio(self, above: str, below: str, factor: float = 1.0) -> Spread:
        """Quotients of the times two contenders took in the same round."""
        return Spread.of(factor * self.seconds[above] / self.seconds[below])


def interleave(contenders: Mapping[str, Callable[[], Any]], effort: Effort, *, settle: float = 0.0) -> Timings:
    """Time the contenders in turns, in reversed order every other round.

    Args:
        contenders: What to call, by name.
        effort: Rounds, and the least length of a turn; a slow contender's turn is one call.
        settle: Pause before each turn, for contenders with thread pools of their own whose idle threads spin.

    Rounds wait for other programs. Those in which one was busy in some turn are not kept, if there are enough without
    them after twice as many; else the quietest are.
    """
    calls = {name: _warm_up(call, effort.seconds) for name, call in contenders.items()}
    rounds: list[Round] = []
    others, patience = OtherPrograms(), _PATIENCE
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        while not _enough(rounds, effort):
            gc.collect()
            names = list(contenders) if len(rounds) % 2 == 0 else list(contenders)[::-1]
            patience = others.wait(patience)
            worst, seconds = 0.0, {}
            for name in names:
                time.sleep(settle)
                others.share()
                seconds[name] = _time(contenders[name], calls[name])
                worst = max(worst, others.share())
            rounds.append((worst, seconds))
    finally:
        if was_enabled:
            gc.enable()
    quietest = sorted(rounds, key=lambda item: item[0])[: max(effort.rounds, len(_quiet(rounds)))]
    return Timings({name: np.array([seconds[name] for _, seconds in quietest]) for name in contenders})


def _quiet(rounds: list[Round]) -> list[dict[str, float]]:
    return [seconds for share, seconds in rounds if share <= QUIET]


def _enough(rounds: list[Round], effort: Effort) -> bool:
    """Tell whether there are as many rounds as the effort asks for."""
    quiet = _quiet(rounds)
    if len(quiet) < effort.rounds:
        return len(rounds) >= 2 * effort.rounds
    if effort.precision is None or len(rounds) >= 4 * effort.rounds:
        return True
    return _standard_error(quiet) <= effort.precision


def _standard_error(rounds: list[dict[str, float]]) -> float:
    """Return the largest standard error of a median quotient of two contenders, as a share of it.

    From quartiles, which few slow rounds leave as they are: for a normal distribution sqrt(π / 2) σ / sqrt(n), where σ
    is their distance divided by 1.35.
    """
    logs = np.log([[seconds[name] for name in rounds[0]] for seconds in rounds])  # (n, contenders)
    low, high = np.quantile(logs[:, :, None] - logs[:, None, :], [0.25, 0.75], axis=0)
    return float((high - low).max() / 1.35 * np.sqrt(np.pi / 2 / len(rounds)))


def _warm_up(call: Callable[[], Any], seconds: float) -> int:
    """Call for a while, and return how many calls fill a turn."""
    begin, done = time.perf_counter(), 0
    while done == 0 or (time.perf_counter() - begin < seconds and done < 1000):
        call()
        done += 1
    return max(1, round(seconds / _time(call, max(1, done // 4))))


def _time(call: Callable[[], Any], calls: int) -> float:
    begin = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - begin) / calls
