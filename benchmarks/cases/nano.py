"""The training step of nanoGPT's CPU settings, with quantum heads and without."""

from __future__ import annotations

from collections.abc import Iterator

from rows import Row, at_most, compared
from steps import make_model, training_step
from timing import Effort, interleave

from qiskit_qattn.training.config import resolve

_GOALS = {"qisa:2,classical:2": at_most(1.20), "qisa:4": at_most(1.40)}
_CLASSICAL = "classical:4"


def measure(effort: Effort) -> Iterator[Row]:
    config = resolve({}, preset="nano")
    steps = {heads: training_step(make_model(config, heads), config) for heads in (_CLASSICAL, *_GOALS)}
    timings = interleave(steps, effort)
    for heads, goal in _GOALS.items():
        yield compared(f"nano, training step, {heads}", timings, heads, _CLASSICAL, goal)
