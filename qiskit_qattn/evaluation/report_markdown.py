"""A report as Markdown for people."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: The side-by-side table: what a row is called, its value in a model's figures, and how it is printed.
ROWS: tuple[tuple[str, Callable[[dict[str, Any]], Any], str], ...] = (
    ("Validation loss", lambda m: m["val_loss"], "{:.4f}"),
    ("Validation loss, last position", lambda m: m["val_loss_last_position"], "{:.4f}"),
    ("Training loss", lambda m: m["train_loss"], "{:.4f}"),
    ("Quantum parameters", lambda m: m["parameters"]["quantum"], "{:,}"),
    ("Classical parameters", lambda m: m["parameters"]["classical"], "{:,}"),
    ("Training tokens/s", lambda m: m["tokens_per_second"], "{:,.0f}"),
    ("Wall time, s", lambda m: m["wall_seconds"], "{:,.1f}"),
    ("CPU time, s", lambda m: m["cpu_seconds"], "{:,.1f}"),
    ("Peak memory (RSS), MiB", lambda m: m["peak_rss_mib"], "{:,.0f}"),
    ("Peak GPU memory, MiB", lambda m: m["peak_gpu_mib"], "{:,.0f}"),
    ("Causality: largest change by a later token", lambda m: m["leakage"], "{:.1e}"),
)

ONE_SEED = (
    "One seed of each. How much runs differ that differ in nothing but the seed was not measured, so no claim about the"
    " heads follows from this table; `qattn compare` measures it."
)


def render_markdown(report: dict[str, Any]) -> str:
    """Return the report as one Markdown document."""
    model, twin = report["model"], report["baseline"]
    parts = [
        f"# Run report: {heads_text(model['heads'])}",
        f"{model['step']:,} steps on `{report['config']['data']}`, {report['created']}, device `{model['device']}`.",
        "Losses are mean cross-entropies in nats a token. The validation losses are of the saved model over the"
        " validation split in non-overlapping windows; at the last position of a window a model has no future to read.",
        _side_by_side(model, twin),
        *([] if twin is None else [ONE_SEED]),
        "![Training and validation loss](loss.png)",
        "## Samples",
        _sample("Model", report["prompt"], model["sample"]),
    ]
    if twin is not None:
        parts.append(_sample("All-classical baseline", report["prompt"], twin["sample"]))
        parts.append(_differences(report["text_differences"]))
    parts += ["## Where the heads ran", _backends(model), *_audits(model)]
    for title, figures in (("model", model), ("baseline", twin)):
        if figures is not None and figures["profile"]:
            parts += [f"## Hottest functions: {title}", _profile(figures["profile"])]
    parts += ["## Settings", pairs(report["config"])]
    parts += ["## Versions and machine", pairs({**report["versions"], **report["machine"]})]
    return "\n\n".join(parts) + "\n"


def heads_text(heads: str | list[str]) -> str:
    """Return a model's heads in one phrase."""
    return heads if isinstance(heads, str) else " | ".join(heads)


def _side_by_side(model: dict[str, Any], twin: dict[str, Any] | None) -> str:
    columns = [model] if twin is None else [model, twin]
    titles = ["Model", "All-classical baseline"][: len(columns)]
    rows = [
        [label, *(form.format(value(m)) for m in columns)]
        for label, value, form in ROWS
        if all(value(m) is not None for m in columns)
    ]
    return table(["", *titles], [["Heads", *(f"`{heads_text(m['heads'])}`" for m in columns)], *rows])


def _sample(title: str, prompt: str, text: str) -> str:
    fence = "```"
    while fence in prompt + text:
        fence += "`"
    return f"### {title}\n\n{fence}text\n{prompt}{text}\n{fence}"


def _differences(found: dict[str, float]) -> str:
    rows = [
        ["Hamming distance", f"{found['hamming']} of {found['length']} characters"],
        ["Agreement ratio", f"{found['agreement']:.3f}"],
        ["Jaccard similarity of words", f"{found['jaccard']:.3f}"],
        ["Levenshtein distance", f"{found['levenshtein']}"],
    ]
    return "The two samples, of the same prompt and seed, compared:\n\n" + table(["Measure", "Value"], rows)


def _backends(model: dict[str, Any]) -> str:
    rows = [[str(h["layer"]), str(h["head"]), f"`{h['kind']}`", f"`{h['backend']}`"] for h in model["head_backends"]]
    return table(["Layer", "Head", "Kind", "Backend"], rows)


def _audits(model: dict[str, Any]) -> list[str]:
    """Return what a chain of backends computed where, and what fell; nothing for a model on one backend."""
    parts = []
    for key, what in (("audit", "training and validation"), ("report_audit", "the sample and the causality check")):
        audit = model.get(key)
        if audit is None:
            continue
        names = dict.fromkeys([*audit["calls"], *audit["gradients"]])
        rows = [[f"`{n}`", *(f"{audit[kind].get(n, 0):,}" for kind in ("calls", "gradients"))] for n in names]
        since = f", from step {audit['from_step']} on" if audit.get("from_step") else ""
        parts.append(f"Calls of the circuits that each backend computed, of {what}{since}:")
        parts.append(table(["Backend", "Values", "Gradients"], rows))
        if audit["falls"]:
            parts += [f"What failed and went elsewhere, of {what}:", _falls(audit["falls"])]
    return parts


def _falls(falls: list[dict[str, Any]]) -> str:
    """Return a table with one row for each head, pass and link."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for fall in falls:
        key = (str(fall["layer"]), f"`{fall['kind']}`", fall["during"], f"`{fall['link']}`", f"`{fall['to']}`")
        groups.setdefault(key, []).append(fall)
    rows = [[*key, f"{len(found):,}", f"{found[0]['call']:,}", found[0]["reason"]] for key, found in groups.items()]
    return table(["Layer", "Kind", "Pass", "Failed", "Went to", "Times", "First call", "Its reason"], rows)


def _profile(found: list[dict[str, Any]]) -> str:
    rows = [[f"`{f['name']}`", f"{f['calls']:,}", f"{f['self_ms']:,.1f}", f"{f['share']:.1%}"] for f in found]
    return table(["Function", "Calls", "Own time, ms", "Share"], rows)


def pairs(values: dict[str, Any]) -> str:
    """Return names and values as a table; what is None or empty is left out."""
    return table(["", ""], [[name, f"`{value}`"] for name, value in values.items() if value not in (None, "")])


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""

    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(head), line(["---"] * len(head)), *(line(row) for row in rows)])
