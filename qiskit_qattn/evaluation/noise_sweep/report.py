"""The report of a noise sweep: ``report.md``, ``points.csv`` and ``noise.png``, made of the record ``report.json``."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, TypedDict

from qiskit_qattn.errors import counted
from qiskit_qattn.evaluation.drawing import COLORS as _PALETTE
from qiskit_qattn.evaluation.drawing import DASHES, GRID, QUIET, blank_figure, ends_at, legend, note, write_figures
from qiskit_qattn.evaluation.latex import write_document
from qiskit_qattn.evaluation.noise_sweep.mitigated import draw, mitigation_parts, rows_of
from qiskit_qattn.evaluation.noise_sweep.plan import NOISES, ModelName, NoiseSweep
from qiskit_qattn.evaluation.rendering import (
    block,
    code,
    csv_text,
    escaped,
    heads_text,
    pairs,
    table,
    write_json,
)
from qiskit_qattn.training.files import write_text
from qiskit_qattn.untrusted import printable

RECORD = "report.json"
NAMES: dict[ModelName, str] = {"trained": "as trained", "control": "control", "aware": "noise-aware"}
COLUMNS = (
    *("model", "strength", "shots", "backend", "loss", "standard_error", "change", "change_standard_error"),
    *("windows", "mitigation", "change_interval", "gain", "gain_interval"),
)
COLORS: dict[ModelName, str] = {"trained": _PALETTE[0], "control": QUIET, "aware": _PALETTE[1]}
MARKERS: dict[ModelName, str] = {"trained": "o", "control": "s", "aware": "D"}
TITLES = {"strength": "noise, exact expectations", "shots": "shots, no noise"}


class Measured(TypedDict):
    """A point that was measured, as every version wrote it."""

    model: str
    strength: float | None
    shots: int | None
    backend: str
    loss: float
    standard_error: float
    change: float
    change_standard_error: float
    losses: list[float]


class MeasuredPoint(Measured, total=False):
    """A point that was measured."""

    on: str
    mitigation: str
    change_interval: list[float]
    gain: float
    gain_interval: list[float]


class Record(TypedDict):
    """The content of ``report.json``."""

    run: str
    data: str
    heads: str | list[str]
    num_qubits: int
    block_size: int
    settings: dict[str, Any]
    versions: dict[str, Any]
    machine: dict[str, Any]
    points: list[MeasuredPoint]


def write_report(sweep: NoiseSweep, record: dict[str, Any]) -> None:
    """Write the report of a record into the sweep's folder.

    Raises:
        RunFolderError: If it cannot be written.
        MissingDependencyError: If matplotlib is not installed.
    """
    record["command"] = command(sweep, record)
    write_json(sweep.out / RECORD, record)
    rows = [{**point, "windows": len(point["losses"])} for point in record["points"]]
    write_text(sweep.out / "points.csv", csv_text(COLUMNS, rows))
    write_figures(sweep.out, {"noise": sweep_figure(record)})
    write_document(sweep.out, render_markdown(record))


def command(sweep: NoiseSweep, record: dict[str, Any]) -> str:
    """Return the command line that measures all points of a record."""
    settings = record["settings"]
    parts = ["qattn", "noise-sweep", str(sweep.run), "--noise", sweep.noise]
    for flag, axis in (("--p", "strength"), ("--shots", "shots")):
        values = sorted({point[axis] for point in record["points"] if point[axis] is not None})
        parts += [flag, ",".join(f"{value:.15g}" if axis == "strength" else str(value) for value in values) or "none"]
    parts += [part for text in _distinct(record, "on") for part in ("--backend", text)]
    if mitigations := _distinct(record, "mitigation"):
        parts += ["--mitigation", ",".join(text.replace(",", "+") for text in mitigations)]
    if settings["aware_steps"]:
        parts += ["--aware-steps", str(settings["aware_steps"]), "--aware-p", f"{settings['aware_p']:.15g}"]
    parts += ["--windows", str(settings["windows"]), "--seed", str(settings["seed"]), "--out", str(sweep.out)]
    return shlex.join(parts)


def _distinct(record: dict[str, Any], name: str) -> list[str]:
    """Return the texts under a name of all points, in order."""
    return list(dict.fromkeys(point[name] for point in record["points"] if point.get(name)))


def point_key(point: dict[str, Any]) -> tuple[Any, ...]:
    """Return what tells a measured point from others; records of early versions lack the last two."""
    return (*(point[name] for name in ("model", "strength", "shots")), point.get("on", ""), point.get("mitigation", ""))


def mean_and_error(values: list[float]) -> tuple[float, float]:
    """Return the mean of at least two values, and its standard error."""
    return fmean(values), stdev(values) / math.sqrt(len(values))


def loss_words(point: dict[str, Any]) -> str:
    """Return a point's loss and its standard error."""
    return f"{point['loss']:.4f} ± {point['standard_error']:.4f}"


