"""The points of a record as curves: one for each model and axis."""

from __future__ import annotations

import math
from typing import Any

from qiskit_qattn.evaluation.noise_sweep.plan import ModelName

NAMES: dict[ModelName, str] = {"trained": "as trained", "control": "control", "aware": "noise-aware"}


def models(record: dict[str, Any]) -> list[ModelName]:
    """Return the models that were measured, the run's own first."""
    measured = {point["model"] for point in record["points"]}
    return [name for name in NAMES if name in measured]


def model_words(record: dict[str, Any], model: ModelName) -> str:
    """Return what a model is, in a few words."""
    steps, p = record["settings"]["aware_steps"], record["settings"]["aware_p"]
    how = {"trained": "", "control": f": {steps:,} more steps, no noise", "aware": f": {steps:,} more steps, p = {p}"}
    return NAMES[model] + how[model]


def loss_words(point: dict[str, Any]) -> str:
    """Return a point's loss and its standard error."""
    return f"{point['loss']:.4f} ± {point['standard_error']:.4f}"


def change_words(change: float, error: float) -> str:
    """Return a difference with its sign, none for zero after rounding, and its standard error."""
    rounded = round(change, 4)
    return f"{rounded:+.4f} ± {error:.4f}" if rounded else f"0.0000 ± {error:.4f}"


def series(record: dict[str, Any], model: ModelName, axis: str) -> list[dict[str, Any]]:
    """Return a model's points on the axis ``strength`` or ``shots``, in the direction of less noise to more.

    The first is the model's exact point without noise, where that was measured.
    """
    other = "shots" if axis == "strength" else "strength"
    points = [point for point in record["points"] if point["model"] == model and point[other] is None]
    if axis == "strength":
        return sorted(points, key=lambda point: -1 if point[axis] is None else point[axis])
    return sorted(points, key=lambda point: -math.inf if point[axis] is None else -point[axis])
