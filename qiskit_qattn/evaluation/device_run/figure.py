"""The figure of a generation on a device: its tokens and its circuits beside the exact ones."""

from __future__ import annotations

from typing import Any

from qiskit_qattn.evaluation.drawing import COLORS, FAINT, GRID, INK, MARKERS, blank_figure, legend, visible

DEVICE, EXACT, SHOTS = COLORS[0], INK, FAINT
_MOST_LABELS = 48


def run_figure(record: dict[str, Any]) -> Any:
    """Return a matplotlib figure of a record, with four panels.

    Raises:
        MissingDependencyError: If matplotlib is not installed.
    """
    figure = blank_figure(figsize=(7.2, 7.4))
    panels = figure.subplot_mosaic([["p", "p"], ["tvd", "tvd"], ["values", "heads"]], height_ratios=[1, 0.8, 1.3])
    _probabilities(panels["p"], record)
    _distances(panels["tvd"], record)
    _values(panels["values"], record)
    _heads(panels["heads"], record)
    for letter, panel in zip("abcd", panels.values(), strict=True):
        panel.set_title(letter, loc="left", fontsize=10, fontweight="bold")
    return figure


def _probabilities(panel: Any, record: dict[str, Any]) -> None:
    """Draw how far the probability of each token on the device is from the exact one."""
    rows = record["tokens"]
    places = range(1, len(rows) + 1)
    if record["samples"]:
        errors = [2 * row["error"] for row in rows]
        heights = [2 * error for error in errors]
        panel.bar(places, heights, width=0.9, bottom=[-e for e in errors], color=SHOTS, label="± 2 σ of exact circuits")
    panel.axhline(0, color=EXACT, linewidth=0.8)
    panel.plot(
        places, [row["p_device"] - row["p_exact"] for row in rows], "o", markersize=4, color=DEVICE, label="device"
    )
    panel.set_ylabel("probability\nminus exact")
    _legend(panel)
    _ticks(panel, rows)


def _distances(panel: Any, record: dict[str, Any]) -> None:
    """Draw the total variation distance of each token's distribution, and where shots alone leave it."""
    rows = record["tokens"]
    places = range(1, len(rows) + 1)
    if record["samples"]:
        high = [row["tvd_shots_95"] for row in rows]
        panel.bar(places, high, width=0.9, color=SHOTS, label="95 % of exact circuits")
    panel.plot(places, [row["tvd"] for row in rows], "o", markersize=4, color=DEVICE, label="device")
    panel.set_ylabel("total variation\ndistance")
    panel.set_ylim(bottom=0)
    _legend(panel)
    panel.set_xlabel("token")
    _ticks(panel, rows)


def _legend(panel: Any) -> None:
    legend(panel, loc="lower right", ncols=2, bbox_to_anchor=(1, 1), borderpad=0)


def _ticks(panel: Any, rows: list[dict[str, Any]]) -> None:
    panel.grid(axis="y", **GRID)
    panel.set_xlim(0.4, len(rows) + 0.6)
    if len(rows) <= _MOST_LABELS:
        labels = [visible(row["text"]) for row in rows]
        panel.set_xticks(range(1, len(rows) + 1), labels, fontsize=8, parse_math=False)


def _values(panel: Any, record: dict[str, Any]) -> None:
    """Draw every expectation of the device against the exact one of the same inputs."""
    panel.plot([-1, 1], [-1, 1], color=EXACT, linewidth=0.8)
    for layer in sorted({each["layer"] for each in record["expectations"]}):
        of_layer = [each for each in record["expectations"] if each["layer"] == layer]
        exact, values, errors = (
            [number for each in of_layer for number in each[key]] for key in ("exact", "values", "errors")
        )
        bars = None if None in errors or not any(errors) else errors
        color, marker = COLORS[layer % len(COLORS)], MARKERS[layer % len(MARKERS)]
        panel.errorbar(
            exact,
            values,
            bars,
            fmt=marker,
            markersize=2.5,
            elinewidth=0.5,
            alpha=0.6,
            color=color,
            label=f"layer {layer}",
        )
    panel.set_xlabel("⟨P⟩, exact")
    panel.set_ylabel("⟨P⟩, device")
    panel.grid(**GRID)
    legend(panel, markerscale=2, loc="upper left")


def _heads(panel: Any, record: dict[str, Any]) -> None:
    """Draw the root mean square difference of each head, and what its error bars alone would give."""
    rows = record["heads_compared"]
    places = range(len(rows))
    if all(row["rms_error"] is not None for row in rows) and record["samples"]:
        panel.barh(places, [row["rms_error"] for row in rows], height=0.6, color=SHOTS, label="error bars alone")
    panel.plot([row["rms"] for row in rows], places, "o", markersize=4, color=DEVICE, label="device")
    names = [f"layer {row['layer']}, {row['kind']} {row['head']}" for row in rows]
    panel.set_yticks(places, names, fontsize=7 if len(rows) < 20 else 5, parse_math=False)
    panel.set_ylim(-0.8, len(rows) - 0.2)
    panel.invert_yaxis()
    panel.set_xlim(left=0)
    panel.set_xlabel("rms difference of ⟨P⟩")
    panel.grid(axis="x", **GRID)
    _legend(panel)
