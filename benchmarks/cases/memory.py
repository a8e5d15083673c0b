"""Peak memory of a training run, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rows import Row, at_most
from timing import Effort, Spread

_PROGRAM = Path(__file__).parents[1] / "training_memory.py"
_GOALS = {"qisa:2,classical:2": at_most(1.2), "qisa:4": None}
_CLASSICAL = "classical:4"


def measure(effort: Effort) -> Iterator[Row]:
    rounds, steps = (1, 5) if effort.quick else (3, 30)
    runs = {heads: [] for heads in (_CLASSICAL, *_GOALS)}
    for _ in range(rounds):
        for heads, found in runs.items():
            found.append(_run(heads, steps))
    for heads, goal in _GOALS.items():
        for quantity in ("peak", "growth"):
            ours, theirs = (np.array([run[quantity] for run in runs[kind]]) for kind in (heads, _CLASSICAL))
            what = "peak memory" if quantity == "peak" else "the same beyond the imports"
            yield Row(
                f"nano training, {what}, {heads}",
                _CLASSICAL,
                f"{np.median(ours):.0f} MiB",
                f"{np.median(theirs):.0f} MiB",
                Spread.of(ours / theirs),
                goal if quantity == "peak" else None,
                f"Resident memory of fresh processes that take turns: {rounds} of each, {steps} training steps long.",
            )


def _run(heads: str, steps: int) -> dict[str, float]:
    run = subprocess.run([sys.executable, str(_PROGRAM), heads, str(steps)], check=True, capture_output=True, text=True)
    return json.loads(run.stdout)
