"""The report of a study, collected from its cells: ``report.json``, ``report.md``, ``cells.csv`` and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from qiskit_qattn.errors import counted
from qiskit_qattn.evaluation.comparison.claims import verdict_table
from qiskit_qattn.evaluation.comparison.figures import figures
from qiskit_qattn.evaluation.comparison.record import records
from qiskit_qattn.evaluation.comparison.search import search_section, searched
from qiskit_qattn.evaluation.comparison.study import Cell, Study
from qiskit_qattn.evaluation.comparison.summary import METRIC, Verdicts, judged_alone, summarise
from qiskit_qattn.evaluation.comparison.tasks import is_custom
from qiskit_qattn.evaluation.drawing import write_figures
from qiskit_qattn.evaluation.latex import write_document
from qiskit_qattn.evaluation.rendering import (
    block,
    code,
    csv_text,
    escaped,
    machine,
    number,
    pairs,
    table,
    versions,
    write_json,
)
from qiskit_qattn.training.config import MODEL_SETTINGS, TrainConfig
from qiskit_qattn.training.files import write_text
from qiskit_qattn.training.metrics import finite

FORMAT = "qiskit-qattn/comparison"
#: The columns of a table: title, name of the figure, format of its mean, format of its standard deviation or "".
Columns = tuple[tuple[str, str, str, str], ...]
QUALITY: Columns = (
    ("Validation loss", "val_loss", "{:.4f}", "{:.4f}"),
    ("Loss, last position", "val_loss_last_position", "{:.4f}", "{:.4f}"),
    ("Training loss", "train_loss", "{:.4f}", ""),
    ("Character errors", "character_error_rate", "{:.1%}", ""),
    ("Word errors", "word_error_rate", "{:.1%}", ""),
)
COST: Columns = (
    ("Training tokens/s", "tokens_per_second", "{:,.0f}", ""),
    ("Training, s", "train_seconds", "{:,.0f}", ""),
    ("Wall, s", "wall_seconds", "{:,.0f}", ""),
    ("CPU, s", "cpu_seconds", "{:,.0f}", ""),
    ("QPU, s", "qpu_seconds", "{:,.1f}", ""),
    ("Peak memory (RSS), MiB", "peak_rss_mib", "{:,.0f}", ""),
)
COST_OF_EXAMPLES: Columns = (("Training examples/s", *COST[0][1:]), *COST[1:])
CIRCUITS: Columns = (
    ("Gradient variance at the start", "gradient_variance", "{:.2e}", ""),
    ("Effective dimension of the values", "effective_dimension", "{:.2f}", ""),
    ("Entanglement (Meyer–Wallach)", "meyer_wallach", "{:.3f}", ""),
    ("Expressibility over the data", "expressibility", "{:.3f}", ""),
    ("Expressibility over weights", "expressibility_random_weights", "{:.3f}", ""),
)
_NOTHING: dict[str, float | None] = {"mean": None, "sd": None}  # of a kind without cells
#: Settings that differ between cells, or that a comparison does not use.
_NOT_SHOWN = frozenset(
    {"heads", "n_inner", "seed", "out", "baseline", "trackers", "profile", "threads"}
    | {"sample_prompt", "sample_tokens", "temperature", "top_k"}
)
_ABOUT_VERDICTS = (
    "Differences are paired by seed. The interval is a bootstrap interval; p is from a permutation test, with Holm's"
    " correction over {family}. A loss counts as lower or higher only if the corrected p is at most 0.05 and the"
    " interval excludes zero. {better}Timings do not affect verdicts."
)
_ABOUT_BETTER = (
    "A circuit is called better only if its loss is lower than the reference's and lower than that of its dequantised"
    " control, a classical kind of the same form. "
)
_ABOUT_LAST = (
    "At the last position of a window there are no later tokens, so the loss there is not affected by leakage. Error"
    " rates are of the most likely next character after each true one."
)
_ABOUT_CIRCUITS = (
    "Means over layers, heads and seeds, of the trained models except for the gradient variance. Gradient variance: of"
    " the expectations over random circuit weights (it vanishes on a barren plateau). Effective dimension: the number"
    " of directions over which a head's values spread. Meyer–Wallach: between 0 for product states and 1."
    " Expressibility: the divergence from Haar-random states of the states that the trained circuit prepares from the"
    " data and, as defined for an ansatz, of the states at random weights; lower is closer to random."
)
_ABOUT_CAUSALITY = (
    "In each model a later token is edited, and earlier outputs are differentiated with respect to the embeddings of"
    " later tokens; both must give exactly zero. The trained weights are checked on the exact engine, wherever they"
    " were trained."
)


def write_report(
    study: Study, failed: Mapping[Cell, str], verdicts: Verdicts | None = None, *, together: int = 0
) -> dict[str, Any]:
    """Collect the report of a study, write it into the study's folder, and return it.

    Args:
        study: The study; the report omits cells that are not done.
        failed: The reasons of cells that failed.
        verdicts: As for :func:`~qiskit_qattn.evaluation.comparison.summary.summarise`.
        together: The number of comparisons over all tasks and splits, if the study is a part of such a comparison.

    Raises:
        RunFolderError: If it cannot be written.
        CheckpointError: If a record is damaged.
    """
    report = collect_report(study, failed, verdicts, together=together)
    folder = study.folder
    write_json(folder / "report.json", report)
    rows = [_flat(cell) for cell in report["cells"]]
    write_text(folder / "cells.csv", csv_text(list(dict.fromkeys(name for row in rows for name in row)), rows))
    write_figures(folder, figures(report))
    write_document(folder, render_markdown(report))
    return report


def collect_report(
    study: Study, failed: Mapping[Cell, str], verdicts: Verdicts | None = None, *, together: int = 0
) -> dict[str, Any]:
    """Return the report of a study as plain values; arguments as for :func:`write_report`."""
    found = records(study)
    comparisons = judged_alone(study, found) if verdicts is None else verdicts
    return {
        "format": FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "complete": len(found) == len(study.cells()),
        "study": study.to_dict(),
        "kinds": summarise(study, found, comparisons),
        "comparisons": {"own": len(comparisons), "together": together, "corrected_together": verdicts is not None},
        "search": {k: {f"{rate:g}": finite(v) for rate, v in by.items()} for k, by in searched(study).items()},
        "failed": {cell.name: reason for cell, reason in failed.items()},
        "cells": list(found.values()),
        "command": study.command(),
        "versions": versions(),
        "machine": machine(),
    }


def _flat(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers of a cell's record; those of a group are prefixed with its name."""
    row: dict[str, Any] = {}
    for name, value in cell.items():
        if isinstance(value, dict) and name != "history":
            row |= {f"{name}_{part}": item for part, item in value.items() if not isinstance(item, dict | list)}
        elif not isinstance(value, dict | list) and name not in ("format", "version"):
            row[name] = value
    return row


