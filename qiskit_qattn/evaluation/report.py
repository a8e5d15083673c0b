"""The report of a training run: ``report.json``, ``report.md`` and ``loss.png`` in the run's folder."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict

from qiskit_qattn.backends.place import Place
from qiskit_qattn.errors import CheckpointError, RunFolderError, counted
from qiskit_qattn.evaluation.drawing import write_figures
from qiskit_qattn.evaluation.latex import write_document
from qiskit_qattn.evaluation.leakage import leakage
from qiskit_qattn.evaluation.loss_figure import loss_figure
from qiskit_qattn.evaluation.profile_report import Profile, profile_markdown, read_profile, render_profile
from qiskit_qattn.evaluation.rendering import (
    block,
    code,
    escaped,
    heads_text,
    machine,
    pairs,
    table,
    versions,
    write_json,
)
from qiskit_qattn.evaluation.text_metrics import TextDifference, text_difference
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.training.audits import AuditRecord
from qiskit_qattn.training.config import TrainConfig
from qiskit_qattn.training.metrics import Figures, read_metrics
from qiskit_qattn.training.profiling import FOLDER as PROFILE
from qiskit_qattn.training.run import saved_config
from qiskit_qattn.training.tokenizer import CharTokenizer
from qiskit_qattn.untrusted import as_type, one_line, read_json

FORMAT = "qiskit-qattn/report"
#: The commands that write the reports of other formats.
OTHERS = {
    "qiskit-qattn/comparison": "qattn compare",
    "qiskit-qattn/suite": "qattn compare --tasks",
    "qiskit-qattn/noise-sweep": "qattn noise-sweep",
    "qiskit-qattn/finetune-report": "qattn finetune",
    "qiskit-qattn/device-run": "qattn run-on-device",
    "qiskit-qattn/reproduction": "qattn reproduce",
}
#: The side-by-side table: the label of a row, its value in a model's figures, and its format.
ROWS: tuple[tuple[str, Callable[[dict[str, Any]], Any], str], ...] = (
    ("Validation loss", lambda m: m["val_loss"], "{:.4f}"),
    ("Validation loss, last position", lambda m: m["val_loss_last_position"], "{:.4f}"),
    ("Training loss", lambda m: m["train_loss"], "{:.4f}"),
    ("Quantum parameters", lambda m: m["parameters"]["quantum"], "{:,}"),
    ("Classical parameters", lambda m: m["parameters"]["classical"], "{:,}"),
    ("Training tokens/s", lambda m: m["tokens_per_second"] or None, "{:,.0f}"),  # the first steps are not timed
    ("Wall time, s", lambda m: m["wall_seconds"], "{:,.1f}"),
    ("CPU time, s", lambda m: m["cpu_seconds"], "{:,.1f}"),
    ("Peak memory (RSS), MiB", lambda m: m["peak_rss_mib"], "{:,.0f}"),
    ("Peak GPU memory, MiB", lambda m: m["peak_gpu_mib"], "{:,.0f}"),
    ("Causality: largest change by a later token", lambda m: m["leakage"], "{:.1e}"),
)
ONE_SEED = (
    "One seed of each: the variation between seeds was not measured, so neither the table nor the picture supports a"
    " claim about the heads."
    " `qattn compare` measures it."
)


class _ReportAudit(TypedDict, total=False):
    report_audit: AuditRecord
    profile_of_steps: Profile


class Examined(Figures, _ReportAudit):
    """The figures of a model, and what the report found out about it."""

    sample: str
    leakage: float
    device: str


class Report(TypedDict):
    """The content of ``report.json``."""

    val_loss: float
    created: str
    config: dict[str, Any]
    versions: dict[str, Any]
    machine: dict[str, Any]
    prompt: str
    model: Examined
    baseline: Examined | None
    text_differences: dict[str, Any] | None


def write_report(folder: Path, backend: Place | None = None) -> dict[str, Any]:
    """Collect the report of a finished run, write it into the run folder, and return it.

    Args:
        folder: The run folder.
        backend: As for :func:`collect_report`.

    Raises:
        BackendError: If the backend fails.
        RunFolderError: If the run has not finished, or the folder cannot be written.
    """
    report = collect_report(folder, backend)
    write_json(folder / "report.json", report)
    render_report(folder, report)
    return report


def render_report(folder: Path, report: dict[str, Any]) -> None:
    """Write ``report.md`` and ``loss.png`` of a report into ``folder``, and its figures and tables for a paper.

    Raises:
        RunFolderError: If they cannot be written.
    """
    write_figures(folder, {"loss": loss_figure(report)})
    for name in ("model", "baseline"):
        if profile := (report[name] or {}).get("profile_of_steps"):
            render_profile(folder if name == "model" else folder / name, profile)
    write_document(folder, render_markdown(report))


def read_report(folder: Path) -> dict[str, Any]:
    """Return the ``report.json`` in ``folder``.

    Raises:
        RunFolderError: If there is none.
        CheckpointError: If it is damaged, or not a report of a training run.
    """
    path = folder / "report.json"
    try:
        report = read_json(path)
        other = OTHERS.get(str(report.get("format"))) if isinstance(report, dict) else None
        if other is not None:
            again = f": {one_line(report['command'])}" if isinstance(report.get("command"), str) else ""
            raise CheckpointError(f"{str(path)!r} is of {other}; the same command as before writes it again{again}")
        if not isinstance(report, dict) or report.get("format") != FORMAT:
            raise CheckpointError(f"{str(path)!r} is not a report of a qiskit-qattn training run.")
        found: Report = as_type(report, Report)
        as_type(found["config"].get("data"), str, "config.data")
        as_type(found["text_differences"], TextDifference | None, "text_differences")
        if (found["baseline"] is None) != (found["text_differences"] is None):
            raise ValueError("baseline and text_differences must be there both, or neither")
    except OSError as error:
        raise RunFolderError(f"{str(folder)!r} has no report to read: {error.strerror}.") from error
    except ValueError as error:
        raise CheckpointError(f"The report {str(path)!r} is damaged: {error}.") from error
    return dict(found)


def collect_report(folder: Path, backend: Place | None = None) -> dict[str, Any]:
    """Return the report of a finished run: its figures, and samples and causality of its saved models.

    Args:
        folder: The run folder, with ``metrics.json`` and ``model`` in it.
        backend: The run's backend, already open; None opens it.

    Raises:
        BackendError: If the backend fails.
        RunFolderError: If the run has not finished.
    """
    config = saved_config(folder)
    model = read_metrics(folder)
    if model is None:
        raise RunFolderError(f"The run in {str(folder)!r} has not finished; continue it with --resume.")
    baseline = read_metrics(folder / "baseline") if config.baseline else None
    prompt = model.pop("prompt")
    place = Place.open(config.backend) if backend is None else backend
    with place if backend is None else nullcontext():
        model |= _examine(folder, config, prompt, place)
        differences = None
        if baseline is not None:
            baseline.pop("prompt")
            baseline |= _examine(folder / "baseline", config, prompt, place)
            differences = text_difference(model["sample"], baseline["sample"]).to_dict()
    return {
        "format": FORMAT,
        "val_loss": model["val_loss"],
        "val_loss_last_position": model["val_loss_last_position"],
        "train_loss": model["train_loss"],
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": config.to_dict(),
        "versions": versions(),
        "machine": machine(),
        "prompt": prompt,
        "model": model,
        "baseline": baseline,
        "text_differences": differences,
    }


def _examine(folder: Path, config: TrainConfig, prompt: str, place: Place) -> dict[str, Any]:
    """Load the saved model of ``folder`` as users do, and return a sample of its text, its causality and its profile.

    Two passes over sampled values never agree, so there causality is checked on the exact engine.
    """
    model = GPT.from_pretrained(folder / "model")
    model.to_backend(place)
    tokenizer = CharTokenizer.load(folder / "model" / "tokenizer.json")
    ids = tokenizer.encode(prompt)[None]  # (1, P)
    out = model.generate(
        ids, config.sample_tokens, temperature=config.temperature, top_k=config.top_k or None, seed=config.seed
    )  # (1, P + N)
    sampled = place.samples
    found = leakage(GPT.from_pretrained(folder / "model") if sampled else model)
    audit = model.audit()
    return {
        **({"report_audit": audit} if audit else {}),
        **({"profile_of_steps": profile} if config.profile and (profile := read_profile(folder)) else {}),
        "sample": tokenizer.decode(out[0, ids.shape[1] :]),
        "leakage": float(found),
        "leakage_edits": found.edits,
        **({"leakage_backend": "statevector"} if sampled else {}),
    }


def render_markdown(report: dict[str, Any]) -> str:
    """Return the report as one Markdown document."""
    model, baseline = report["model"], report["baseline"]
    parts = [
        f"# Run report: {escaped(heads_text(model['heads']))}",
        f"{counted(model['step'], 'step')} on {code(report['config']['data'])}, {escaped(report['created'])}, device"
        f" {code(model['device'])}.",
        "Losses are mean cross-entropies in nats per token. Validation losses are those of the saved model over the"
        " validation split, in non-overlapping windows. At the last position of a window there are no later tokens, so"
        " the loss there is not affected by leakage.",
        _side_by_side(model, baseline),
        "![Training and validation loss](loss.png)",
        *([] if baseline is None else [ONE_SEED]),
        "## Samples",
        _sample("Model", report["prompt"], model["sample"]),
    ]
    if baseline is not None:
        parts.append(_sample("All-classical baseline", report["prompt"], baseline["sample"]))
        parts.append(_differences(report["text_differences"]))
    parts += ["## Where the heads ran", _backends(model), *_audits(model)]
    for title, prefix in (("model", ""), ("baseline", "baseline/")):
        if profile := (report[title] or {}).get("profile_of_steps"):
            parts += [f"## Time and memory: {title}", *profile_markdown(profile, f"{prefix}{PROFILE}/")]
    parts += ["## Settings", pairs(report["config"])]
    parts += ["## Versions and machine", pairs({**report["versions"], **report["machine"]})]
    return "\n\n".join(parts) + "\n"


def _side_by_side(model: dict[str, Any], baseline: dict[str, Any] | None) -> str:
    columns = [model] if baseline is None else [model, baseline]
    titles = ["Model", "All-classical baseline"][: len(columns)]
    rows = [
        [label, *(form.format(value(m)) for m in columns)]
        for label, value, form in ROWS
        if all(value(m) is not None for m in columns)
    ]
    return table(["", *titles], [["Heads", *(code(heads_text(m["heads"])) for m in columns)], *rows])


def _sample(title: str, prompt: str, text: str) -> str:
    return f"### {title}\n\n{block(prompt + text, 'text')}"


def _differences(found: dict[str, float]) -> str:
    rows = [
        ["Hamming distance", f"{found['hamming']} of {counted(found['length'], 'character')}"],
        ["Agreement ratio", f"{found['agreement']:.3f}"],
        ["Jaccard similarity of words", f"{found['jaccard']:.3f}"],
        ["Levenshtein distance", f"{found['levenshtein']}"],
    ]
    title = "Comparison of the two samples, generated from the same prompt and seed:"
    return f"{title}\n\n" + table(["Measure", "Value"], rows)


def _backends(model: dict[str, Any]) -> str:
    rows, note = [], " (mitigated: {:,} values outside the bounds, kept)"
    for h in model["head_backends"]:
        where = code(h["backend"]) + (note.format(h["outside_bounds"]) if h.get("outside_bounds") else "")
        where += f" ({escaped(h['mitigation'])})" if h.get("mitigation") else ""
        where += f" (side by side on qubits {'; '.join(h['tiles'])})" if h.get("tiles") else ""
        rows.append([str(h["layer"]), str(h["head"]), code(h["kind"]), where])
    return table(["Layer", "Head", "Kind", "Backend"], rows)


def _audits(model: dict[str, Any]) -> list[str]:
    """Return what each link of a chain of backends computed, and the fallbacks; nothing for a single backend."""
    parts = []
    for key, what in (("audit", "training and validation"), ("report_audit", "the sample and the causality check")):
        audit = model.get(key)
        if audit is None:
            continue
        names = dict.fromkeys([*audit["calls"], *audit["gradients"]])
        rows = [[code(n), *(f"{audit[kind].get(n, 0):,}" for kind in ("calls", "gradients"))] for n in names]
        since = f", from step {audit['from_step']} on" if audit.get("from_step") else ""
        parts.append(f"Number of circuit calls computed by each backend during {what}{since}:")
        parts.append(table(["Backend", "Values", "Gradients"], rows))
        if audit["falls"]:
            parts += [f"Fallbacks during {what}:", _fallbacks(audit["falls"])]
    return parts


def _fallbacks(falls: list[dict[str, Any]]) -> str:
    """Return a table with one row for each combination of head, pass and link."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for fall in falls:
        where = (code(fall["kind"]), escaped(fall["during"]), code(fall["link"]), code(fall["to"]))
        key = (str(fall["layer"]), *where)
        groups.setdefault(key, []).append(fall)
    rows = [
        [*key, f"{len(found):,}", f"{found[0]['call']:,}", escaped(found[0]["reason"])] for key, found in groups.items()
    ]
    return table(["Layer", "Kind", "Pass", "Failed", "Fell back to", "Times", "First call", "Reason"], rows)
