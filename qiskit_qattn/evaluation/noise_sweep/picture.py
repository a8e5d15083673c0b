"""The picture of a noise sweep: loss against noise strength, and against shots."""

from __future__ import annotations

from typing import Any

from qiskit_qattn.evaluation.noise_sweep.plan import ModelName
from qiskit_qattn.evaluation.noise_sweep.series import model_words, models, series
from qiskit_qattn.evaluation.png import blank_figure, png
from qiskit_qattn.evaluation.report_markdown import heads_text

COLORS: dict[ModelName, str] = {"trained": "#6929c4", "control": "#8a8a8a", "aware": "#009d9a"}
MARKERS: dict[ModelName, str] = {"trained": "o", "control": "s", "aware": "D"}
TITLES = {"strength": "noise, exact expectations", "shots": "shots, no noise"}


def sweep_plot(record: dict[str, Any]) -> bytes:
    """Return a PNG with a panel for each axis that was swept; bars are one standard error of the paired change.

    Raises:
        MissingDependencyError: If matplotlib is not installed.
    """
    swept = [axis for axis in TITLES if any(point[axis] is not None for point in record["points"])]
    figure = blank_figure(figsize=(1 + 4.6 * len(swept), 4.4))
    panels = figure.subplots(1, len(swept), sharey=True, squeeze=False)[0]
    for axis, panel in zip(swept, panels, strict=True):
        for model in models(record):
            _curve(panel, record, model, axis)
        panel.set_title(TITLES[axis], loc="left", fontsize=10)
        panel.grid(axis="y", color="#e0e0e0", linewidth=0.8)
        _scale(panel, record, axis)
    panels[0].plot([], [], color="#525252", linestyle=":", linewidth=1, label="exact, no noise")
    panels[0].set_ylabel("validation loss, nats a token")
    panels[0].legend(frameon=False, fontsize=9)
    figure.suptitle(f"{heads_text(record['heads'])} on {record['data']}", x=0.01, ha="left", fontsize=11)
    return png(figure)


def _curve(panel: Any, record: dict[str, Any], model: ModelName, axis: str) -> None:
    """Draw one model: its points, and the loss without noise as a dotted line."""
    points = series(record, model, axis)
    exact, swept = points[0], [point for point in points if point[axis] is not None]
    panel.axhline(exact["loss"], color=COLORS[model], linestyle=":", linewidth=1)
    panel.errorbar(
        [point[axis] for point in swept],
        [point["loss"] for point in swept],
        [point["change_standard_error"] for point in swept],
        color=COLORS[model],
        marker=MARKERS[model],
        markersize=4.5,
        linewidth=1.6,
        capsize=3,
        label=model_words(record, model),
    )


def _scale(panel: Any, record: dict[str, Any], axis: str) -> None:
    """Scale an axis by its logarithm, with p = 0 at its left end; few shots, like much noise, are at the right."""
    values = sorted({point[axis] for point in record["points"] if point[axis] is not None})
    if axis == "shots":
        panel.set_xscale("log")
        panel.invert_xaxis()
        panel.set_xlabel("shots a measurement basis")
    else:
        least = min((value for value in values if value), default=1.0)
        panel.set_xscale("symlog", linthresh=least, linscale=0.5)
        panel.set_xlim(left=-0.2 * least if values[0] == 0 else None)
        panel.set_xlabel(f"{record['settings']['noise']} p")
    panel.set_xticks(values, [f"{value:,}" if axis == "shots" else f"{value:g}" for value in values], fontsize=8)
    panel.minorticks_off()
