"""Figures of a study: losses over steps, paired differences, and loss against cost."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np

from qiskit_qattn.evaluation.comparison.claims import verdict_word
from qiskit_qattn.evaluation.drawing import COLORS, GRID, INK, QUIET, Style, blank_figure, ends_at, legend, note, style
from qiskit_qattn.evaluation.paired_tests import bootstrap_intervals

_AGAINST = ((COLORS[0], "o"), (COLORS[1], "D"))  # the reference, and the control
_FEW = "not enough seeds"  # the verdict with which no interval is drawn
_TOO_FEW = "Too few seeds to tell a difference from chance; no interval is drawn."
_NAMED = 10  # kinds whose legend has room among curves
_BESIDE: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1, 1)}
Points = dict[str, dict[int, float]]  # by kind and seed


def figures(report: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of a report by name.

    Raises:
        MissingDependencyError: If matplotlib is not installed.
    """
    drawn: dict[str, Callable[[Any, dict[str, Any]], None]] = {
        "losses": _losses,
        "differences": _differences,
        "cost": _cost,
    }
    found = {}
    for name, draw in drawn.items():
        figure = blank_figure()
        draw(figure, report)
        found[name] = figure
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
    """Draw validation losses over steps, and their paired differences from the reference.

    Bands are the spreads that the tables state: of losses ± one standard deviation over seeds, of differences the 95%
    interval of their mean, where there are seeds enough to decide.
    """
    figure.set_size_inches(11.4, _height(report))
    left, right = figure.subplots(1, 2)
    reference = report["study"]["reference"]
    curves = {kind: _curves(report, kind) for kind in report["kinds"]}
    for kind, by_seed in curves.items():
        look, front = _style(report, kind), 2 if kind == reference else 3
        steps = sorted(set.intersection(*(set(curve) for curve in by_seed.values()))) if by_seed else []
        if not steps:
            continue
        losses = np.array([[curve[step] for curve in by_seed.values()] for step in steps])  # (steps, seeds)
        spread = losses.std(1, ddof=1) if losses.shape[1] > 1 else None
        means = losses.mean(1)
        band = None if spread is None else (means - spread, means + spread)
        _curve(left, steps, means, band, look, kind, front)
        shared = by_seed.keys() & curves[reference].keys()
        if kind != reference and shared:
            gaps = np.array([[by_seed[seed][s] - curves[reference][seed][s] for seed in sorted(shared)] for s in steps])
            band = bootstrap_intervals(gaps) if _decides(report["kinds"][kind]) else None
            _curve(right, steps, gaps.mean(1), band, look, kind, front)
    left.set_ylabel(f"validation loss{_unit(report)}")
    right.set_ylabel(f"difference from {reference}{_unit(report)}")
    right.axhline(0, color=QUIET, linewidth=1, zorder=1)
    several = len(report["study"]["seeds"]) > 1
    bands = "; bands: 95% intervals" if any(_decides(found) for found in report["kinds"].values()) else ""
    for axes, title in (
        (left, "Validation during training" + ("; bands: ± one standard deviation" if several else "")),
        (right, f"Paired by seed; below zero: lower{bands}"),
    ):
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_xlabel("training step")
        axes.locator_params("x", integer=True)
        axes.grid(axis="y", **GRID)
        axes.margins(x=0.01)
    for axes, place in ((left, _BESIDE if len(curves) > _NAMED else {"loc": "upper right"}), (right, _BESIDE)):
        if axes.get_legend_handles_labels()[0]:
            legend(axes, title="ends at", title_fontsize=8, handlelength=3.4, **place)
    _note(figure, report)


