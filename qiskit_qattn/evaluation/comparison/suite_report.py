"""What a suite found, as plain values and as files.

A circuit may only be called better than the reference in a sentence that also says how it compares with its dequantised
control, and only if it is better than that too: :func:`claim` is the one place that decides on such words.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from qiskit_qattn.evaluation.comparison.figures import suite_figures
from qiskit_qattn.evaluation.comparison.kinds import has_circuit
from qiskit_qattn.evaluation.comparison.paper import LOSS_IS, render_suite
from qiskit_qattn.evaluation.comparison.report import write_report
from qiskit_qattn.evaluation.comparison.search import chosen_rates
from qiskit_qattn.evaluation.comparison.study import Cell, Study
from qiskit_qattn.evaluation.comparison.suite import TaskResult, judged, results, suite_command
from qiskit_qattn.evaluation.comparison.tasks import ABOUT
from qiskit_qattn.evaluation.rendering import machine, versions, write_json
from qiskit_qattn.evaluation.statistics import Comparison
from qiskit_qattn.training.files import write_bytes, write_text

FORMAT = "qiskit-qattn/suite"


def write_suite(studies: Sequence[Study], folder: Path, failed: Mapping[Path, Mapping[Cell, str]]) -> dict[str, Any]:
    """Write the report of each study into its folder, and that of all of them into ``folder``; return the latter.

    Args:
        studies: The studies.
        folder: The folder of the suite.
        failed: For each study's folder the reasons of cells that failed.

    Raises:
        RunFolderError: If it cannot be written.
        CheckpointError: If a record is damaged.
    """
    tasks = results(studies)
    found = judged(tasks)
    for task in tasks:
        own = {kind: found[task.name, kind, task.reference] for kind in task.kinds if kind != task.reference}
        for study in task.studies:  # verdicts over several splits are not those of one of them
            write_report(study, failed.get(study.folder, {}), own if len(task.studies) == 1 else None)
    report = collect_suite(tasks, found, failed, suite_command(studies, folder))
    write_json(folder / "report.json", report)
    for name, figure in suite_figures(report).items():
        write_bytes(folder / name, figure)
    write_text(folder / "report.md", render_suite(report))
    return report


def collect_suite(
    tasks: Sequence[TaskResult],
    found: Mapping[tuple[str, str, str], Comparison],
    failed: Mapping[Path, Mapping[Cell, str]],
    command: str,
) -> dict[str, Any]:
    """Return the report of a suite as plain values."""
    studies = [study for task in tasks for study in task.studies]
    done = sum(len(each) for task in tasks for each in task.records)
    cells = sum(len(study.cells()) for study in studies)
    return {
        "format": FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "complete": done == cells,
        "cells": {"done": done, "all": cells},
        "comparisons": len(found),
        "study": studies[0].to_dict(),
        "tasks": {task.name: _task(task, found) for task in tasks},
        "failed": {
            f"{folder.parent.name}/{folder.name}/{cell.name}": reason
            for folder, reasons in failed.items()
            for cell, reason in reasons.items()
        },
        "command": command,
        "versions": versions(),
        "machine": machine(),
    }


def _task(task: TaskResult, found: Mapping[tuple[str, str, str], Comparison]) -> dict[str, Any]:
    """Return what was found on one task as plain values."""
    kinds: dict[str, Any] = {}
    chosen = [chosen_rates(study) for study in task.studies]
    for kind in task.kinds:
        control = task.control(kind)
        against = found.get((task.name, kind, task.reference))
        beside = found.get((task.name, kind, control)) if control else None
        losses = list(task.losses[kind].values())
        kinds[kind] = {
            "circuit": not _is_own(task) and has_circuit(kind),
            "control": control,
            "losses": {str(seed): loss for seed, loss in sorted(task.losses[kind].items())},
            "mean": statistics.fmean(losses) if losses else None,
            "sd": statistics.stdev(losses) if len(losses) > 1 else None,
            "metrics": _metrics(task, kind),
            "seconds": _mean(task, kind, "train_seconds"),
            "rates": [rates.get(kind) for rates in chosen],
            "size": task.studies[0].sizes[kind].to_dict(),
            "withheld": task.withheld.get(kind),
            "against_reference": against.to_dict() if against and kind not in task.withheld else None,
            "against_control": beside.to_dict() if beside and kind not in task.withheld else None,
            "by_split": [_difference(split, kind, task.reference) for split in task.by_split],
        }
    sentences = {
        kind: claim(kind, task.reference, each, control_reason=_no_control(task, kind))
        for kind, each in kinds.items()
        if kind != task.reference
    }
    left_out = {kind: why for study in task.studies for kind, why in study.left_out.items()}
    return {
        "name": task.name,
        "about": ABOUT.get(task.name, f"models that {task.name} builds"),
        "reference": task.reference,
        "config": task.studies[0].to_dict()["config"],
        "splits": len(task.studies),
        "kinds": kinds,
        "sentences": sentences,
        "left_out": left_out,
    }


def claim(kind: str, reference: str, found: Mapping[str, Any], *, control_reason: str = "") -> str:
    """Return in words how a kind compares with the reference and, if it is a circuit, with its dequantised control.

    Args:
        kind: The kind.
        reference: The reference.
        found: Its ``withheld``, ``circuit``, ``control``, ``against_reference`` and ``against_control``.
        control_reason: Why there is no comparison with a control, if there is none.
    """
    verdict, control = found["against_reference"], found["against_control"]
    if found["withheld"] is not None or verdict is None:
        return f"{kind}: verdict withheld because {found['withheld'] or 'it was not compared'}."
    if verdict["verdict"] == "not enough seeds":
        return str(verdict["sentence"])
    base = f"{_relation(verdict)} {reference} ({_figures(verdict)})"
    if not found["circuit"]:
        return f"{kind}, a classical kind, {base}."
    if control is None:
        return (
            f"{kind} {base}. Nothing is claimed about its circuit: {control_reason or 'its control was not compared'}."
        )
    beside = f"its dequantised control {found['control']}"
    against = f"({_figures(control)})" if control["interval"] else f"({control['verdict']})"
    lower = verdict["verdict"] == "better"
    if control["verdict"] == "better":
        if lower:
            return f"{kind} is better than {reference} ({_figures(verdict)}) and than {beside} {against}."
        return f"{kind} {base}, and a lower one than {beside} {against}."
    if control["verdict"] == "worse":
        why = ": the circuit is not what helps" if lower else ""
        return f"{kind} {base}, but a higher one than {beside} {against}{why}."
    why = ": the gain is not shown to be one of the circuit" if lower else ""
    return f"{kind} {base}; no difference from {beside} is shown {against}{why}."


def _relation(verdict: Mapping[str, Any]) -> str:
    """Return a verdict about losses in words."""
    word = LOSS_IS.get(verdict["verdict"])
    return f"has a {word} loss than" if word else "has a loss that is not shown to differ from that of"


def _figures(verdict: Mapping[str, Any]) -> str:
    low, high = verdict["interval"]
    return f"{verdict['mean_difference']:+.4f}, {low:+.4f} to {high:+.4f}, p = {verdict['adjusted_p']:.2g}"


def _no_control(task: TaskResult, kind: str) -> str:
    """Return why a circuit has no comparison with its control."""
    if _is_own(task) or not has_circuit(kind) or task.control(kind) is not None:
        return ""
    return "it has no dequantised control in this study"


def _is_own(task: TaskResult) -> bool:
    return task.name == task.studies[0].build


def _records(task: TaskResult, kind: str) -> list[Mapping[str, Any]]:
    return [record for done in task.records for cell, record in done.items() if cell.kind == kind]


def _mean(task: TaskResult, kind: str, name: str) -> float | None:
    values = [record[name] for record in _records(task, kind)]
    return statistics.fmean(values) if values else None


def _metrics(task: TaskResult, kind: str) -> dict[str, float]:
    """Return the means of a kind's metrics."""
    found: dict[str, list[float]] = {}
    for record in _records(task, kind):
        for name, value in record.get("metrics", {}).items():
            if value is not None:
                found.setdefault(name, []).append(value)
    return {name: statistics.fmean(values) for name, values in found.items()}


def _difference(losses: Mapping[str, Mapping[int, float]], kind: str, reference: str) -> float | None:
    """Return the mean paired difference in one split."""
    shared = losses.get(kind, {}).keys() & losses[reference].keys()
    return statistics.fmean(losses[kind][seed] - losses[reference][seed] for seed in shared) if shared else None
