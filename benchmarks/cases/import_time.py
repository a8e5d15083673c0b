"""``import qiskit_qattn``, and the first circuit, in a fresh process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
from rows import Row, at_most, duration
from timing import Effort, Spread

_OURS = {
    "import qiskit_qattn": at_most(0.3),
    "import qiskit_qattn; qiskit_qattn.attention_circuit('qisa', 4)": None,
}
_TORCH = "import torch"
_PROGRAM = """
import sys, time
begin = time.perf_counter()
{statements}
print(time.perf_counter() - begin, "torch" in sys.modules)
"""


def measure(effort: Effort) -> Iterator[Row]:
    seconds: dict[str, list[float]] = {statements: [] for statements in (_TORCH, *_OURS)}
    for _ in range(min(effort.rounds, 7)):
        for statements, found in seconds.items():
            found.append(_run(statements))
    theirs = Spread.of(np.array(seconds[_TORCH]))
    for statements, goal in _OURS.items():
        ours = Spread.of(np.array(seconds[statements]))
        note = "Seconds, not a ratio; torch is not imported."
        took = duration(ours.median), duration(theirs.median)
        yield Row(statements.replace("qiskit_qattn.", "…"), _TORCH, *took, ours, goal, note, "s")


def _run(statements: str) -> float:
    """Return the seconds that statements take.

    Raises:
        RuntimeError: If ours import torch.
    """
    run = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(statements=statements)], check=True, capture_output=True, text=True
    )
    took, has_torch = run.stdout.split()
    if has_torch == "True" and statements != _TORCH:
        raise RuntimeError(f"{statements} has imported torch")
    return float(took)
