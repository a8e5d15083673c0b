"""The figures of a run, in ``metrics.json``: losses, time, memory, and the backends of its heads."""

from __future__ import annotations

import math
import re
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict

import torch

from qiskit_qattn.errors import CheckpointError
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.training.audits import AuditOfSteps
from qiskit_qattn.training.checkpoint import TrainState
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


def finite(value: float | None) -> float | None:
    """Return a number as it is, and None for infinities and NaN, which JSON does not have."""
    return None if value is None or not math.isfinite(value) else float(value)


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