def _curve(axes: Any, steps: list[int], means: Any, band: Any, look: Style, label: str, front: int) -> None:
    """Draw a mean over seeds, with a band if one is given."""
    axes.plot(
        steps,
        means,
        color=look.color,
        linestyle=look.linestyle,
        marker=look.marker,
        markersize=3.5,
        markevery=max(1, len(steps) // 8),
        linewidth=1.5,
        label=ends_at(label, means),
        zorder=front,
    )
    if band is not None:
        axes.fill_between(steps, *band, color=look.color, alpha=0.15, linewidth=0, zorder=front - 1)


def _decides(found: dict[str, Any]) -> bool:
    """Return whether a kind has seeds enough for a verdict, and so for an interval."""
    verdict = found["against_reference"]
    return verdict is not None and verdict["interval"] is not None and verdict["verdict"] != _FEW


def _note(figure: Any, report: dict[str, Any]) -> None:
    """Write below a figure what may not be concluded from it."""
    verdicts = [found["against_reference"] for found in report["kinds"].values() if found["against_reference"]]
    if verdicts and all(verdict["verdict"] == _FEW for verdict in verdicts):
        note(figure, _TOO_FEW)


def _differences(figure: Any, report: dict[str, Any]) -> None:
    """Draw a forest plot: each kind's paired differences, their mean and, with seeds enough to decide, its interval."""
    reference = report["study"]["reference"]
    kinds = [kind for kind in report["kinds"] if kind != reference]
    figure.set_size_inches(8, 1.6 + 0.55 * len(kinds))
    axes = figure.subplots()
    losses = _points(report, "val_loss")
    for row, kind in enumerate(kinds):
        found, look = report["kinds"][kind], _style(report, kind)
        verdict = found["against_reference"]
        if verdict is None:
            axes.annotate("withheld", (0, row), xytext=(6, 0), textcoords="offset points", va="center", color=INK)
            continue
        gaps = [losses[kind][seed] - losses[reference][seed] for seed in losses[kind] if seed in losses[reference]]
        axes.scatter(gaps, [row + 0.2] * len(gaps), s=16, color=look.color, alpha=0.5, linewidth=0, zorder=2)
        if _decides(found):
            axes.hlines(row, *verdict["interval"], color=look.color, linewidth=2.2, zorder=3)
        axes.scatter([verdict["mean_difference"]], [row], s=48, marker="D", color=look.color, zorder=4)
        axes.annotate(
            verdict_word(found),
            (1.01, row),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=9,
            color=INK,
        )
    axes.axvline(0, color=QUIET, linewidth=1, zorder=1)
    axes.set_yticks(range(len(kinds)), kinds)
    axes.set_ylim(len(kinds) - 0.4, -0.6)
    axes.set_xlabel(f"validation loss minus that of {reference}{_unit(report)} (left is lower)")
    interval = " and 95% interval" if any(_decides(found) for found in report["kinds"].values()) else ""
    axes.set_title(f"Paired differences: seeds (dots), mean (diamond){interval}", loc="left", fontsize=10)
    axes.grid(axis="x", **GRID)
    axes.margins(x=0.08)
    _note(figure, report)


def _cost(figure: Any, report: dict[str, Any]) -> None:
    """Draw validation loss against training time; the line joins the Pareto-optimal kinds."""
    figure.set_size_inches(7.6, _height(report))
    axes = figure.subplots()
    losses, seconds = _points(report, "val_loss"), _points(report, "train_seconds")
    means = {k: (_mean(seconds[k]), _mean(losses[k])) for k in losses if losses[k] and not report["kinds"][k]["leaks"]}
    for kind, (x, y) in means.items():
        color, _, marker = _style(report, kind)
        small = {"s": 14, "color": color, "marker": marker, "alpha": 0.4, "linewidth": 0}
        axes.scatter(seconds[kind].values(), losses[kind].values(), zorder=2, **small)
        axes.scatter([x], [y], s=60, color=color, marker=marker, zorder=4, label=f"{kind}: {y:.3f}")
    front = [means[kind] for kind in pareto_front(means)]
    if front:
        axes.plot(*zip(*front, strict=True), color=INK, linewidth=1, linestyle="--", zorder=1)
        legend(axes, fontsize=9, **_BESIDE)
    axes.set_xscale("log")
    axes.set_xlabel("training time, s (small: seeds; large: means)")
    axes.set_ylabel(f"validation loss{_unit(report)}")
    axes.set_title("Loss against cost; dashed: Pareto front", loc="left", fontsize=10)
    axes.grid(**GRID)
    axes.margins(0.12)


def _height(report: dict[str, Any]) -> float:
    """Return the height in inches of a figure with a legend of all kinds."""
    return max(4.6, 1 + 0.22 * len(report["kinds"]))


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


def _style(report: dict[str, Any], kind: str) -> Style:
    others = [name for name in report["kinds"] if name != report["study"]["reference"]]
    return style(others.index(kind)) if kind in others else Style(QUIET, "-", "*")


def _mean(values: dict[int, float]) -> float:
    return statistics.fmean(values.values())


def suite_figures(report: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of a suite's report by name.

    Raises:
        MissingDependencyError: If matplotlib is not installed.
    """
    found = {}
    for name, draw in (("differences", _task_differences), ("cost", _task_costs)):
        figure = blank_figure()
        draw(figure, report)
        found[name] = figure
    return found


def _task_differences(figure: Any, report: dict[str, Any]) -> None:
    """Draw for each task the differences of all kinds from the reference, and of circuits from their controls."""
    tasks = report["tasks"]
    kinds = list(dict.fromkeys(kind for task in tasks.values() for kind in task["kinds"] if kind != task["reference"]))
    figure.set_size_inches(3.6 * len(tasks) + 1.6, 1.6 + 0.3 * len(kinds))
    shown = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
    for axes, task in zip(shown, tasks.values(), strict=True):
        for name, offset, (color, marker) in (
            ("against_reference", -0.14, _AGAINST[0]),
            ("against_control", 0.14, _AGAINST[1]),
        ):
            for row, kind in enumerate(kinds):
                verdict = task["kinds"].get(kind, {}).get(name)
                if verdict is None or verdict["mean_difference"] is None:
                    continue
                if verdict["interval"] and verdict["verdict"] != _FEW:
                    axes.hlines(row + offset, *verdict["interval"], color=color, linewidth=1.6, zorder=2)
                filled = color if verdict["verdict"] in ("better", "worse") else "white"
                axes.scatter(
                    [verdict["mean_difference"]],
                    [row + offset],
                    s=22,
                    marker=marker,
                    color=filled,
                    edgecolor=color,
                    zorder=3,
                )
        axes.axvline(0, color=QUIET, linewidth=1, zorder=1)
        axes.set_title(task["name"], loc="left", fontsize=10)
        axes.set_xlabel("difference in loss (left is lower)")
        axes.grid(axis="x", **GRID)
        axes.margins(x=0.08)
        axes.locator_params("x", nbins=5)
    shown[0].set_yticks(range(len(kinds)), kinds)
    shown[0].set_ylim(len(kinds) - 0.4, -0.6)
    labels = [f"from {report['study']['reference']}"]
    every = [found for task in tasks.values() for found in task["kinds"].values()]
    labels += ["from its control"] if any(found["against_control"] for found in every) else []
    for label, (color, marker) in zip(labels, _AGAINST, strict=False):
        shown[-1].scatter([], [], s=22, color=color, marker=marker, label=label)
    shown[-1].scatter([], [], s=22, color="white", edgecolor=INK, label="not shown to differ")
    legend(shown[-1], **_BESIDE)
    few = all(found["against_reference"]["verdict"] == _FEW for found in every if found["against_reference"])
    note(
        figure,
        _TOO_FEW if few else "Means over seeds; lines: 95% intervals. Filled: shown to differ.",
    )


def _task_costs(figure: Any, report: dict[str, Any]) -> None:
    """Draw for each task the mean loss of each kind against its training time; the line joins the Pareto front."""
    tasks, reference = report["tasks"], report["study"]["reference"]
    points: list[dict[str, tuple[float, float]]] = [
        {
            kind: (found["seconds"], found["mean"])
            for kind, found in task["kinds"].items()
            if found["seconds"] and found["mean"] is not None
        }
        for task in tasks.values()
    ]
    circuits = {kind: found["circuit"] for task in tasks.values() for kind, found in task["kinds"].items()}
    kinds = [kind for kind in circuits if any(kind in means for means in points)]
    others = [kind for kind in kinds if kind != reference]
    figure.set_size_inches(4.2 * len(tasks) + 1.6, max(4.4, 1.2 + 0.17 * len(kinds)))
    panels = figure.subplots(1, len(tasks), squeeze=False)[0]
    for axes, task, means in zip(panels, tasks.values(), points, strict=True):
        for kind in kinds:
            color, _, marker = style(others.index(kind)) if kind in others else Style(QUIET, "-", "*")
            face = color if circuits[kind] else "white"
            at = [[number] for number in means[kind]] if kind in means else ([], [])
            size = 60 if kind == reference else 26
            axes.scatter(*at, s=size, marker=marker, facecolors=face, edgecolors=color, label=kind, zorder=3)
        front = pareto_front(means)
        if front:
            axes.plot(*zip(*(means[kind] for kind in front), strict=True), color=INK, linewidth=1, ls="--", zorder=1)
            axes.set_xscale("log")
        named = textwrap.fill(f"front: {', '.join(front)}", 44, break_on_hyphens=False) if front else ""
        axes.set_title(task["name"], loc="left", fontsize=10)
        axes.set_xlabel(f"training time, s\n{named}", fontsize=9)
        axes.set_ylabel("validation loss")
        axes.grid(**GRID)
        axes.margins(0.1)
    if kinds:
        legend(panels[-1], **_BESIDE)
    note(
        figure,
        "Means over seeds. Filled: circuits; open: classical kinds; dashed: Pareto front, fastest first.",
    )
