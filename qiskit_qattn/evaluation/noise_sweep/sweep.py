"""Running a noise sweep: every model on every backend, over the same windows of held-out text."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from qiskit_qattn.errors import DataError
from qiskit_qattn.evaluation.noise_sweep.models import TrainedRun, load_run, sweep_models
from qiskit_qattn.evaluation.noise_sweep.plan import ModelName, NoiseSweep, Point
from qiskit_qattn.evaluation.noise_sweep.record import add_point, find, open_record
from qiskit_qattn.evaluation.noise_sweep.report import write_report
from qiskit_qattn.evaluation.windows import spaced_windows
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.training.progress import Progress
from qiskit_qattn.training.run import make_accelerator

BATCH = 8  # windows at a time: a density matrix of 6 qubits is 4,096 numbers a token


def open_sweep(sweep: NoiseSweep) -> tuple[TrainedRun, dict[str, Any]]:
    """Check all that can be checked, and return the run and what was measured of it before.

    Raises:
        RunFolderError: If the run has not finished, or the sweep's folder holds something else.
        ConfigError: If the model has no quantum head.
        CircuitError: If its circuits have too many qubits for the noisy engine.
    """
    run = load_run(sweep)
    return run, open_record(sweep, run)


def train_models(sweep: NoiseSweep, run: TrainedRun, progress: Progress | None = None) -> dict[ModelName, GPT]:
    """Return the models of a sweep, on the run's device; copies that were not trained yet are trained first.

    Raises:
        TrainingInterrupted: If SIGINT or SIGTERM came; the state has been saved.
    """
    if run.config.threads:
        torch.set_num_threads(run.config.threads)
    accelerator = make_accelerator(dataclasses.replace(run.config, trackers="none"), sweep.out)
    models = dict(sweep_models(sweep, run, accelerator, progress or Progress()))
    return {name: model.to(accelerator.device) for name, model in models.items()}


def measure(
    sweep: NoiseSweep,
    run: TrainedRun,
    models: dict[ModelName, GPT],
    record: dict[str, Any],
    *,
    told: Callable[[Point, dict[str, Any]], None] = lambda point, found: None,
    advanced: Callable[[float], None] = lambda share: None,
) -> None:
    """Measure the points that the record does not have yet, and write the report.

    Args:
        sweep: The plan.
        run: The run.
        models: Its models.
        record: What was measured before, to which each point is added when it is done.
        told: Called with each point that was measured.
        advanced: Called while a point is measured, with the share of it that was done since the last call.

    Raises:
        DataError: If the validation split has fewer than two windows.
    """
    x, y = spaced_windows(run.corpus.val, run.config.model.block_size, sweep.windows)  # (W, T)
    if len(x) < 2:
        raise DataError(
            f"The validation split has {len(run.corpus.val)} tokens: one window of {run.config.model.block_size}, and a"
            f" standard error takes at least 2."
        )
    for point in missing(sweep, record):
        model = models[point.model]
        with model.to_backend(sweep.backend(point)):
            losses = window_losses(model, x, y, advanced)
        told(point, add_point(sweep, record, point, losses.tolist()))
    write_report(sweep, record)


def missing(sweep: NoiseSweep, record: dict[str, Any]) -> list[Point]:
    """Return the points that are still to be measured."""
    return [point for point in sweep.points() if find(record, point) is None]


@torch.no_grad()
def window_losses(model: GPT, x: Tensor, y: Tensor, advanced: Callable[[float], None]) -> Tensor:
    """Return the mean cross-entropy of every window in nats a token, shape ``(W,)``.

    Args:
        model: The model, in evaluation mode.
        x: Tokens, shape ``(W, T)``.
        y: The tokens that follow, of the same shape.
        advanced: Called after each batch with its share of the windows.
    """
    device, found = model.wte.weight.device, []
    for tokens, targets in zip(x.split(BATCH), y.split(BATCH), strict=True):
        logits, _ = model(tokens.to(device))  # (b, T, V)
        losses = F.cross_entropy(logits.float().transpose(1, 2), targets.to(device), reduction="none")  # (b, T)
        found.append(losses.double().mean(-1).cpu())
        advanced(len(tokens) / len(x))
    return torch.cat(found)
