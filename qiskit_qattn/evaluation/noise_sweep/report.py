"""The report of a noise sweep: ``report.md``, ``points.csv`` and ``noise.png`` beside its ``report.json``."""

from __future__ import annotations

import csv
import io
import shlex
from typing import Any

from qiskit_qattn.evaluation.noise_sweep.picture import sweep_plot
from qiskit_qattn.evaluation.noise_sweep.plan import NOISES, NoiseSweep
from qiskit_qattn.evaluation.noise_sweep.record import mean_and_error, save
from qiskit_qattn.evaluation.noise_sweep.series import change_words, loss_words, model_words, models, series
from qiskit_qattn.evaluation.report_markdown import heads_text, pairs, table
from qiskit_qattn.training.files import write_bytes, write_text

COLUMNS = (
    *("model", "strength", "shots", "backend", "loss", "standard_error", "change", "change_standard_error"),
    "windows",
)


def write_report(sweep: NoiseSweep, record: dict[str, Any]) -> None:
    """Write the report of a record into the sweep's folder.

    Raises:
        RunFolderError: If it cannot be written.
        MissingDependencyError: If matplotlib is not installed.
    """
    record["command"] = command(sweep, record)
    save(sweep, record)
    write_text(sweep.out / "points.csv", points_csv(record))
    write_bytes(sweep.out / "noise.png", sweep_plot(record))
    write_text(sweep.out / "report.md", render_markdown(record))


def command(sweep: NoiseSweep, record: dict[str, Any]) -> str:
    """Return the line that measures all points of a record again."""
    settings = record["settings"]
    parts = ["qattn", "noise-sweep", str(sweep.run), "--noise", sweep.noise]
    for flag, axis in (("--p", "strength"), ("--shots", "shots")):
        values = sorted({point[axis] for point in record["points"] if point[axis] is not None})
        parts += [flag, ",".join(f"{value:.15g}" if axis == "strength" else str(value) for value in values) or "none"]
    if settings["aware_steps"]:
        parts += ["--aware-steps", str(settings["aware_steps"]), "--aware-p", f"{settings['aware_p']:.15g}"]
    parts += ["--windows", str(settings["windows"]), "--seed", str(settings["seed"]), "--out", str(sweep.out)]
    return shlex.join(parts)


def points_csv(record: dict[str, Any]) -> str:
    """Return all points of a record, one a line."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({**point, "windows": len(point["losses"])} for point in record["points"])
    return text.getvalue()


def render_markdown(record: dict[str, Any]) -> str:
    """Return a record as one Markdown document."""
    settings, first = record["settings"], record["points"][0]
    steps = settings["aware_steps"]
    parts = [
        f"# Noise sweep: {heads_text(record['heads'])}, {settings['noise']}",
        f"Validation loss of the model in `{record['run']}` ({record['num_qubits']} qubits a circuit, trained on"
        f" `{record['data']}`), in nats a token: the mean over {len(first['losses'])} windows of {record['block_size']}"
        f" tokens, evenly spaced over the validation split and the same in every row.",
        f"{NOISES[settings['noise']].meaning} Noise acts on the whole circuit, encoding included, and expectations are"
        f" exact; with a number of shots they are sampled, without noise.",
        "After ± stands one standard error over windows. The change is from the same model's exact loss without noise,"
        " window by window, so that the differences between texts are not in its error.",
    ]
    if steps:
        parts.append(
            f"Two copies of the model were trained {steps:,} steps further, on the same batches and at the learning"
            f" rates with which the run ended (a tenth of the peak, where it ended at none): one under noise of"
            f" p = {settings['aware_p']:g} (noise-aware), and one without noise (control), which shows what the steps"
            f" alone do."
        )
    parts.append(
        "![Validation loss against noise and against shots](noise.png)\n\nBars are one standard error of the change,"
        " dotted lines the exact loss without noise."
    )
    for axis, title, head in (("strength", "Noise", "p"), ("shots", "Shots", "Shots")):
        if any(point[axis] is not None for point in record["points"]):
            parts += [f"## {title}", _losses(record, axis, head)]
            if steps:
                parts += ["Loss of the noise-aware model less that of the control:", _gains(record, axis, head)]
    parts += ["## Reproduce", f"```sh\n{record['command']}\n```"]
    parts += ["## Versions and machine", pairs({**record["versions"], **record["machine"]})]
    return "\n\n".join(parts) + "\n"


def _losses(record: dict[str, Any], axis: str, head: str) -> str:
    """Return a table with a row for each value on an axis, and each model's loss and change as columns."""
    names = models(record)
    heads = [part for model in names for part in (f"Loss, {model_words(record, model)}", "Change")]
    rows = [
        [_value(points[0], axis), *(part for point in points for part in (loss_words(point), _change(point)))]
        for points in zip(*(series(record, model, axis) for model in names), strict=True)
    ]
    return table([head, *heads], rows)


def _gains(record: dict[str, Any], axis: str, head: str) -> str:
    """Return a table of how much lower, or higher, the loss of the noise-aware model is, window by window."""
    rows = []
    for one, other in zip(series(record, "aware", axis), series(record, "control", axis), strict=True):
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
