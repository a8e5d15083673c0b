"""The first picture that a user sees: the losses of a run over its steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qiskit_qattn.evaluation.drawing import COLORS, GRID, INK, QUIET, blank_figure, ends_at, legend, note
from qiskit_qattn.evaluation.rendering import heads_text
from qiskit_qattn.untrusted import printable

_LOOKS = {"model": (COLORS[0], "-", "o"), "baseline": (QUIET, "--", "s")}
_ONE_SEED = {
    True: "One seed of each, so nothing follows about which heads are better; qattn compare trains several.",
    False: "One seed, so how much other seeds would differ is not known; qattn compare trains several.",
}


def loss_figure(report: dict[str, Any]) -> Any:
    """Return a figure of the training and validation losses of the model and of the baseline, if there is one.

    Raises:
        MissingDependencyError: If matplotlib is not installed.
    """
    figure = blank_figure(figsize=(8, 4.8))
    axes = figure.add_subplot()
    for name in ("baseline", "model"):
        if report[name] is not None:
            _curves(axes, report[name], name)
    axes.set_xlabel("training step")
    axes.set_ylabel("cross-entropy, nats per token")
    title = printable(f"{heads_text(report['model']['heads'])} on {Path(report['config']['data']).name}")
    axes.set_title(title, loc="left", fontsize=11, parse_math=False, color=INK)
    axes.grid(axis="y", **GRID)
    axes.margins(x=0.01)
    axes.locator_params("x", integer=True)
    legend(axes, fontsize=9, title="ends at", title_fontsize=9, handlelength=3)
    note(figure, _ONE_SEED[report["baseline"] is not None])
    return figure


def smoothed(values: list[float], share: float = 0.05) -> list[float]:
    """Return the centred moving average of ``values`` over ``share`` of their number, narrower at the ends."""
    half = int(len(values) * share / 2)
    means = []
    for i in range(len(values)):
        reach = min(half, i, len(values) - 1 - i)
        window = values[i - reach : i + reach + 1]
        means.append(sum(window) / len(window))
    return means


def _curves(axes: Any, figures: dict[str, Any], name: str) -> None:
    """Draw the training losses of a model, faint and smoothed, and its validation losses with markers."""
    color, dashes, marker = _LOOKS[name]
    front = 3 if name == "model" else 2
    train, val = figures["history"]["train"], figures["history"]["val"]
    label = name if name == "model" else "all-classical baseline"
    if train:
        steps, losses = [item["step"] for item in train], [item["loss"] for item in train]
        smooth = smoothed(losses)
        axes.plot(steps, losses, color=color, alpha=0.18, linewidth=0.8, zorder=front)
        axes.plot(
            steps,
            smooth,
            color=color,
            alpha=0.75,
            linewidth=1.0,
            linestyle=dashes,
            zorder=front,
            label=ends_at(f"{label}, training", smooth),
        )
    if val:
        losses = [item["val_loss"] for item in val]
        axes.plot(
            [item["step"] for item in val],
            losses,
            color=color,
            marker=marker,
            markersize=4.5,
            linewidth=1.8,
            linestyle=dashes,
            zorder=front + 2,
            label=ends_at(f"{label}, validation", losses),
        )
