"""What the jobs of a cell take on devices, and what they may take."""

from __future__ import annotations

import math
from dataclasses import replace

from qiskit_qattn.backends.jobs.managed import ManagedEstimator
from qiskit_qattn.backends.registry import Backend
from qiskit_qattn.nn.fallback import Chain


def qpu_seconds(backend: Backend | Chain) -> float:
    """Return the time on quantum processors that jobs took since a backend was opened; 0 for a simulation."""
    return math.fsum(estimator.spent.seconds for estimator in _estimators(backend))


def share_budget(backend: Backend | Chain, cells: int) -> None:
    """Let one cell spend its share of each device's budget, so that all cells together stay within it.

    Args:
        backend: The cell's own, opened.
        cells: How many cells the budget is for.
    """
    for estimator in _estimators(backend):
        if estimator.budget is not None:
            estimator.budget = replace(estimator.budget, limit=estimator.budget.limit / cells)


def _estimators(backend: Backend | Chain) -> list[ManagedEstimator]:
    """Return what sends jobs to devices."""
    opened = [backend] if isinstance(backend, Backend) else [link for _, link in backend.links]
    found = [link.estimator for link in opened if isinstance(link, Backend)]
    return [estimator for estimator in found if isinstance(estimator, ManagedEstimator)]
