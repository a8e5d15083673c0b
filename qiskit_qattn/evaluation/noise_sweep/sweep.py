"""Running a noise sweep: every model on every backend over the same windows, recorded in ``report.json``."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from statistics import fmean
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from qiskit_qattn.errors import CheckpointError, DataError, RunFolderError
from qiskit_qattn.evaluation.noise_sweep.mitigated import interval
from qiskit_qattn.evaluation.noise_sweep.models import TrainedRun, load_run, sweep_models
from qiskit_qattn.evaluation.noise_sweep.plan import ModelName, NoiseSweep, Point
from qiskit_qattn.evaluation.noise_sweep.report import RECORD, Record, mean_and_error, point_key, write_report
from qiskit_qattn.evaluation.rendering import machine, versions, write_json
from qiskit_qattn.evaluation.text_metrics import spaced_windows
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.nn.inference import inference
from qiskit_qattn.training.data import fingerprint
from qiskit_qattn.training.files import writing
from qiskit_qattn.training.progress import Progress
from qiskit_qattn.training.run import make_accelerator
from qiskit_qattn.untrusted import as_type, read_json, shown

if TYPE_CHECKING:
    from accelerate import Accelerator

FORMAT = "qiskit-qattn/noise-sweep"
BATCH = 8  # windows per forward pass: a density matrix of 6 qubits has 4,096 entries per token


def open_sweep(sweep: NoiseSweep) -> tuple[TrainedRun, dict[str, Any]]:
    """Check all that can be checked, and return the run and the record of a sweep.

    Raises:
        RunFolderError: If the run has not finished, or the sweep's folder contains something else.
        ConfigError: If the model has no quantum head.
        CircuitError: If its circuits have too many qubits for the noisy engine.
        CheckpointError: If the record is damaged.
    """
    run = load_run(sweep)
    return run, _open_record(sweep, run)


def accelerator_of(sweep: NoiseSweep, run: TrainedRun) -> Accelerator:
    """Return Accelerate's handle on the run's device, with the run's number of threads set."""
    if run.config.threads:
        torch.set_num_threads(run.config.threads)
    return make_accelerator(dataclasses.replace(run.config, trackers="none"), sweep.out)


def train_models(sweep: NoiseSweep, run: TrainedRun, progress: Progress | None = None) -> dict[ModelName, GPT]:
    """Return the models of a sweep, on the run's device, after training the copies that are not trained yet.

    Raises:
        TrainingInterrupted: On SIGINT or SIGTERM; the state has been saved.
    """
    accelerator = accelerator_of(sweep, run)
    models = dict(sweep_models(sweep, run, accelerator, progress or Progress()))
    return {name: model.to(accelerator.device) for name, model in models.items()}