def change_words(change: float, error: float) -> str:
    """Return a difference with its sign, without one if it rounds to zero, and its standard error."""
    rounded = round(change, 4)
    return f"{rounded:+.4f} ± {error:.4f}" if rounded else f"0.0000 ± {error:.4f}"


def render_markdown(record: dict[str, Any]) -> str:
    """Return a record as one Markdown document."""
    settings, first = record["settings"], record["points"][0]
    steps = settings["aware_steps"]
    parts = [
        f"# Noise sweep: {escaped(heads_text(record['heads']))}, {settings['noise']}",
        f"Validation loss of the model in {code(record['run'])} ({counted(record['num_qubits'], 'qubit')} per "
        f"circuit, trained on"
        f" {code(record['data'])}), in nats per token: the mean over {counted(len(first['losses']), 'window')} of"
        f" {counted(record['block_size'], 'token')}, evenly spaced over the validation split and the same in "
        f"every row.",
        f"{NOISES[settings['noise']].meaning} Expectations are exact; in rows with a number of shots they are sampled,"
        f" without noise.",
        "The number after ± is one standard error over windows. Changes are differences from the exact loss of the same"
        " model without noise, paired by window, so that the variation between windows does not add to their error.",
    ]
    if steps:
        parts.append(
            f"Two copies of the model were trained for {counted(steps, 'more step')} on the same batches, at "
            f"the final learning"
            f" rate of the run (a tenth of its peak where the final rate is 0): one under noise with"
            f" p = {settings['aware_p']:g} (noise-aware), and one without noise (control), which shows the effect of"
            f" the additional steps alone."
        )
    parts.append(
        "![Validation loss against noise and against shots](noise.png)\n\nError bars are one standard error of the"
        " change; dotted lines are exact losses without noise."
    )
    for axis, title, head in (("strength", "Noise", "p"), ("shots", "Shots", "Shots")):
        if any(point[axis] is not None for point in record["points"]):
            parts += [f"## {title}", _losses(record, axis, head)]
            if steps:
                parts += ["Loss of the noise-aware model minus that of the control:", _gains(record, axis, head)]
    parts += mitigation_parts(record)
    parts += ["## Reproduce", block(record["command"], "sh")]
    parts += ["## Versions and machine", pairs({**record["versions"], **record["machine"]})]
    return "\n\n".join(parts) + "\n"


def _losses(record: dict[str, Any], axis: str, head: str) -> str:
    """Return a table with a row for each value on an axis, and each model's loss and change as columns."""
    names = _models(record)
    heads = [part for model in names for part in (f"Loss, {_model_words(record, model)}", "Change")]
    rows = [
        [_value(points[0], axis), *(part for point in points for part in (loss_words(point), _change(point)))]
        for points in zip(*(_series(record, model, axis) for model in names), strict=True)
    ]
    return table([head, *heads], rows)


def _gains(record: dict[str, Any], axis: str, head: str) -> str:
    """Return a table of the loss of the noise-aware model minus that of the control, paired by window."""
    rows = []
    for one, other in zip(_series(record, "aware", axis), _series(record, "control", axis), strict=True):
        gain, error = mean_and_error([a - b for a, b in zip(one["losses"], other["losses"], strict=True)])
        rows.append([_value(one, axis), change_words(gain, error)])
    return table([head, "Difference"], rows)


def _change(point: dict[str, Any]) -> str:
    return change_words(point["change"], point["change_standard_error"]) if _swept(point) else ""


def _swept(point: dict[str, Any]) -> bool:
    return point["strength"] is not None or point["shots"] is not None


def _value(point: dict[str, Any], axis: str) -> str:
    if not _swept(point):
        return "no noise" if axis == "strength" else "exact"
    return f"{point[axis]:g}" if axis == "strength" else f"{point[axis]:,}"


