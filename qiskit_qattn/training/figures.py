"""The figures of a run: losses, time, memory, and which backends computed it.

A run leaves them in ``metrics.json`` and, on a chain of backends, in ``audit.json``.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict

import torch

from qiskit_qattn.errors import CheckpointError
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.nn.placement import ran_on
from qiskit_qattn.training.checkpoint import TrainState
from qiskit_qattn.training.files import write_text, writing
from qiskit_qattn.training.validation import Losses
from qiskit_qattn.untrusted import read_json


class Parameters(TypedDict):
    """Numbers of parameters."""

    quantum: int
    classical: int


class HeadBackend(TypedDict):
    """A head, and the backend that computed it."""

    layer: int
    head: int
    kind: str
    backend: str


class TrainItem(TypedDict):
    """A logged training loss."""

    step: int
    loss: float


class ValItem(TypedDict):
    """A validation."""

    step: int
    val_loss: float


class History(TypedDict):
    """The losses of a training."""

    train: list[TrainItem]
    val: list[ValItem]


class FallRecord(TypedDict):
    """A fallback in an audit."""

    layer: int | None
    kind: str
    call: int
    during: str
    link: str
    to: str
    reason: str


class _Rows(TypedDict, total=False):
    rows: dict[str, int]
    devices: list[str]
    last_rows: list[int]


class HeadRecord(_Rows):
    """The calls of the heads of one kind in a layer, in an audit, and on a group of devices the rows."""

    layer: int | None
    kind: str
    calls: dict[str, int]
    gradients: dict[str, int]


class AuditRecord(TypedDict):
    """The calls and fallbacks of all heads on a chain or a group."""

    calls: dict[str, int]
    gradients: dict[str, int]
    heads: list[HeadRecord]
    falls: list[FallRecord]


class AuditOfSteps(AuditRecord):
    """The audit of a training, in ``audit.json``."""

    from_step: int
    to_step: int


class _Audits(TypedDict, total=False):
    audit: AuditOfSteps


class Figures(_Audits):
    """The figures of a trained model."""

    step: int
    heads: str | list[str]
    train_loss: float
    val_loss: float
    val_loss_last_position: float
    parameters: Parameters
    head_backends: list[HeadBackend]
    tokens_per_second: float
    train_seconds: float
    wall_seconds: float
    cpu_seconds: float
    peak_rss_mib: float
    peak_gpu_mib: float | None
    history: History


class Metrics(Figures):
    """The content of ``metrics.json``."""

    prompt: str


AUDIT = "audit.json"
_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def run_figures(model: GPT, state: TrainState, train: Losses, val: Losses) -> dict[str, Any]:
    """Return the figures of a trained GPT, as plain values for JSON."""
    return {
        **training_figures(state, train, val),
        "heads": heads if isinstance(heads := model.config.heads, str) else list(heads),
        "parameters": dict(model.num_parameters()),
        "head_backends": [dict(item) for item in model.head_backends()],
    }


def training_figures(state: TrainState, train: Losses, val: Losses) -> dict[str, Any]:
    """Return the figures of a training, whatever the model, as plain values for JSON."""
    return {
        "step": state.step,
        "train_loss": train.all_positions,
        "val_loss": val.all_positions,
        "val_loss_last_position": val.last_position,
        "tokens_per_second": state.tokens_per_second,
        "train_seconds": state.train_seconds,
        "wall_seconds": state.wall_seconds,
        "cpu_seconds": state.cpu_seconds,
        "peak_rss_mib": peak_rss_mib(),
        "peak_gpu_mib": peak_gpu_mib(),
        "history": {"train": [asdict(item) for item in state.train], "val": [asdict(item) for item in state.val]},
    }


def read_metrics(folder: Path) -> dict[str, Any] | None:
    """Return the figures of the run in ``folder``; None if it has not finished.

    Raises:
        CheckpointError: If they are damaged or not ours.
    """
    path = folder / "metrics.json"
    try:
        return dict(read_json(path, Metrics))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{str(path)!r} has no figures of qiskit-qattn: {error}.") from error


def reset_peaks() -> None:
    """Start new peaks where the system allows it (Linux, CUDA), so that each of two models in a row has its own."""
    with suppress(OSError):  # elsewhere the peak is that of the process
        _CLEAR.write_text("5", encoding="ascii")
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_rss_mib() -> float:
    """Return the largest resident size since :func:`reset_peaks`, or of the process where that is not available."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text(encoding="ascii"))
    except OSError:
        found = None
    if found:
        return int(found.group(1)) / 1024
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        import psutil

        return float(psutil.Process().memory_info().peak_wset) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024


def peak_gpu_mib() -> float | None:
    """Return the largest CUDA allocation since :func:`reset_peaks`; None without CUDA."""
    return torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else None


def read_audit(folder: Path, step: int) -> dict[str, Any]:
    """Return the audit of earlier processes up to ``step`` from ``folder``; empty if there is none.

    Raises:
        CheckpointError: If it is damaged.
    """
    try:
        found = read_json(folder / AUDIT, AuditOfSteps)
        return dict(found) if found["to_step"] == step else {}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{str(folder / AUDIT)!r} is damaged: {error}. Remove it to continue without it."
        ) from error


def write_audit(folder: Path, audit: dict[str, Any]) -> None:
    """Write an audit into ``folder``, unless it is empty.

    Raises:
        RunFolderError: If it cannot be written.
    """
    if audit:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / AUDIT, json.dumps(audit, indent=1) + "\n")


def join_audits(before: dict[str, Any], now: dict[str, Any], start: int, end: int) -> dict[str, Any]:
    """Return the audit of a run up to step ``end``: of earlier processes, and of this one from ``start`` on.

    ``from_step`` and ``to_step`` are the steps that it covers. Calls are numbered on over the processes.
    """
    if not now:
        return before
    if not before:
        return {"from_step": start, "to_step": end, **now}
    if [(head["layer"], head["kind"]) for head in before["heads"]] != [(h["layer"], h["kind"]) for h in now["heads"]]:
        raise CheckpointError(f"{AUDIT} is of a model with other heads. Remove it to continue without it.")
    heads = []
    shift = {}
    for old, new in zip(before["heads"], now["heads"], strict=True):
        shift[old["layer"], old["kind"]] = sum(old["calls"].values())
        sums = {key: _sum(old.get(key, {}), new.get(key, {})) for key in ("calls", "gradients", "rows")}
        heads.append({**old, **new, **{key: found for key, found in sums.items() if found or key != "rows"}})
    falls = [{**fall, "call": fall["call"] + shift[fall["layer"], fall["kind"]]} for fall in now["falls"]]
    return {
        "from_step": before["from_step"],
        "to_step": end,
        "calls": _sum(before["calls"], now["calls"]),
        "gradients": _sum(before["gradients"], now["gradients"]),
        "heads": heads,
        "falls": before["falls"] + falls,
    }


def label_heads(head_backends: list[dict[str, Any]], audit: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the heads with the backends that computed them in all processes."""
    calls = {(head["layer"], head["kind"]): head["calls"] for head in audit["heads"]}
    rows = []
    for row in head_backends:
        found = calls.get((row["layer"], row["kind"]))
        rows.append({**row, "backend": ran_on(found), "calls": found} if found else row)
    return rows


def _sum(first: dict[str, int], second: dict[str, int]) -> dict[str, int]:
    return dict(Counter(first) + Counter(second))