def measure(
    sweep: NoiseSweep,
    run: TrainedRun,
    models: dict[ModelName, GPT],
    record: dict[str, Any],
    *,
    on_point: Callable[[Point, dict[str, Any]], None] = lambda point, found: None,
    on_progress: Callable[[float], None] = lambda share: None,
) -> None:
    """Measure the points that the record does not have yet, and write the report.

    Args:
        sweep: The plan.
        run: The run.
        models: Its models.
        record: The record, to which each point is added as soon as it is measured.
        on_point: Called with each point that was measured.
        on_progress: Called while a point is measured, with the share of it that was done since the last call.

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
            losses = window_losses(model, x, y, on_progress)
        on_point(point, _add_point(sweep, record, point, losses.tolist()))
    write_report(sweep, record)


@torch.no_grad()
def window_losses(model: GPT, x: Tensor, y: Tensor, on_progress: Callable[[float], None]) -> Tensor:
    """Return the mean cross-entropy of every window in nats per token, shape ``(W,)``.

    Args:
        model: The model.
        x: Tokens, shape ``(W, T)``.
        y: The tokens that follow, of the same shape.
        on_progress: Called after each batch with its share of the windows.
    """
    device, model, found = model.wte.weight.device, inference(model), []
    for tokens, targets in zip(x.split(BATCH), y.split(BATCH), strict=True):
        logits, _ = model(tokens.to(device))  # (b, T, V)
        losses = F.cross_entropy(logits.float().transpose(1, 2), targets.to(device), reduction="none")  # (b, T)
        found.append(losses.double().mean(-1).cpu())
        on_progress(len(tokens) / len(x))
    return torch.cat(found)


def missing(sweep: NoiseSweep, record: dict[str, Any]) -> list[Point]:
    """Return the points that are still to be measured."""
    return [point for point in sweep.points() if find(record, point) is None]


def find(record: dict[str, Any], point: Point) -> dict[str, Any] | None:
    """Return what was measured at a point, or None."""
    key = (point.model, point.strength, point.shots, point.on, point.mitigation)
    return next((p for p in record["points"] if point_key(p) == key), None)


def _add_point(sweep: NoiseSweep, record: dict[str, Any], point: Point, losses: list[float]) -> dict[str, Any]:
    r"""Add a point to the record, save it, and return it.

    With :math:`\ell_w` the loss of window w and :math:`\ell^0_w` that of the same model and window without noise,

    .. math:: \bar\ell = \frac1W \sum_w \ell_w, \qquad \Delta = \frac1W \sum_w (\ell_w - \ell^0_w)

    each with its standard error :math:`s / \sqrt W`, where s is the standard deviation over windows of the averaged
    quantity. Windows differ more from each other than noise changes any of them, so the error of :math:`\Delta` is much
    smaller. A mitigated point is also compared with the same point without mitigation, and both differences have 95 %
    bootstrap intervals over windows.

    Args:
        sweep: The plan.
        record: The record.
        point: The point; the model's noiseless point comes first.
        losses: Mean cross-entropy of every window, in nats per token.
    """
    reference, raw = find(record, Point(point.model)), find(record, dataclasses.replace(point, mitigation=""))
    exact = losses if reference is None else reference["losses"]
    loss, error = mean_and_error(losses)
    change, change_error = mean_and_error([a - b for a, b in zip(losses, exact, strict=True)])
    found = {
        "model": point.model,
        "strength": point.strength,
        "shots": point.shots,
        "backend": sweep.backend(point),
        "loss": loss,
        "standard_error": error,
        "change": change,
        "change_standard_error": change_error,
        "losses": losses,
        "on": point.on,
        "mitigation": point.mitigation,
        "change_interval": interval([a - b for a, b in zip(losses, exact, strict=True)], sweep.seed),
    }
    if point.mitigation and raw is not None:
        gains = [a - b for a, b in zip(losses, raw["losses"], strict=True)]
        found |= {"gain": fmean(gains), "gain_interval": interval(gains, sweep.seed)}
    record["points"].append(found)
    write_json(sweep.out / RECORD, record)
    return found


def _open_record(sweep: NoiseSweep, run: TrainedRun) -> dict[str, Any]:
    """Return the record in a sweep's folder, or a new one that is written there."""
    settings = _settings(sweep, run)
    path = sweep.out / RECORD
    try:
        record = read_json(path)
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise RunFolderError(f"{str(path)!r} is no report of a noise sweep; give another --out.")
        record = as_type(record, Record)
        for name, value in settings.items():
            if (saved := record["settings"].get(name)) != value:
                raise RunFolderError(
                    f"{str(sweep.out)!r} contains a sweep with {name} = {shown(saved)}, not {value!r}; give another"
                    " --out."
                )
        _check_points(record, len(spaced_windows(run.corpus.val, run.config.model.block_size, sweep.windows)[0]))
    except FileNotFoundError:
        return _new_record(sweep, run, settings)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"The report {str(path)!r} is damaged: {error}.") from error
    return dict(record)


def _check_points(record: Mapping[str, Any], windows: int) -> None:
    """Check what the types of a record leave open.

    Raises:
        ValueError: For a point of another model, or with another number of windows.
    """
    for index, point in enumerate(record["points"]):
        if point["model"] not in get_args(ModelName):
            raise ValueError(f"points[{index}].model is {shown(point['model'])}")
        if len(point["losses"]) != windows:
            raise ValueError(f"points[{index}] has {len(point['losses'])} windows, but the sweep has {windows}")


def _new_record(sweep: NoiseSweep, run: TrainedRun, settings: dict[str, Any]) -> dict[str, Any]:
    with writing(sweep.out):
        if sweep.out.exists() and (not sweep.out.is_dir() or any(sweep.out.iterdir())):
            raise RunFolderError(f"{str(sweep.out)!r} exists and is no noise sweep; give another --out.")
    heads = run.model.config.heads
    record = {
        "format": FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "run": str(sweep.run),
        "data": run.config.data,
        "heads": heads if isinstance(heads, str) else list(heads),
        "num_qubits": max(head.circuit.num_qubits for _, _, head in run.model.quantum_heads()),
        "block_size": run.config.model.block_size,
        "settings": settings,
        "versions": versions(),
        "machine": machine(),
        "points": [],
    }
    write_json(sweep.out / RECORD, record)
    return record


def _settings(sweep: NoiseSweep, run: TrainedRun) -> dict[str, Any]:
    """Return what all points of a sweep have in common."""
    weights = (sweep.run / "model" / "model.safetensors").read_bytes()
    return {
        "model": hashlib.sha256(weights).hexdigest(),
        "text": fingerprint(run.corpus),
        "noise": sweep.noise,
        "windows": sweep.windows,
        "seed": sweep.seed,
        "aware_steps": sweep.aware_steps,
        "aware_p": sweep.aware_strength,
    }
