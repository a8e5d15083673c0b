"""What a suite found, as plain values and as files."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from qiskit_qattn.evaluation.comparison.claims import claim
from qiskit_qattn.evaluation.comparison.figures import suite_figures
from qiskit_qattn.evaluation.comparison.paper import render_suite
from qiskit_qattn.evaluation.comparison.report import write_report
from qiskit_qattn.evaluation.comparison.search import chosen_rates
from qiskit_qattn.evaluation.comparison.study import Cell, Study
from qiskit_qattn.evaluation.comparison.suite import TaskResult, judged, results, suite_command
from qiskit_qattn.evaluation.comparison.summary import found_of
from qiskit_qattn.evaluation.comparison.tasks import ABOUT
from qiskit_qattn.evaluation.drawing import write_figures
from qiskit_qattn.evaluation.latex import write_document
from qiskit_qattn.evaluation.rendering import machine, versions, write_json
from qiskit_qattn.evaluation.statistics import Comparison

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
        # Verdicts over several splits are not those of one of them, which has its own.
        verdicts = _verdicts(task, found) if len(task.studies) == 1 else None
        for study in task.studies:
            write_report(study, failed.get(study.folder, {}), verdicts, together=len(found))
    report = collect_suite(tasks, found, failed, suite_command(studies, folder))
    write_json(folder / "report.json", report)
    write_figures(folder, suite_figures(report))
    write_document(folder, render_suite(report))
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
    verdicts = _verdicts(task, found)
    sentences = {}
    for kind in task.kinds:
        withheld = task.withheld.get(kind)
        known = found_of(kind, task.kinds, task.reference, verdicts, withheld=withheld, custom=task.custom)
        if kind != task.reference:
            sentences[kind] = claim(kind, task.reference, known)
        losses = list(task.losses[kind].values())
        kinds[kind] = {
            **known,
            "losses": {str(seed): loss for seed, loss in sorted(task.losses[kind].items())},
            "mean": statistics.fmean(losses) if losses else None,
            "sd": statistics.stdev(losses) if len(losses) > 1 else None,
            "metrics": _metrics(task, kind),
            "seconds": _mean(task, kind, "train_seconds"),
            "rates": [rates.get(kind) for rates in chosen],
            "size": task.studies[0].sizes[kind].to_dict(),
            "by_split": [_difference(split, kind, task.reference) for split in task.by_split],
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


def _verdicts(task: TaskResult, found: Mapping[tuple[str, str, str], Comparison]) -> dict[tuple[str, str], Comparison]:
    """Return the comparisons of one task by kind and what it is compared with."""
    return {key[1:]: each for key, each in found.items() if key[0] == task.name}


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
