"""Rows against other libraries: first that all agree, then who is how fast."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module

import numpy as np
from rows import Goal, Row, at_least, duration
from timing import Effort, interleave

from peers import PEERS, ours
from peers.problem import Problem

_TOLERANCE = 1e-5  # of the largest entry, or of 1 where that is less
_SIZES = ((4, 64), (4, 1024), (6, 1024), (8, 1024), (10, 256), (12, 64), (14, 16), (16, 16))
_WIDE = 10  # from so many qubits on we are held to three times the speed of each peer
_GOALS: dict[tuple[str, int, int], Goal] = {
    ("pennylane", 4, 1024): at_least(50),
    ("tensorcircuit", 4, 1024): at_least(2),
    ("tensorcircuit", 8, 1024): at_least(2),
}
_AGREED = "Values and gradients were compared first: all agree, to 1e-5 of the largest entry."
_MOST_QUBITS = {"torq": 10}
_NOTES = {"torq": f"{_AGREED} TorQ forms each layer as a matrix of 2ⁿ × 2ⁿ, so it is measured up to 10 qubits."}
_SETTLE = 0.05  # seconds in which the idle threads of the one before go to sleep


def measure(names: Sequence[str], effort: Effort) -> Iterator[Row]:
    """Yield how many times faster than each peer we are, forward and backward to inputs and weights.

    Raises:
        AssertionError: If values or gradients differ.
    """
    builders = {name: import_module(f"peers.{name}").build for name in names}
    for qubits, batch in _SIZES:
        able = [name for name in names if qubits <= _MOST_QUBITS.get(name, qubits)]
        if not able:
            continue
        problem = Problem.random(qubits, batch)
        passes = {"ours": ours.build(problem)} | {name: builders[name](problem) for name in able}
        for name in able:
            _check_agreement(passes["ours"](), passes[name]())
        timings = interleave(passes, effort, settle=_SETTLE)
        for name in able:
            yield Row(
                f"user's circuit, {qubits} qubits, batch {batch}",
                PEERS[name],
                duration(timings.spread("ours").median),
                duration(timings.spread(name).median),
                timings.ratio(name, "ours"),
                at_least(3) if qubits >= _WIDE else _GOALS.get((name, qubits, batch)),
                _NOTES.get(name, _AGREED),
            )


def _check_agreement(ours_: tuple, theirs: tuple) -> None:
    for mine, other in zip(ours_, theirs, strict=True):
        a, b = np.asarray(mine, dtype=float), np.asarray(other, dtype=float)
        np.testing.assert_allclose(a, b, rtol=0, atol=_TOLERANCE * max(1.0, np.abs(a).max()))