def render_markdown(report: dict[str, Any]) -> str:
    """Return the report as one Markdown document."""
    study, kinds = report["study"], report["kinds"]
    config, reference, build = study["config"], study["reference"], study.get("build", "")
    means = "Mean ± standard deviation over seeds." if len(study["seeds"]) > 1 else ""
    if build:
        title, quality, cost, width = f"Comparison with {escaped(reference)}", means, COST_OF_EXAMPLES, "Width"
        size = "The width is chosen to match the reference, for which the function chooses it."
        if not any(found["size"]["n_inner"] for found in kinds.values()):
            size = "The function takes no width, so models have the size that it gives them."
    else:
        title = f"Comparison with {escaped(reference)} heads on {code(config['data'])}"
        quality, cost, width = f"{means} {_ABOUT_LAST}".strip(), COST, "n_inner"
        size = "The hidden width of the MLP, n_inner, is chosen to match the reference; everything else is equal."
    parts = [
        f"# {title}",
        _introduction(report),
        *_missing(report),
        "## Verdicts",
        "\n".join(f"- {escaped(found['sentence'])}" for found in kinds.values() if found["sentence"]),
        verdict_table(kinds, reference),
        _ABOUT_VERDICTS.format(
            family=_family(report["comparisons"], custom=is_custom(build)),
            better="" if is_custom(build) else _ABOUT_BETTER,
        ),
        _growth(study),
        "![Paired differences from the reference](differences.png)",
        "## Quality",
        _means((*QUALITY, *_metrics(kinds)), kinds),
        quality,
        "![Losses over steps](losses.png)",
        *search_section(report),
        "## Size",
        _sizes(kinds, reference, width),
        f"{size} Fixed: random values that are drawn once and are not parameters.",
        "## Cost",
        _means(cost, kinds),
        f"Means over seeds, on {counted(config['threads'], 'CPU thread')} per model. Other load on the machine, such as"
        " models trained at the same time, affects these figures.",
        "![Loss against training time](cost.png)",
        *(["## Circuits", _means(CIRCUITS, kinds), _ABOUT_CIRCUITS] if _has_circuits(report) else []),
        *([] if build and not study["text"] else ["## Causality", _causality(report), _ABOUT_CAUSALITY]),
        "## Settings",
        pairs({"build": build, **{name: value for name, value in config.items() if name not in _hidden(study)}}),
        "## Versions and machine",
        pairs({name: v for name, v in {**report["versions"], **report["machine"]}.items() if name not in _NOT_SHOWN}),
        *_made_by(report),
        "## Reproduce",
        block(report["command"], "sh"),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _introduction(report: dict[str, Any]) -> str:
    """Return in words what was compared, and on what terms."""
    study, kinds = report["study"], report["kinds"]
    config, build = study["config"], study.get("build", "")
    batch = f"{config['batch_size']} × {config['block_size']} tokens"
    models = f"{counted(config['n_layer'], 'layer')} of {counted(config['n_head'], 'head')} of one kind or mix"
    losses = "mean cross-entropies in nats per token over the validation split"
    if build:
        models = f"models that {code(build)} builds"
        losses = "means over the validation data"
        batch = batch if study["text"] else f"{counted(config['batch_size'], 'example')}"
    if build and study["text"]:
        models += f" on {code(config['data'])}"
    return (
        f"{counted(len(study['seeds']), 'seed')} per kind; {counted(config['max_steps'], 'step')} of {batch}; "
        f"{models}. Models"
        " with the same seed see the same batches in the same order under the same schedule. All models have the same"
        f" number of parameters within 1%{_unmatched(kinds)}. Losses are {losses}."
    )


def _family(comparisons: Mapping[str, Any], *, custom: bool) -> str:
    """Return in words what the p-values of a study are corrected over."""
    whole, alone = (counted(comparisons[name], "comparison") for name in ("together", "own"))
    if comparisons["corrected_together"]:
        return f"{whole} of all tasks of which this study is one"
    if comparisons["together"]:
        return f"{alone} of this split alone; the report of the whole comparison has the verdicts over all splits"
    return f"{alone}: of kinds with the reference{'' if custom else ', and of circuits with their controls'}"


def _growth(study: Mapping[str, Any]) -> str:
    """Return what was added to the study when some of its cells were done; empty if nothing was."""
    if not study.get("first_kinds"):
        return ""
    kinds, seeds = study["first_kinds"], study["first_seeds"]
    return (
        f"**Extended:** at first the study had the kinds {', '.join(map(code, kinds))} and the seeds {seeds[0]} to"
        f" {seeds[-1]}; the others were added when some of its cells were done. p-values and intervals do not account"
        " for a choice to add seeds that depends on earlier results."
    )


def _hidden(study: Mapping[str, Any]) -> frozenset[str]:
    """Return the settings that the report leaves out."""
    if not study.get("build"):
        return _NOT_SHOWN
    used = {"block_size", "data"} if study["text"] else set()
    if study["config"]["backend"] != TrainConfig.backend:
        used.add("backend")
    return _NOT_SHOWN | ({*MODEL_SETTINGS, "data", "backend", "val_windows"} - used)


def _has_circuits(report: Mapping[str, Any]) -> bool:
    return not report["study"].get("build") or any(cell["circuits"] for cell in report["cells"])


def _metrics(kinds: Mapping[str, Any]) -> Columns:
    """Return the columns of the metrics of custom models."""
    names = dict.fromkeys(name for found in kinds.values() for name in found["figures"] if name.startswith(METRIC))
    return tuple((escaped(name.removeprefix(METRIC)), name, "{:.4f}", "{:.4f}") for name in names)


def _made_by(report: dict[str, Any]) -> list[str]:
    """Return which cells were made by which versions, if they were not all made by those of the report."""
    made: dict[str, list[str]] = {}
    for cell in report["cells"]:
        words = _made_words(cell.get("versions"), cell.get("source"))
        made.setdefault(words, []).append(Cell(cell["seed"], cell["kind"]).name)
    if len(made) < 2 and all(cell.get("versions") == report["versions"] for cell in report["cells"]):
        return []
    rows = [[escaped(words), ", ".join(map(code, names))] for words, names in made.items()]
    about = "Not all cells were made by these versions, so they may differ in more than their kind and seed."
    if len(made) < 2:
        about = "The cells were made by other versions than this report."
    elif all(cell.get("versions") == report["versions"] for cell in report["cells"]):
        about = "The file of the function changed between cells, so they may differ in more than their kind and seed."
    return [about, table(["Made by", "Cells"], rows)]


def _made_words(found: Mapping[str, str | None] | None, source: str | None) -> str:
    words = "unknown versions" if found is None else ", ".join(f"{name} {v}" for name, v in found.items() if v)
    return f"{words}, function {source[:12]}" if source else words


def _unmatched(kinds: dict[str, Any]) -> str:
    names = [kind for kind, found in kinds.items() if not found["size"]["matched"]]
    return f", except {', '.join(names)}" if names else ""


def _missing(report: dict[str, Any]) -> list[str]:
    """Return what is missing in an incomplete report, and why."""
    if report["complete"]:
        return []
    total = len(report["study"]["kinds"]) * len(report["study"]["seeds"])
    done = (
        f"**Incomplete:** {len(report['cells'])} of {counted(total, 'cell')} are done."
        " The command at the end runs the others."
    )
    failed = [f"- {escaped(name)} failed: {escaped(reason)}" for name, reason in report["failed"].items()]
    return [done, *(["\n".join(failed)] if failed else [])]


def _means(columns: Columns, kinds: dict[str, Any]) -> str:
    """Return a table of means over seeds, and of standard deviations in columns that have a format for them."""
    figures = {kind: found["figures"] for kind, found in kinds.items()}
    present = [c for c in columns if any(found.get(c[1], {}).get("mean") is not None for found in figures.values())]
    rows = [
        [code(kind), *(_mean(found.get(c[1], _NOTHING), *c[2:]) for c in present)] for kind, found in figures.items()
    ]
    return table(["Kind", *(title for title, *_ in present)], rows)


def _mean(figure: dict[str, float | None], form: str, spread_form: str) -> str:
    text, spread = number(figure["mean"], form), figure["sd"]
    return f"{text} ± {spread_form.format(spread)}" if spread_form and spread is not None else text


def _sizes(kinds: dict[str, Any], reference: str, width: str) -> str:
    head = [
        *("Kind", "Parameters", f"Compared with {reference}", "Trainable", "Circuit angles", "Fixed", width),
        "Qubits",
    ]
    rows = []
    for kind, found in kinds.items():
        size = found["size"]
        counts = [f"{size[name]:,}" for name in ("trainable", "circuit", "fixed")]
        off = f"{size['deviation']:+.2%}" + ("" if size["matched"] else " (**not matched**)")
        sizes = [str(size[name] or "–") for name in ("n_inner", "num_qubits")]
        rows.append([code(kind), f"{size['total']:,}", off, *counts, *sizes])
    return table(head, rows)


def _causality(report: dict[str, Any]) -> str:
    rows = []
    for kind, found in report["kinds"].items():
        certificates = [cell["causality"] for cell in report["cells"] if cell["kind"] == kind and cell["causality"]]
        done, leaks = len(found["seeds"]), len(found["leaks"])
        passed = f"{done - leaks} of {done} models pass" + (": **not ranked**" if leaks else "")
        rows.append([code(kind), passed, _worst(certificates, "leakage"), _worst(certificates, "gradient")])
    return table(["Kind", "Certificate", "Largest change by an edit", "Largest derivative"], rows)


def _worst(certificates: Sequence[Mapping[str, Any]], name: str) -> str:
    values = [certificate[name] for certificate in certificates if certificate[name] is not None]
    return number(max(values, default=None), "{:.1e}")
