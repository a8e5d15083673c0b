"""Timing in turns, so that what slows the machine down slows all contenders."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median

WARM_UPS = 2


def in_turns(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds that each call took in each round; every other round goes backwards."""
    for call in list(calls.values()) * WARM_UPS:
        call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for index in range(rounds):
        for name in list(calls)[:: 1 if index % 2 == 0 else -1]:
            begin = time.perf_counter()
            calls[name]()
            seconds[name].append(time.perf_counter() - begin)
    return seconds


def slow_down(seconds: Mapping[str, list[float]], name: str, reference: str) -> float:
    """Return how many times as long as the reference a call took: the median over rounds."""
    return median(a / b for a, b in zip(seconds[name], seconds[reference], strict=True))
