"""The report of a run, collected from its folder: ``report.json``, ``report.md`` and ``loss.png``."""

from __future__ import annotations

import json
import os
import platform
from contextlib import nullcontext
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from qiskit_qattn import __version__
from qiskit_qattn.backends.place import Place
from qiskit_qattn.errors import CheckpointError, RunFolderError
from qiskit_qattn.evaluation.leakage import leakage
from qiskit_qattn.evaluation.plots import loss_plot
from qiskit_qattn.evaluation.report_markdown import render_markdown
from qiskit_qattn.evaluation.text_difference import text_difference
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.training.config import TrainConfig
from qiskit_qattn.training.files import write_bytes, write_text
from qiskit_qattn.training.run import read_metrics, saved_config
from qiskit_qattn.training.tokenizer import CharTokenizer

FORMAT = "qiskit-qattn/report"
PACKAGES = ("torch", "qiskit", "qiskit-machine-learning", "accelerate", "numpy")


def write_report(folder: Path, backend: Place | None = None) -> dict[str, Any]:
    """Collect the report of a finished run, write it into the run folder, and return it.

    Args:
        folder: The run folder.
        backend: As for :func:`collect_report`.

    Raises:
        BackendError: If the backend fails.
        RunFolderError: If the folder is no finished run, or cannot be written.
    """
    report = collect_report(folder, backend)
    write_text(folder / "report.json", json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    render_report(folder, report)
    return report


def render_report(folder: Path, report: dict[str, Any]) -> None:
    """Write ``report.md`` and ``loss.png`` of a report into ``folder``.

    Raises:
        RunFolderError: If they cannot be written.
    """
    write_bytes(folder / "loss.png", loss_plot(report))
    write_text(folder / "report.md", render_markdown(report))


def read_report(folder: Path) -> dict[str, Any]:
    """Return the ``report.json`` in ``folder``.

    Raises:
        RunFolderError: If there is none.
        CheckpointError: If it is damaged or not ours.
    """
    path = folder / "report.json"
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunFolderError(f"{str(folder)!r} has no report to read: {error.strerror}.") from error
    except ValueError as error:
        raise CheckpointError(f"The report {str(path)!r} is damaged: {error}") from error
    if not isinstance(report, dict) or report.get("format") != FORMAT:
        raise CheckpointError(f"{str(path)!r} is no report of qiskit-qattn.")
    return report


def collect_report(folder: Path, backend: Place | None = None) -> dict[str, Any]:
    """Return the report of a finished run: its figures, and what its saved models say and leak.

    Args:
        folder: The run folder, with ``metrics.json`` and ``model`` in it.
        backend: The run's backend, opened; None opens it.

    Raises:
        BackendError: If the backend fails.
        RunFolderError: If the run has not finished.
    """
    config = saved_config(folder)
    model = read_metrics(folder)
    if model is None:
        raise RunFolderError(f"The run in {str(folder)!r} has not finished; go on with --resume.")
    twin = read_metrics(folder / "baseline") if config.baseline else None
    prompt = model.pop("prompt")
    where = Place.open(config.backend) if backend is None else backend
    with where if backend is None else nullcontext():
        model |= _examine(folder / "model", config, prompt, where)
        differences = None
        if twin is not None:
            twin.pop("prompt")
            twin |= _examine(folder / "baseline" / "model", config, prompt, where)
            differences = text_difference(model["sample"], twin["sample"]).to_dict()
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
        "baseline": twin,
        "text_differences": differences,
    }


def versions() -> dict[str, str | None]:
    """Return the versions of Python and of the packages that decide a result; None for what is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version(), "qiskit-qattn": __version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def machine() -> dict[str, Any]:
    """Return what the speed figures depend on."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
    }


def _examine(folder: Path, config: TrainConfig, prompt: str, backend: Place) -> dict[str, Any]:
    """Load a saved model as users do, and return the text it generates and what it leaks.

    Where values are sampled, two passes never agree; there the exact engine tells what the model reads.
    """
    model = GPT.from_pretrained(folder)
    model.to_backend(backend)
    tokenizer = CharTokenizer.load(folder / "tokenizer.json")
    ids = tokenizer.encode(prompt)[None]  # (1, P)
    out = model.generate(
        ids, config.sample_tokens, temperature=config.temperature, top_k=config.top_k or None, seed=config.seed
    )  # (1, P + N)
    sampled = backend.samples
    found = leakage(GPT.from_pretrained(folder) if sampled else model)
    audit = model.audit()
    return {
        **({"report_audit": audit} if audit else {}),
        "sample": tokenizer.decode(out[0, ids.shape[1] :]),
        "leakage": float(found),
        "leakage_edits": found.edits,
        **({"leakage_backend": "statevector"} if sampled else {}),
    }
