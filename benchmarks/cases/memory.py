"""Peak memory of training runs and of wide circuits, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rows import Row, at_most
from timing import Effort, Spread

_PROGRAM, _CIRCUIT = (Path(__file__).parents[1] / name for name in ("training_memory.py", "circuit_memory.py"))
_CIRCUITS = {(16, 16): at_most(1000), (20, 1): at_most(2000)}  # MB
_GOALS = {"qisa:2,classical:2": at_most(1.2), "qisa:4": None}
_CLASSICAL = "classical:4"


def measure(effort: Effort) -> Iterator[Row]:
    rounds, steps = (1, 5) if effort.quick else (3, 30)
    runs = {heads: [] for heads in (_CLASSICAL, *_GOALS)}
    for _ in range(rounds):
        for heads, found in runs.items():
            found.append(_run(_PROGRAM, heads, steps))
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

    for (qubits, batch), goal in _CIRCUITS.items():
        found = [_run(_CIRCUIT, qubits, batch) for _ in range(rounds)]
        peak, growth = (Spread.of(np.array([run[key] for run in found]) * 2**20 / 1e6) for key in ("peak", "growth"))
        yield Row(
            f"user's circuit, {qubits} qubits, batch {batch}, forward and backward, peak memory",
            "",
            f"{growth.median:.0f} MB beyond the imports",
            "",
            peak,
            goal,
            "Resident memory of a fresh process that builds the connector and makes two passes.",
            "MB",
        )


def _run(program: Path, *arguments: object) -> dict[str, float]:
    command = [sys.executable, str(program), *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