def _models(record: dict[str, Any]) -> list[ModelName]:
    """Return the models that were measured, the run's own first."""
    measured = {point["model"] for point in record["points"]}
    return [name for name in NAMES if name in measured]


def _model_words(record: dict[str, Any], model: ModelName) -> str:
    """Return a short description of a model."""
    steps, p = record["settings"]["aware_steps"], record["settings"]["aware_p"]
    how = {
        "trained": "",
        "control": f": {counted(steps, 'more step')}, no noise",
        "aware": f": {counted(steps, 'more step')}, p = {p}",
    }
    return NAMES[model] + how[model]


def _series(record: dict[str, Any], model: ModelName, axis: str) -> list[dict[str, Any]]:
    """Return a model's points on the axis ``strength`` or ``shots``, from less noise to more.

    The first is the model's exact point without noise, where that was measured.
    """
    other = "shots" if axis == "strength" else "strength"
    points = [
        point
        for point in record["points"]
        if point["model"] == model and point[other] is None and not (point.get("on") or point.get("mitigation"))
    ]
    if axis == "strength":
        return sorted(points, key=lambda point: -1 if point[axis] is None else point[axis])
    return sorted(points, key=lambda point: -math.inf if point[axis] is None else -point[axis])


def sweep_figure(record: dict[str, Any]) -> Any:
    """Return a figure with a panel for each axis; error bars are one standard error of the paired change.

    Raises:
        MissingDependencyError: If matplotlib is not installed.
    """
    swept = [axis for axis in TITLES if any(point[axis] is not None for point in record["points"])]
    rows = rows_of(record)
    count = len(swept) + bool(rows)
    figure = blank_figure(figsize=(1 + 4.6 * count, max(4.4, 1.4 + 0.22 * len(rows))))
    panels = figure.subplots(1, count, squeeze=False)[0]
    if rows:
        draw(panels[-1], record)
        panels[-1].set_title("mitigation, 95 % intervals over windows", loc="left", fontsize=10)
    for axis, panel in zip(swept, panels, strict=False):
        if panel is not panels[0]:
            panel.sharey(panels[0])
            panel.tick_params(labelleft=False)
        for model in _models(record):
            _curve(panel, record, model, axis)
        panel.set_title(TITLES[axis], loc="left", fontsize=10)
        panel.grid(axis="y", **GRID)
        _scale(panel, record, axis)
    if swept:
        panels[0].plot([], [], color=QUIET, linestyle=":", linewidth=1, label="exact, no noise")
        panels[0].set_ylabel("validation loss, nats per token")
        legend(panels[0], title="ends at", title_fontsize=8)
        note(figure, "Error bars: one standard error of the change over windows of text.")
    title = printable(f"{heads_text(record['heads'])} on {Path(record['data']).name}")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, parse_math=False)
    return figure


def _curve(panel: Any, record: dict[str, Any], model: ModelName, axis: str) -> None:
    """Draw the points of one model, and its loss without noise as a dotted line."""
    points = _series(record, model, axis)
    exact, swept = points[0], [point for point in points if point[axis] is not None]
    panel.axhline(exact["loss"], color=COLORS[model], linestyle=":", linewidth=1)
    panel.errorbar(
        [point[axis] for point in swept],
        [point["loss"] for point in swept],
        [point["change_standard_error"] for point in swept],
        color=COLORS[model],
        linestyle=DASHES[list(NAMES).index(model)],
        marker=MARKERS[model],
        markersize=4.5,
        linewidth=1.6,
        capsize=3,
        label=ends_at(_model_words(record, model), [point["loss"] for point in swept]),
    )


def _scale(panel: Any, record: dict[str, Any], axis: str) -> None:
    """Set a logarithmic scale with p = 0 at its left end; few shots, like strong noise, are on the right."""
    values = sorted({point[axis] for point in record["points"] if point[axis] is not None})
    if axis == "shots":
        panel.set_xscale("log")
        panel.invert_xaxis()
        panel.set_xlabel("shots per measurement basis")
    else:
        least = min((value for value in values if value), default=1.0)
        panel.set_xscale("symlog", linthresh=least, linscale=0.5)
        panel.set_xlim(left=-0.2 * least if values[0] == 0 else None)
        panel.set_xlabel(f"{record['settings']['noise']} p")
    panel.set_xticks(values, [f"{value:,}" if axis == "shots" else f"{value:g}" for value in values], fontsize=8)
    panel.minorticks_off()
