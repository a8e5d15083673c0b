"""Figures of a study: losses over steps, paired differences, and loss against cost."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from qiskit_qattn.evaluation.rendering import GRID, blank_figure, png

REFERENCE = "#8a8a8a"
COLORS = ("#6929c4", "#1192e8", "#005d5d", "#9f1853", "#fa4d56", "#198038", "#b28600", "#002d9c", "#ee538b", "#570408")
Points = dict[str, dict[int, float]]  # by kind and seed


def figures(report: dict[str, Any]) -> dict[str, bytes]:
    """Return the figures of a report as PNG, by file name.

    Raises:
        MissingDependencyError: If matplotlib is not installed.
    """
    drawn: dict[str, Callable[[Any, dict[str, Any]], None]] = {
        "losses.png": _losses,
        "differences.png": _differences,
        "cost.png": _cost,
    }
    found = {}
    for name, draw in drawn.items():
        figure = blank_figure()
        draw(figure, report)
        found[name] = png(figure)
    return found


def pareto_front(points: dict[str, tuple[float, float]]) -> list[str]:
    """Return the names of the Pareto-optimal points of two costs, sorted by the first; of equal points only one."""
    front: list[str] = []
    best = float("inf")
    for name, (_, second) in sorted(points.items(), key=lambda item: item[1]):
        if second < best:
            front.append(name)
            best = second
    return front


def _losses(figure: Any, report: dict[str, Any]) -> None:
    """Draw validation losses and their paired differences from the reference over steps, with standard deviations."""
    figure.set_size_inches(10, 4.6)
    left, right = figure.subplots(1, 2)
    reference = report["study"]["reference"]
    curves = {kind: _curves(report, kind) for kind in report["kinds"]}
    for kind, by_seed in curves.items():
        color, front = _color(report, kind), 2 if kind == reference else 3
        steps = sorted(set.intersection(*(set(curve) for curve in by_seed.values()))) if by_seed else []
        if not steps:
            continue
        _band(left, steps, [[c[s] for c in by_seed.values()] for s in steps], color, kind, front)
        shared = by_seed.keys() & curves[reference].keys()
        if kind != reference and shared:
            gaps = [[by_seed[seed][s] - curves[reference][seed][s] for seed in shared] for s in steps]
            _band(right, steps, gaps, color, kind, front)
    left.set_ylabel(f"validation loss{_unit(report)}")
    right.set_ylabel(f"difference from {reference}{_unit(report)}")
    right.axhline(0, color=REFERENCE, linewidth=1, zorder=1)
    for axes, title in (
        (left, "Validation during training; bands: ± one standard deviation"),
        (right, "Paired by seed; below zero: lower"),
    ):
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_xlabel("training step")
        axes.grid(axis="y", **GRID)
        axes.margins(x=0.01)
    if left.lines:
        left.legend(frameon=False, fontsize=9)


def _band(axes: Any, steps: list[int], values: list[list[float]], color: str, label: str, front: int) -> None:
    """Draw a mean over seeds with a band of one standard deviation."""
    means = [statistics.fmean(item) for item in values]
    spreads = [statistics.stdev(item) if len(item) > 1 else 0.0 for item in values]
    axes.plot(steps, means, color=color, linewidth=1.5, label=label, zorder=front)
    low, high = ([m + sign * s for m, s in zip(means, spreads, strict=True)] for sign in (-1, 1))
    axes.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0, zorder=front - 1)


def _differences(figure: Any, report: dict[str, Any]) -> None:
    """Draw a forest plot: each kind's paired differences, their mean and its interval."""
    reference = report["study"]["reference"]
    kinds = [kind for kind in report["kinds"] if kind != reference]
    figure.set_size_inches(8, 1.5 + 0.55 * len(kinds))
    axes = figure.subplots()
    losses = _points(report, "val_loss")
    for row, kind in enumerate(kinds):
        found, color = report["kinds"][kind], _color(report, kind)
        verdict = found["against_reference"]
        if verdict is None:
            axes.annotate("withheld", (0, row), xytext=(6, 0), textcoords="offset points", va="center", color=color)
            continue
        gaps = [losses[kind][seed] - losses[reference][seed] for seed in losses[kind] if seed in losses[reference]]
        axes.scatter(gaps, [row + 0.2] * len(gaps), s=16, color=color, alpha=0.35, linewidth=0, zorder=2)
        if verdict["interval"]:
            axes.hlines(row, *verdict["interval"], color=color, linewidth=2.2, zorder=3)
        axes.scatter([verdict["mean_difference"]], [row], s=48, marker="D", color=color, zorder=4)
        axes.annotate(
            verdict["verdict"],
            (1.01, row),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=9,
            color="#393939",
        )
    axes.axvline(0, color=REFERENCE, linewidth=1, zorder=1)
    axes.set_yticks(range(len(kinds)), kinds)
    axes.set_ylim(len(kinds) - 0.4, -0.6)
    axes.set_xlabel(f"validation loss minus that of {reference}{_unit(report)} (left is lower)")
    axes.set_title("Paired differences: seeds, mean and 95% interval", loc="left", fontsize=10)
    axes.grid(axis="x", **GRID)
    axes.margins(x=0.08)


