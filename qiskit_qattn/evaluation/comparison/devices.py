"""What the jobs of a cell take on devices, and what they may take."""

from __future__ import annotations

import math
from dataclasses import replace

from qiskit_qattn.backends.place import Place


def qpu_seconds(place: Place) -> float:
    """Return the time on quantum processors that jobs took since a place was opened; 0 for a simulation."""
    return math.fsum(estimator.spent.seconds for estimator in place.devices)


def share_budget(place: Place, cells: int) -> None:
    """Let one cell spend its share of each device's budget, so that all cells together stay within it.

    Args:
        place: The cell's own, opened.
        cells: How many cells the budget is for.
    """
    for estimator in place.devices:
        if estimator.budget is not None:
            estimator.budget = replace(estimator.budget, limit=estimator.budget.limit / cells)
