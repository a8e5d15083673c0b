"""The report of a fine-tuning: ``report.json``, ``report.md`` and ``scores.png`` in its folder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from statistics import mean, stdev
from typing import Any

from qiskit_qattn.errors import counted
from qiskit_qattn.evaluation.comparison.claims import Found, claim, verdict_word
from qiskit_qattn.evaluation.drawing import COLORS, FAINT, GRID, INK, blank_figure, note, write_figures
from qiskit_qattn.evaluation.latex import write_document
from qiskit_qattn.evaluation.rendering import (
    code,
    escaped,
    machine,
    number,
    pairs,
    table,
    versions,
    write_json,
)
from qiskit_qattn.evaluation.statistics import compare_pairs
from qiskit_qattn.training.finetune import Result
from qiskit_qattn.training.finetune_config import FinetuneConfig
from qiskit_qattn.training.scores import TITLES

FORMAT = "qiskit-qattn/finetune-report"
#: The classical control of each kind of adapter that is a circuit, or has one.
CONTROLS = {"qisa": "quadratic", "frozen": "quadratic", "unitary": "oft"}
_TOLERANCE = 0.01
_ABOUT = (
    "Scores are those of the rows for evaluation, as GLUE defines them, times 100: mean ± standard deviation over"
    " seeds. A seed decides the rows drawn for training, their order and the new classifier, which are the same for all"
    " methods, and the adapters' first weights."
)
_ABOUT_VERDICTS = (
    "Differences are paired by seed and of the main score. A verdict requires a sign-flip permutation test that is"
    " significant after Holm's correction over all comparisons and a bootstrap interval that excludes zero. An adapter"
    " with a circuit is called better only if it is better than its classical control, of the same form, too."
)


def write_report(config: FinetuneConfig, results: Sequence[Result]) -> dict[str, Any]:
    """Write the report of a fine-tuning into its folder, and return it.

    Args:
        config: The settings.
        results: The results of all methods and seeds.

    Raises:
        RunFolderError: If it cannot be written.
    """
    report = collect_report(config, results)
    write_json(config.folder / "report.json", report)
    write_figures(config.folder, {"scores": _figure(report)})
    write_document(config.folder, render_markdown(report))
    return report


def collect_report(config: FinetuneConfig, results: Sequence[Result]) -> dict[str, Any]:
    """Return the report as plain values: the scores of each method, and its comparison with the reference."""
    reference = config.compared_with
    methods: dict[str, Any] = {}
    for method in config.method_names:
        own = [result for result in results if result["method"] == method]
        methods[method] = {
            "seeds": [result["seed"] for result in own],
            "scores": {name: [result["scores"][name] for result in own] for name in own[0]["scores"]},
            "dev_loss": _mean([result["dev_loss"] for result in own]),
            "train_seconds": _mean([result["train_seconds"] for result in own]),
            "parameters": own[0]["parameters"],
            "learning_rate": own[0]["learning_rate"],
            "backend": own[0]["backend"],
        }
    main = next(iter(methods[reference]["scores"]))
    errors = {
        method: {seed: 1 - score for seed, score in zip(found["seeds"], found["scores"][main], strict=True)}
        for method, found in methods.items()
    }
    keys = [
        (method, against)
        for method in methods
        for against in dict.fromkeys((reference, CONTROLS.get(method)))
        if against in methods and against != method
    ]
    measure = f"error (1 − {TITLES[main]})"
    pairs = [(method, against, errors[method], errors[against]) for method, against in keys]
    compared = dict(zip(keys, compare_pairs(pairs, measure=measure, what="comparisons"), strict=True))
    for method in methods:
        verdicts = [compared.get((method, against or "")) for against in (reference, CONTROLS.get(method))]
        against_reference, against_control = (found.to_dict() if found else None for found in verdicts)
        methods[method] |= Found(
            withheld=None,
            circuit=method in CONTROLS,
            control=CONTROLS.get(method),
            against_reference=against_reference,
            against_control=against_control,
        )
        if method != reference:
            methods[method]["sentence"] = claim(method, reference, methods[method], measure=measure, what="method")
    return {
        "format": FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": config.to_dict(),
        "metric": main,
        "reference": reference,
        "train_rows": results[0]["train_rows"],
        "dev_rows": results[0]["dev_rows"],
        "methods": methods,
        "results": list(results),
        "versions": versions(("transformers", "peft")),
        "machine": machine(),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    """Return a mean; None if a value is missing."""
    known = [value for value in values if value is not None]
    return mean(known) if len(known) == len(values) else None


def spread(values: Sequence[float]) -> str:
    """Return scores times 100 as mean ± standard deviation."""
    deviation = f" ± {100 * stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.1f}{deviation}"


def render_markdown(report: dict[str, Any]) -> str:
    """Return the report as one Markdown document."""
    config, methods, reference = report["config"], report["methods"], report["reference"]
    metrics = list(methods[reference]["scores"])
    comparisons = [(name, found) for name, found in methods.items() if name != reference]
    seeds = len(methods[reference]["seeds"])
    rows = f"{counted(report['train_rows'], 'row')} for training, {report['dev_rows']:,} for evaluation"
    parts = [
        f"# Fine-tuning of {code(config['model'])} on {code(config['task'])}",
        f"{rows}, {counted(config['epochs'], 'epoch')}, {counted(seeds, 'seed')}, {escaped(report['created'])}.",
        _scores(methods, metrics),
        _ABOUT,
        *_sizes(methods, reference),
        *([] if seeds > 1 else ["One seed: the variation between seeds was not measured, so no claim is supported."]),
        "![Scores of each seed](scores.png)",
    ]
    if comparisons and seeds > 1:
        parts += [
            f"## Comparison with {code(reference)}",
            "\n".join(f"- {escaped(found['sentence'])}" for _, found in comparisons),
            _differences(comparisons),
            _ABOUT_VERDICTS,
        ]
    parts += ["## Settings", pairs(config)]
    parts += ["## Versions and machine", pairs({**report["versions"], **report["machine"]})]
    return "\n\n".join(parts) + "\n"


def _scores(methods: dict[str, Any], metrics: Sequence[str]) -> str:
    head = ["Method", *(TITLES[name] for name in metrics), "Loss", "Trained parameters", "in adapters", "Training, s"]
    rows = [
        [
            code(method),
            *(spread(found["scores"][name]) for name in metrics),
            number(found["dev_loss"], "{:.4f}"),
            f"{found['parameters']['trained']:,}",
            f"{found['parameters']['adapters']:,}",
            number(found["train_seconds"], "{:,.1f}"),
        ]
        for method, found in methods.items()
    ]
    return table(head, rows)


def _sizes(methods: dict[str, Any], reference: str) -> list[str]:
    """Return a sentence on adapters that are not of the reference's size."""
    size = methods[reference]["parameters"]["adapters"]
    if not size:
        return []
    off = [
        f"{code(name)} ({found['parameters']['adapters'] / size - 1:+.1%})"
        for name, found in methods.items()
        if found["parameters"]["adapters"] and abs(found["parameters"]["adapters"] / size - 1) > _TOLERANCE
    ]
    return [f"Not of the size of {code(reference)}'s adapters within 1 %: {', '.join(off)}."] if off else []