def _cost(figure: Any, report: dict[str, Any]) -> None:
    """Draw validation loss against training time; the line joins the Pareto-optimal kinds."""
    from matplotlib.ticker import LogFormatter

    figure.set_size_inches(7.6, 4.6)
    axes = figure.subplots()
    losses, seconds = _points(report, "val_loss"), _points(report, "train_seconds")
    means = {k: (_mean(seconds[k]), _mean(losses[k])) for k in losses if losses[k] and not report["kinds"][k]["leaks"]}
    for kind, (x, y) in means.items():
        color = _color(report, kind)
        axes.scatter(
            seconds[kind].values(), losses[kind].values(), s=14, color=color, alpha=0.35, linewidth=0, zorder=2
        )
        axes.scatter([x], [y], s=60, color=color, zorder=4, label=kind)
    front = [means[kind] for kind in pareto_front(means)]
    if front:
        axes.plot(*zip(*front, strict=True), color="#393939", linewidth=1, linestyle="--", zorder=1)
        axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(LogFormatter())
    axes.xaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.4)))
    axes.set_xlabel("training time, s (small dots: seeds; large dots: means)")
    axes.set_ylabel(f"validation loss{_unit(report)}")
    axes.set_title("Loss against cost; dashed: Pareto front", loc="left", fontsize=10)
    axes.grid(**GRID)
    axes.margins(0.12)


def _curves(report: dict[str, Any], kind: str) -> dict[int, dict[int, float]]:
    """Return the validation losses of a kind by seed and step."""
    return {
        cell["seed"]: {item["step"]: item["val_loss"] for item in cell["history"]["val"]}
        for cell in report["cells"]
        if cell["kind"] == kind
    }


def _points(report: dict[str, Any], name: str) -> Points:
    """Return a figure of every cell, by kind and seed."""
    found: Points = {kind: {} for kind in report["kinds"]}
    for cell in report["cells"]:
        found[cell["kind"]][cell["seed"]] = cell[name]
    return found


def _unit(report: dict[str, Any]) -> str:
    return "" if report["study"].get("build") else ", nats per token"


def _color(report: dict[str, Any], kind: str) -> str:
    others = [name for name in report["kinds"] if name != report["study"]["reference"]]
    return COLORS[others.index(kind) % len(COLORS)] if kind in others else REFERENCE


def _mean(values: dict[int, float]) -> float:
    return statistics.fmean(values.values())


def suite_figures(report: dict[str, Any]) -> dict[str, bytes]:
    """Return the figures of a suite's report as PNG, by file name.

    Raises:
        MissingDependencyError: If matplotlib is not installed.
    """
    found = {}
    for name, draw in (("differences.png", _task_differences), ("cost.png", _task_costs)):
        figure = blank_figure()
        draw(figure, report)
        found[name] = png(figure)
    return found


def _task_differences(figure: Any, report: dict[str, Any]) -> None:
    """Draw for each task the differences of all kinds from the reference, and of circuits from their controls."""
    tasks = report["tasks"]
    kinds = list(dict.fromkeys(kind for task in tasks.values() for kind in task["kinds"] if kind != task["reference"]))
    figure.set_size_inches(3.6 * len(tasks) + 1.6, 1.6 + 0.3 * len(kinds))
    shown = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
    for axes, task in zip(shown, tasks.values(), strict=True):
        for name, offset, color in (("against_reference", -0.14, COLORS[0]), ("against_control", 0.14, COLORS[5])):
            for row, kind in enumerate(kinds):
                verdict = task["kinds"].get(kind, {}).get(name)
                if verdict is None or verdict["mean_difference"] is None:
                    continue
                if verdict["interval"]:
                    axes.hlines(row + offset, *verdict["interval"], color=color, linewidth=1.6, zorder=2)
                filled = color if verdict["verdict"] in ("better", "worse") else "white"
                axes.scatter(
                    [verdict["mean_difference"]], [row + offset], s=22, color=filled, edgecolor=color, zorder=3
                )
        axes.axvline(0, color=REFERENCE, linewidth=1, zorder=1)
        axes.set_title(task["name"], loc="left", fontsize=10)
        axes.set_xlabel("difference in loss (left is lower)")
        axes.grid(axis="x", **GRID)
        axes.margins(x=0.08)
    shown[0].set_yticks(range(len(kinds)), kinds)
    shown[0].set_ylim(len(kinds) - 0.4, -0.6)
    for label, color in ((f"from {report['study']['reference']}", COLORS[0]), ("from its control", COLORS[5])):
        shown[-1].scatter([], [], s=22, color=color, label=label)
    shown[-1].scatter([], [], s=22, color="white", edgecolor="#393939", label="not shown to differ")
    shown[-1].legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))


def _task_costs(figure: Any, report: dict[str, Any]) -> None:
    """Draw for each task the mean loss of each kind against its training time; the line joins the Pareto front."""
    tasks = report["tasks"]
    figure.set_size_inches(4.2 * len(tasks), 4.2)
    for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks.values(), strict=True):
        means = {
            kind: (found["seconds"], found["mean"])
            for kind, found in task["kinds"].items()
            if found["seconds"] and found["mean"] is not None
        }
        for kind, (x, y) in means.items():
            axes.scatter([x], [y], s=24, color=COLORS[0] if task["kinds"][kind]["circuit"] else REFERENCE, zorder=3)
            axes.annotate(kind, (x, y), xytext=(4, 3), textcoords="offset points", fontsize=7, color="#393939")
        if front := [means[kind] for kind in pareto_front(means)]:
            axes.plot(*zip(*front, strict=True), color="#393939", linewidth=1, linestyle="--", zorder=1)
            axes.set_xscale("log")
        axes.set_title(f"{task['name']} (violet: circuits; dashed: Pareto front)", loc="left", fontsize=9)
        axes.set_xlabel("training time, s")
        axes.set_ylabel("validation loss")
        axes.grid(**GRID)
        axes.margins(0.14)
