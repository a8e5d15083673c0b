"""What a report says of mitigation, and of backends: a table of losses with intervals, and a panel of the figure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np

from qiskit_qattn.evaluation.drawing import COLORS, GRID, MARKERS, QUIET
from qiskit_qattn.evaluation.paired_tests import bootstrap_intervals
from qiskit_qattn.evaluation.rendering import code, table
from qiskit_qattn.untrusted import printable


def interval(differences: list[float], seed: int) -> list[float]:
    """Return the 95 % bootstrap interval of the mean of paired differences."""
    values = np.array(differences)
    if not np.ptp(values):
        return [float(values[0])] * 2
    low, high = bootstrap_intervals(values, seed=seed)
    return [float(low), float(high)]


def rows_of(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the points on backends and those with mitigation, each after the point that it mitigates."""
    points = record["points"]
    found = []
    for raw in points:
        if raw.get("mitigation") or (raw["strength"] is None and not raw.get("on")):
            continue
        place = ("model", "strength", "on")
        own = [p for p in points if p.get("mitigation") and [p.get(k) for k in place] == [raw.get(k) for k in place]]
        if own or raw.get("on"):
            found += [raw, *own]
    return found


def noise_words(point: dict[str, Any]) -> str:
    """Return where a point was measured."""
    return code(point["on"]) if point.get("on") else f"p = {point['strength']:g}"


def mitigation_parts(record: dict[str, Any]) -> list[str]:
    """Return the section of a report, empty if nothing was measured for it."""
    rows = rows_of(record)
    if not rows:
        return []
    head = ["Noise", "Mitigation", "Loss", "Change from exact", "95 % interval", "Gain", "95 % interval", "Verdict"]
    lines = []
    for point in rows:
        own = [f"{point['loss']:.4f}", f"{point['change']:+.4f}", interval_words(point["change_interval"])]
        gain = ["", "", ""]
        if point.get("mitigation"):
            gain = [f"{point['gain']:+.4f}", interval_words(point["gain_interval"]), verdict(point["gain_interval"])]
        model = "" if point["model"] == "trained" else f" ({point['model']})"
        lines.append([noise_words(point) + model, point.get("mitigation") or "none", *own, *gain])
    about = (
        "Change is the loss minus that of the same model without noise; gain is the loss with mitigation minus that of"
        " the same noise without, so negative is better. Both are paired by window; intervals are bootstrap intervals"
        " over windows, not corrected for the number of rows, and say nothing of other models or texts."
    )
    return ["## Mitigation and backends", table(head, lines), about, *_between(record)]


def _between(record: dict[str, Any]) -> list[str]:
    """Return how backends differ from the first, without mitigation, for the run's own model."""
    points = [
        point
        for point in record["points"]
        if point.get("on") and not point["mitigation"] and point["model"] == "trained"
    ]
    lines = []
    for point in points[1:]:
        differences = [a - b for a, b in zip(point["losses"], points[0]["losses"], strict=True)]
        words = f"{fmean(differences):+.4f}, 95 % interval {interval_words(interval(differences, 0))}"
        lines.append(f"- {code(point['on'])} minus {code(points[0]['on'])}: {words}")
    return ["Losses of backends without mitigation, paired by window:", "\n".join(lines)] if lines else []


def interval_words(ends: Sequence[float]) -> str:
    """Return an interval."""
    return f"{ends[0]:+.4f} to {ends[1]:+.4f}"


def verdict(ends: Sequence[float]) -> str:
    """Return what an interval of a gain says."""
    if ends[1] < 0:
        return "lower loss"
    return "higher loss" if ends[0] > 0 else "no gain shown"


def draw(panel: Any, record: dict[str, Any]) -> None:
    """Draw the change of every row with its interval, mitigated ones below the one that they mitigate."""
    rows = rows_of(record)
    names: list[str] = []
    numbers = {name: i for i, name in enumerate(sorted({p["mitigation"] for p in rows if p.get("mitigation")}), 1)}
    for place, point in enumerate(rows):
        mitigation, (low, high) = point.get("mitigation", ""), point["change_interval"]
        number = numbers.get(mitigation, 0)
        color, marker = COLORS[number % len(COLORS)], MARKERS[number % len(MARKERS)]
        panel.hlines(place, low, high, color=color, linewidth=1.8)
        panel.plot([point["change"]], [place], marker, markersize=4.5, color=color)
        names.append(mitigation or _short(point))
    panel.axvline(0, color=QUIET, linestyle=":", linewidth=1)
    panel.set_yticks(range(len(rows)), names, fontsize=7, parse_math=False)
    panel.invert_yaxis()
    panel.set_xlabel("loss minus exact, nats per token")
    panel.grid(axis="x", **GRID)


def _short(point: dict[str, Any]) -> str:
    """Return where a point was measured, for an axis."""
    if not point.get("on"):
        return f"p = {point['strength']:g}"
    text = printable(point["on"])
    return text if len(text) <= 34 else f"{text[:16]}…{text[-17:]}"
