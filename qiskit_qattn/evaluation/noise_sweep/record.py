"""What a sweep has measured so far, kept in its folder as ``report.json`` after every point."""

from __future__ import annotations

import hashlib
import json
import math
from datetime import UTC, datetime
from typing import Any

from qiskit_qattn.errors import CheckpointError, RunFolderError
from qiskit_qattn.evaluation.noise_sweep.models import TrainedRun
from qiskit_qattn.evaluation.noise_sweep.plan import NoiseSweep, Point
from qiskit_qattn.evaluation.report import machine, versions
from qiskit_qattn.training.data import fingerprint
from qiskit_qattn.training.files import write_text, writing

FORMAT = "qiskit-qattn/noise-sweep"
NAME = "report.json"


def open_record(sweep: NoiseSweep, run: TrainedRun) -> dict[str, Any]:
    """Return the record of a sweep: what its folder holds, or a new one that is in the folder from now on.

    Raises:
        RunFolderError: If the folder holds something else, or a sweep of another model, text or setting.
        CheckpointError: If its report is damaged.
    """
    settings = _settings(sweep, run)
    path = sweep.out / NAME
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return _new_record(sweep, run, settings)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"The report {str(path)!r} is damaged: {error}") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise RunFolderError(f"{str(path)!r} is no report of a noise sweep; give another --out.")
    if not isinstance(record.get("settings"), dict) or not isinstance(record.get("points"), list):
        raise CheckpointError(f"The report {str(path)!r} is damaged: it holds no settings or no points.")
    for name, value in settings.items():
        if (saved := record["settings"].get(name)) != value:
            raise RunFolderError(
                f"{str(sweep.out)!r} holds a sweep with {name} = {saved!r}, not {value!r}; give another --out."
            )
    return record


def find(record: dict[str, Any], point: Point) -> dict[str, Any] | None:
    """Return what was measured at a point, or None."""
    key = (point.model, point.strength, point.shots)
    return next((p for p in record["points"] if (p["model"], p["strength"], p["shots"]) == key), None)


def add_point(sweep: NoiseSweep, record: dict[str, Any], point: Point, losses: list[float]) -> dict[str, Any]:
    r"""Add a point to the record, save it, and return it.

    With :math:`\ell_w` the loss of window w and :math:`\ell^0_w` that of the same model and window without noise,

    .. math:: \bar\ell = \frac1W \sum_w \ell_w, \qquad \Delta = \frac1W \sum_w (\ell_w - \ell^0_w)

    each with its standard error :math:`s / \sqrt W`, s the standard deviation over windows of what is averaged. Texts
    differ more than the effect of noise on each, so the error of :math:`\Delta` is much the smaller one.

    Args:
        sweep: The plan.
        record: The record.
        point: Where; the model's noiseless point comes first.
        losses: Mean cross-entropy of every window, in nats a token.
    """
    reference = find(record, Point(point.model))
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
    }
    record["points"].append(found)
    save(sweep, record)
    return found


def save(sweep: NoiseSweep, record: dict[str, Any]) -> None:
    """Write the record into the sweep's folder.

    Raises:
        RunFolderError: If it cannot be written.
    """
    write_text(sweep.out / NAME, json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def mean_and_error(values: list[float]) -> tuple[float, float]:
    """Return the mean of at least two values, and its standard error."""
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, math.sqrt(variance / len(values))


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
    save(sweep, record)
    return record


def _settings(sweep: NoiseSweep, run: TrainedRun) -> dict[str, Any]:
    """Return what every point of a sweep has in common."""
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