def _differences(comparisons: Sequence[tuple[str, Any]]) -> str:
    """Return a table of differences of the main score, times 100; positive ones favour the method."""
    rows = []
    for method, each in comparisons:
        found = each["against_reference"]
        difference, interval = found["mean_difference"], found["interval"]
        ends = "–" if interval is None else f"{_signed(-interval[1])} to {_signed(-interval[0])}"
        mean_text = "–" if difference is None else _signed(-difference)
        rows.append([code(method), mean_text, ends, number(found["adjusted_p"], "{:.3g}"), verdict_word(each, "error")])
    return table(["Method", "Difference", "95 % interval", "Adjusted p", "Verdict"], rows)


def _signed(score: float) -> str:
    """Return a difference of scores times 100 with its sign; zero is +0.00."""
    return f"{round(100 * score, 2) + 0.0:+.2f}"


def _figure(report: dict[str, Any]) -> Any:
    """Return a figure with a dot for the main score of each seed; dots of one seed are joined."""
    methods, metric = report["methods"], report["metric"]
    figure = blank_figure(figsize=(max(4.0, 1.2 * len(methods) + 2), 4))
    axes = figure.add_subplot()
    names = list(methods)
    values = [methods[name]["scores"][metric] for name in names]
    for each in zip(*values, strict=False):
        axes.plot(range(len(names)), [100 * value for value in each], color=FAINT, linewidth=1, zorder=1)
    for place, own in enumerate(values):
        axes.scatter([place] * len(own), [100 * value for value in own], color=COLORS[0], s=22, zorder=2)
        axes.hlines(100 * math.fsum(own) / len(own), place - 0.2, place + 0.2, color=INK, linewidth=2, zorder=3)
    axes.set_xticks(range(len(names)), names)
    axes.margins(x=0.15)
    axes.set_ylabel(f"{TITLES[metric]} × 100")
    axes.grid(axis="y", **GRID)
    few = len(values[0]) < 2
    note(figure, "One seed: no claim about the methods." if few else "Dots: seeds, each joined by a line; bars: means.")
    return figure
