"""How long a noise sweep will take: a few steps of each copy that is trained, and one batch at each kind of point."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from qiskit_qattn.evaluation.noise_sweep.models import TrainedRun, train_on
from qiskit_qattn.evaluation.noise_sweep.plan import ModelName, NoiseSweep, Point
from qiskit_qattn.evaluation.noise_sweep.sweep import BATCH, accelerator_of, missing, window_losses
from qiskit_qattn.evaluation.text_metrics import spaced_windows
from qiskit_qattn.training.pace import TIMED, WARM, measured, newest_step


def training_seconds(sweep: NoiseSweep, run: TrainedRun) -> list[float]:
    """Return how long each copy of the model takes that is not trained yet, in seconds; empty for few steps."""
    if sweep.aware_strength is None or sweep.aware_steps <= WARM + TIMED:
        return []
    backends: dict[ModelName, str] = {"control": "statevector", "aware": sweep.noisy(sweep.aware_strength)}
    waiting = {name: text for name, text in backends.items() if not (sweep.out / name / "model").is_dir()}
    return [_training_seconds(sweep, run, name, text) for name, text in waiting.items()]


def _training_seconds(sweep: NoiseSweep, run: TrainedRun, name: ModelName, backend: str) -> float:
    """Return how long the rest of a copy's training takes, with its validations and the final one."""
    accelerator = accelerator_of(sweep, run)
    with tempfile.TemporaryDirectory(prefix="qattn-pace-") as scratch:
        short = dataclasses.replace(sweep, out=Path(scratch), aware_steps=WARM + TIMED)
        pace = measured(lambda clock: train_on(short, run, name, backend, accelerator, clock), whole=False)
    accelerator.free_memory()
    windows = run.config.batch_size * min(run.config.eval_batches, 4)  # of a validation
    final = round(1 + sweep.windows / windows)  # in validations, on training data too
    return pace.seconds(sweep.aware_steps - newest_step(sweep.out / name), 5 + final)


def point_seconds(sweep: NoiseSweep, run: TrainedRun, record: dict[str, Any]) -> list[float]:
    """Return how long each point takes that is still to be measured, in seconds.

    A point takes as long as others that differ from it in the model, the strength or the number of shots only.
    """
    model = run.model.to(accelerator_of(sweep, run).device)
    x, y = spaced_windows(run.corpus.val, run.config.model.block_size, sweep.windows)  # (W, T)
    points = missing(sweep, record)
    found: dict[Hashable, float] = {}
    for kind, point in {_kind(point): point for point in points}.items():
        with model.to_backend(sweep.backend(point)):
            window_losses(model, x[:1], y[:1], lambda share: None)  # fills caches
            begin = time.perf_counter()
            window_losses(model, x[:BATCH], y[:BATCH], lambda share: None)
            found[kind] = (time.perf_counter() - begin) * len(x) / len(x[:BATCH])
    return [found[_kind(point)] for point in points]


def _kind(point: Point) -> Hashable:
    """Return what points of equal length share."""
    return point.on, point.mitigation, point.strength is not None, point.shots is not None
