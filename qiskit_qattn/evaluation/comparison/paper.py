"""The report of a suite as a short paper: question, method, results, figures, limits, and the one command.

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
from qiskit_qattn.evaluation.comparison.report import write_report
from qiskit_qattn.evaluation.comparison.search import searched
from qiskit_qattn.evaluation.comparison.study import TRIAL_SEEDS, Cell, Study
from qiskit_qattn.evaluation.comparison.suite import TaskResult, judged, results, suite_command
from qiskit_qattn.evaluation.comparison.tasks import ABOUT
from qiskit_qattn.evaluation.paired_tests import minimum_seeds
from qiskit_qattn.evaluation.rendering import (
    block,
    code,
    escaped,
    machine,
    number,
    pairs,
    table,
    versions,
    write_json,
)
from qiskit_qattn.evaluation.statistics import Comparison
from qiskit_qattn.training.files import write_bytes, write_text

FORMAT = "qiskit-qattn/suite"
#: A verdict as a statement about losses, without a claim of what is better.
_WORDS = {"better": "lower", "worse": "higher"}


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
        for study in task.studies if len(task.studies) == 1 else ():
            write_report(study, failed.get(study.folder, {}), own)
        for study in task.studies if len(task.studies) > 1 else ():
            write_report(study, failed.get(study.folder, {}))
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
            "rates": [searched(study).get(kind, {}) and _rate(task, kind, study) for study in task.studies],
            "size": task.studies[0].sizes[kind].to_dict(),
            "withheld": task.withheld.get(kind),
            "against_reference": against.to_dict() if against else None,
            "against_control": beside.to_dict() if beside else None,
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
    word = _WORDS.get(verdict["verdict"])
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


def _rate(task: TaskResult, kind: str, study: Study) -> float | None:
    from qiskit_qattn.evaluation.comparison.search import chosen_rates

    return chosen_rates(study).get(kind)


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


def render_suite(report: Mapping[str, Any]) -> str:
    """Return the report as one Markdown document."""
    tasks = report["tasks"]
    parts = [
        "# Do quantum attention heads help?",
        *_incomplete(report),
        "## Question",
        _question(report),
        "## Method",
        _method(report),
        "## Results",
        _ABOUT_TABLES.format(comparisons=report["comparisons"]),
    ]
    for name, task in tasks.items():
        parts += [f"### {escaped(name).capitalize()}", f"{escaped(task['about']).capitalize()}.", _results(task)]
        parts += [_splits(task), "\n".join(f"- {escaped(sentence)}" for sentence in task["sentences"].values())]
        if task["left_out"]:
            why = "; ".join(f"{code(kind)}: {escaped(reason)}" for kind, reason in task["left_out"].items())
            parts.append(f"Left out: {why}")
    parts += [
        "![Differences from the reference and from the control, by task](differences.png)",
        "![Loss against training time, by task](cost.png)",
        "## Limits",
        _limits(report),
        "## Reproduce",
        block(report["command"], "sh"),
        pairs({**report["versions"], **report["machine"]}),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


_ABOUT_TABLES = (
    "Losses are means over seeds ± standard deviation; lower is better. Differences are paired by seed, with 95 %"
    " bootstrap intervals; p is from a permutation test, with Holm's correction over all {comparisons} comparisons of"
    " all tasks. A difference counts as lower or higher only if p is at most 0.05 and the interval excludes zero. The"
    " last columns compare each circuit with its dequantised control, a classical kind of the same form."
)


def _incomplete(report: Mapping[str, Any]) -> list[str]:
    if report["complete"]:
        return []
    cells = report["cells"]
    failed = [f"- {escaped(name)} failed: {escaped(reason)}" for name, reason in report["failed"].items()]
    done = (
        f"**Incomplete:** {cells['done']:,} of {cells['all']:,} cells are done. The command at the end runs the rest."
    )
    return [done, *(["\n".join(failed)] if failed else [])]


def _question(report: Mapping[str, Any]) -> str:
    kinds = dict.fromkeys(kind for task in report["tasks"].values() for kind in task["kinds"])
    circuits = dict.fromkeys(
        kind for task in report["tasks"].values() for kind, found in task["kinds"].items() if found["circuit"]
    )
    reference = code(report["study"]["reference"])
    return (
        f"Does a transformer learn better when its attention heads are quantum circuits? {len(circuits)} kinds of"
        f" circuits and {len(kinds) - len(circuits)} classical kinds are compared with {reference} heads on"
        f" {len(report['tasks'])} tasks. If a circuit helps, the question remains whether it is the circuit: each is"
        " therefore also compared with a classical kind that computes the like, its dequantised control."
    )


def _method(report: Mapping[str, Any]) -> str:
    study = report["study"]
    config, rates = study["config"], study.get("rates", [])
    splits = max(task["splits"] for task in report["tasks"].values())
    parts = [
        f"All models have {_count(config['n_layer'], 'layer')} of {_count(config['n_head'], 'head')} of one kind, width"
        f" {config['n_embd']} and, except where a kind needs another number, {config['num_qubits'] or 'the fewest'}"
        f" qubits. They are trained for {config['max_steps']:,} steps of {config['batch_size']} sequences of at most"
        f" {config['block_size']} tokens, with {_count(len(study['seeds']), 'seed')} of each kind. Models of one seed see"
        " the same batches, and the width of the MLP makes all models of a task equally large, to within 1 %.",
        "Circuits are simulated exactly.",
    ]
    if rates:
        parts.append(
            f"The peak learning rate of each kind and task is the best of {', '.join(f'{rate:g}' for rate in rates)} by"
            f" {len(TRIAL_SEEDS)} trials each, with seeds apart from those reported; the rates of circuits and at the"
            " end of the schedule keep their ratio to it. All kinds have the same number of trials."
        )
    else:
        parts.append(f"All kinds have the same peak learning rate, {config['learning_rate']:g}, tuned for none.")
    if splits > 1:
        parts.append(f"Each task is repeated over {splits} splits of its data; losses of a seed are means over them.")
    return " ".join(parts)


def _results(task: Mapping[str, Any]) -> str:
    metrics = list(dict.fromkeys(name for found in task["kinds"].values() for name in found["metrics"]))
    rated = any(any(found["rates"]) for found in task["kinds"].values())
    head = ["Kind", "Loss", *metrics, *(["Rate"] if rated else []), "Parameters", "Training, s"]
    head += [f"Minus {task['reference']}", "p", "Loss is", "Control", "Minus control", "p", "Loss is"]
    rows = []
    for kind, found in sorted(task["kinds"].items(), key=lambda item: (item[1]["mean"] is None, item[1]["mean"])):
        spread = f" ± {found['sd']:.4f}" if found["sd"] is not None else ""
        rows.append(
            [
                code(kind),
                number(found["mean"], "{:.4f}") + spread,
                *(number(found["metrics"].get(name), "{:.3f}") for name in metrics),
                *([", ".join(f"{rate:g}" for rate in found["rates"] if rate) or "–"] if rated else []),
                f"{found['size']['total']:,}",
                number(found["seconds"], "{:.1f}"),
                *_compared(found["against_reference"]),
                code(found["control"]) if found["control"] else "–",
                *_compared(found["against_control"]),
            ]
        )
    return table(head, rows)


def _compared(verdict: Mapping[str, Any] | None) -> list[str]:
    if verdict is None or verdict["mean_difference"] is None:
        return ["–", "–", "–"]
    low, high = verdict["interval"] or (None, None)
    interval = f" ({low:+.4f} to {high:+.4f})" if low is not None else ""
    word = _WORDS.get(verdict["verdict"], verdict["verdict"])
    return [f"{verdict['mean_difference']:+.4f}{interval}", number(verdict["adjusted_p"], "{:.2g}"), word]


def _splits(task: Mapping[str, Any]) -> str:
    """Return the differences by split; empty for one split."""
    if task["splits"] < 2:
        return ""
    head = ["Kind", *(f"Split {index}" for index in range(task["splits"]))]
    rows = [
        [code(kind), *(number(value, "{:+.4f}") for value in found["by_split"])]
        for kind, found in task["kinds"].items()
        if kind != task["reference"]
    ]
    return f"Mean differences from {code(task['reference'])} in each split of the data:\n\n{table(head, rows)}"


def _limits(report: Mapping[str, Any]) -> str:
    study = report["study"]
    config, needed = study["config"], minimum_seeds(num_comparisons=max(1, report["comparisons"]))
    largest = max(found["size"]["total"] for task in report["tasks"].values() for found in task["kinds"].values())
    splits = max(task["splits"] for task in report["tasks"].values())
    limits = [
        f"Models are small, {largest:,} parameters at most, and trained for {config['max_steps']:,} steps. Larger models,"
        " longer training and other data may give other results.",
        "Circuits are simulated exactly: neither noise nor shots are part of it, and nothing is said about speed on a"
        " device.",
    ]
    if study.get("rates"):
        limits.append(
            "Learning rates were searched on a grid of"
            f" {len(study['rates'])}; other settings of the optimizer are the same for all kinds and tuned for none. The"
            " validation data that chose the rates are those that the losses are of, for every kind alike."
        )
    if splits == 1:
        limits.append("Seeds change weights and batches; the split of the data is one and the same.")
    if len(study["seeds"]) < needed:
        limits.append(
            f"{_count(len(study['seeds']), 'seed')} cannot show any difference with {report['comparisons']} comparisons,"
            f" however large; that takes at least {needed}. What stands here is a trial run."
        )
    return "\n".join(f"- {limit}" for limit in limits)


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
