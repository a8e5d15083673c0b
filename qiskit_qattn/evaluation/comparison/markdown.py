"""A study's report as Markdown for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qiskit_qattn.evaluation.report_markdown import pairs, table

Figures = dict[str, dict[str, float | None]]
#: The tables of figures: columns with a figure's name, how its mean is printed, and how its spread, where it is.
QUALITY = (
    ("Validation loss", "val_loss", "{:.4f}", "{:.4f}"),
    ("Loss, last position", "val_loss_last_position", "{:.4f}", "{:.4f}"),
    ("Training loss", "train_loss", "{:.4f}", ""),
    ("Character errors", "character_error_rate", "{:.1%}", ""),
    ("Word errors", "word_error_rate", "{:.1%}", ""),
)
COST = (
    ("Training tokens/s", "tokens_per_second", "{:,.0f}", ""),
    ("Training, s", "train_seconds", "{:,.0f}", ""),
    ("Wall, s", "wall_seconds", "{:,.0f}", ""),
    ("CPU, s", "cpu_seconds", "{:,.0f}", ""),
    ("QPU, s", "qpu_seconds", "{:,.1f}", ""),
    ("Peak memory (RSS), MiB", "peak_rss_mib", "{:,.0f}", ""),
)
CIRCUITS = (
    ("Gradient variance at the start", "gradient_variance", "{:.2e}", ""),
    ("Effective dimension of the values", "effective_dimension", "{:.2f}", ""),
    ("Entanglement (Meyer–Wallach)", "meyer_wallach", "{:.3f}", ""),
    ("Expressibility over the data", "expressibility", "{:.3f}", ""),
    ("Expressibility over weights", "expressibility_random_weights", "{:.3f}", ""),
)
#: Settings that are a cell's own, or that a comparison has no use for.
_NOT_SHOWN = frozenset(
    {"heads", "n_inner", "seed", "out", "baseline", "trackers", "profile", "threads"}
    | {"sample_prompt", "sample_tokens", "temperature", "top_k"}
)
_ABOUT_CIRCUITS = (
    "Means over layers, heads and seeds; all but the first are of the trained models. Gradient variance: of the"
    " expectations over random circuit weights (it vanishes on a barren plateau). Effective dimension: over how many"
    " directions a head's values spread. Meyer–Wallach: 0 for product states, 1 at most. Expressibility: the divergence"
    " from random states of the states that the trained circuit makes of the data, and, as it is defined for an ansatz,"
    " of those at random weights; lower is closer to random."
)


def render_markdown(report: dict[str, Any]) -> str:
    """Return the report as one Markdown document."""
    study, kinds = report["study"], report["kinds"]
    config, reference = study["config"], study["reference"]
    figures = {kind: found["figures"] for kind, found in kinds.items()}
    seeds = len(study["seeds"])
    parts = [
        f"# Comparison with {reference} heads on {config['data']}",
        f"{seeds} seed{'s' if seeds > 1 else ''} of each kind, {config['max_steps']:,} steps of"
        f" {config['batch_size']} × {config['block_size']} tokens, {config['n_layer']} layers of {config['n_head']}"
        f" head{'s' if config['n_head'] > 1 else ''} of one kind."
        " Models of one seed see the same batches in the same order under the same schedule, and all have the same"
        f" number of parameters within 1%{_unmatched(kinds)}. Losses are mean cross-entropies in nats a token over the"
        " validation split.",
        *_missing(report),
        "## Verdicts",
        "\n".join(f"- {found['sentence']}" for found in kinds.values() if found["sentence"]),
        _verdicts(kinds, reference),
        "Differences are paired by seed; the interval is a bootstrap's, p is of a permutation test with Holm's"
        " correction over kinds. A kind is called better or worse only where the corrected p is at most 0.05 and the"
        " interval excludes zero. Timings enter no verdict.",
        "![Paired differences from the reference](differences.png)",
        "## Quality",
        _figures(QUALITY, figures),
        _spread_note(seeds),
        "![Losses over steps](losses.png)",
        "## Size",
        _sizes(kinds, reference),
        "The width of the MLP is solved for; everything else is alike. Fixed: random values that are drawn once and are"
        " no parameters.",
        "## Cost",
        _figures(COST, figures),
        f"Means over seeds, on {config['threads']} CPU thread{'s' if config['threads'] > 1 else ''} a model, beside"
        " whatever else the machine did: several models may have been trained at a time.",
        "![Loss against training time](cost.png)",
        "## Circuits",
        _figures(CIRCUITS, figures),
        _ABOUT_CIRCUITS,
        "## Causality",
        _causality(report),
        "In each model a later token is edited, and earlier outputs are differentiated by later tokens' embeddings;"
        " both must be exactly zero. The trained weights are examined on the exact engine, wherever they were trained.",
        "## Settings",
        pairs({name: value for name, value in config.items() if name not in _NOT_SHOWN}),
        "## Versions and machine",
        pairs({name: v for name, v in {**report["versions"], **report["machine"]}.items() if name not in _NOT_SHOWN}),
        "## Again",
        f"```sh\n{report['command']}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _unmatched(kinds: dict[str, Any]) -> str:
    names = [kind for kind, found in kinds.items() if not found["size"]["matched"]]
    return f", except {', '.join(names)}" if names else ""


def _missing(report: dict[str, Any]) -> list[str]:
    """Return what is said of cells that are not done."""
    if report["complete"]:
        return []
    total = len(report["study"]["seeds"]) * len(report["kinds"])
    done = f"**Incomplete:** {len(report['cells'])} of {total} cells are done. The command at the end goes on."
    failed = [f"- {name} failed: {reason}" for name, reason in report["failed"].items()]
    return [done, *(["\n".join(failed)] if failed else [])]


def _verdicts(kinds: dict[str, Any], reference: str) -> str:
    head = ["Kind", "Verdict", "Difference", "95% interval", "p (Holm)", "Effect size", "Seeds needed to see"]
    rows = []
    for kind, found in kinds.items():
        verdict = found["comparison"]
        if kind == reference:
            continue
        if verdict is None:
            rows.append([f"`{kind}`", "withheld", *["–"] * 5])
            continue
        needed = verdict["seeds_needed"]
        rows.append(
            [
                f"`{kind}`",
                f"**{verdict['verdict']}**",
                _number(verdict["mean_difference"], "{:+.4f}"),
                " to ".join(f"{end:+.4f}" for end in verdict["interval"]) if verdict["interval"] else "–",
                _number(verdict["adjusted_p"], "{:.3g}"),
                _number(verdict["effect_size"], "{:+.2f}"),
                f"{verdict['difference']:g}: {needed:,}" if needed else "–",
            ]
        )
    return table(head, rows)


def _figures(columns: Sequence[tuple[str, str, str, str]], figures: dict[str, Figures]) -> str:
    """Return a table of means over seeds, with standard deviations where a column has a form for them."""
    present = [c for c in columns if any(found.get(c[1], {}).get("mean") is not None for found in figures.values())]
    rows = [[f"`{kind}`", *(_mean(found, *column[1:]) for column in present)] for kind, found in figures.items()]
    return table(["Kind", *(title for title, *_ in present)], rows)


def _mean(found: Figures, name: str, form: str, spread_form: str) -> str:
    mean, spread = found[name]["mean"], found[name]["sd"]
    text = _number(mean, form)
    return f"{text} ± {spread_form.format(spread)}" if spread_form and spread is not None else text


def _spread_note(seeds: int) -> str:
    spread = "Mean ± standard deviation over seeds. " if seeds > 1 else ""
    return (
        f"{spread}At the last position of a window a model has no future to read. Error rates are of the likeliest next"
        " character after each true one."
    )


def _sizes(kinds: dict[str, Any], reference: str) -> str:
    head = ["Kind", "Parameters", f"Against {reference}", "Trainable", "Circuit angles", "Fixed", "n_inner", "Qubits"]
    rows = []
    for kind, found in kinds.items():
        size = found["size"]
        counts = [f"{size[name]:,}" for name in ("trainable", "circuit", "fixed")]
        off = f"{size['deviation']:+.2%}" + ("" if size["matched"] else " (**not matched**)")
        rows.append(
            [f"`{kind}`", f"{size['total']:,}", off, *counts, str(size["n_inner"]), str(size["num_qubits"] or "–")]
        )
    return table(head, rows)


def _causality(report: dict[str, Any]) -> str:
    rows = []
    for kind, found in report["kinds"].items():
        certificates = [cell["causality"] for cell in report["cells"] if cell["kind"] == kind]
        done, leaks = len(found["seeds"]), len(found["leaks"])
        passed = f"{done - leaks} of {done} models pass" + (": **not ranked**" if leaks else "")
        rows.append([f"`{kind}`", passed, _worst(certificates, "leakage"), _worst(certificates, "gradient")])
    return table(["Kind", "Certificate", "Largest change by an edit", "Largest derivative"], rows)


def _worst(certificates: list[dict[str, Any]], name: str) -> str:
    found = [certificate[name] for certificate in certificates if certificate[name] is not None]
    return f"{max(found):.1e}" if found else "–"


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)
