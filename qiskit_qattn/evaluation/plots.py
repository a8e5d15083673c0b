"""Pictures of a report."""

from __future__ import annotations

from typing import Any

from qiskit_qattn.evaluation.png import blank_figure, png

COLORS = {"model": "#6929c4", "baseline": "#8a8a8a"}


def loss_plot(report: dict[str, Any]) -> bytes:
    """Return a PNG with the training and validation loss of the model and, if there is one, the baseline.

    Raises:
        MissingDependencyError: If matplotlib is not installed.
    """
    figure = blank_figure(figsize=(8, 4.8))
    axes = figure.add_subplot()
    for name in ("baseline", "model"):
        figures = report[name]
        if figures is not None:
            _curves(axes, figures, name)
    axes.set_xlabel("training step")
    axes.set_ylabel("cross-entropy, nats a token")
    axes.set_title(_title(report), loc="left", fontsize=11)
    axes.grid(axis="y", color="#e0e0e0", linewidth=0.8)
    axes.margins(x=0.01)
    axes.legend(frameon=False, fontsize=9)
    return png(figure)


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
    """Draw one model's training losses, faint and smoothed, and its validation losses with dots."""
    color, front = COLORS[name], 3 if name == "model" else 2
    train, val = figures["history"]["train"], figures["history"]["val"]
    label = name if name == "model" else "all-classical baseline"
    steps, losses = [item["step"] for item in train], [item["loss"] for item in train]
    axes.plot(steps, losses, color=color, alpha=0.18, linewidth=0.8, zorder=front)
    axes.plot(steps, smoothed(losses), color=color, alpha=0.75, linewidth=1.2, zorder=front, label=f"{label}, training")
    axes.plot(
        [item["step"] for item in val],
        [item["val_loss"] for item in val],
        color=color,
        marker="o",
        markersize=4,
        linewidth=1.8,
        linestyle="-" if name == "model" else "--",
        zorder=front + 2,
        label=f"{label}, validation (end: {figures['val_loss']:.3f})",
    )


def _title(report: dict[str, Any]) -> str:
    heads = report["model"]["heads"]
    return f"{heads if isinstance(heads, str) else ' | '.join(heads)} on {report['config']['data']}"
