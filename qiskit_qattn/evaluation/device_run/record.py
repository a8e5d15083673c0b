"""The record of a generation on a device: its settings, text and figures, and the devices, jobs and costs behind it."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import torch
from qiskit import QuantumCircuit
from torch import Tensor

from qiskit_qattn.backends.measurement import shots_of
from qiskit_qattn.backends.place import Place
from qiskit_qattn.backends.pub import PubProgram
from qiskit_qattn.backends.registry import Backend
from qiskit_qattn.backends.spec import BackendSpec
from qiskit_qattn.backends.tiling import Tile
from qiskit_qattn.errors import CheckpointError, ConfigError, RunFolderError
from qiskit_qattn.evaluation.device_cost import RunCost
from qiskit_qattn.evaluation.device_run.compare import head_rows, summary, token_rows
from qiskit_qattn.evaluation.device_run.trace import SAMPLES, Trace, exact_run, sampled_runs
from qiskit_qattn.evaluation.rendering import machine, versions
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.nn.kinds import head_kind
from qiskit_qattn.training.files import writing
from qiskit_qattn.training.tokenizer import CharTokenizer
from qiskit_qattn.untrusted import read_json, shown

FORMAT = "qiskit-qattn/device-run"
RECORD = "report.json"
_SDKS = ("qiskit-aer", "qiskit-ibm-runtime", "qiskit-braket-provider", "amazon-braket-sdk")


@dataclass(frozen=True)
class DeviceRun:
    """What a generation on a device is asked for.

    Attributes:
        run: The folder of the model.
        out: The folder of the report.
        backend: The backend string.
        prompt: The beginning of the text.
        tokens: How many tokens follow.
        seed: Seed of the sampling of tokens.
        temperature: Divides the logits; 0 takes the likeliest token.
        top_k: Sample among the k likeliest tokens only.
    """

    run: Path
    out: Path
    backend: str
    prompt: str
    tokens: int
    seed: int
    temperature: float
    top_k: int | None

    @property
    def options(self) -> dict[str, Any]:
        """What the model's generation takes besides prompt and number of tokens."""
        return {"temperature": self.temperature, "top_k": self.top_k, "seed": self.seed}

    def settings(self, model: Path) -> dict[str, Any]:
        """Return what a report is of, as plain values; ``model`` is the folder with the weights."""
        weights = hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()
        plain = {name: value for name, value in asdict(self).items() if name not in ("run", "out")}
        return {"model": weights, **plain}


def check_out(run: DeviceRun, settings: Mapping[str, Any]) -> None:
    """Check that a report may be written: its folder is new, or has the report of the same settings.

    Raises:
        RunFolderError: If it holds something else.
        CheckpointError: If its report is damaged.
    """
    path = run.out / RECORD
    with writing(run.out):
        if not path.exists():
            if run.out.exists() and (not run.out.is_dir() or any(run.out.iterdir())):
                raise RunFolderError(f"{str(run.out)!r} exists and is no report of a device; give another --out.")
            return
    try:
        found = read_json(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"The report {str(path)!r} is damaged: {error}.") from error
    saved = found.get("settings") if isinstance(found, dict) and found.get("format") == FORMAT else None
    if not isinstance(saved, dict):
        raise RunFolderError(f"{str(path)!r} is no report of a device; give another --out.")
    for name, value in settings.items():
        if saved.get(name) != value:
            raise RunFolderError(
                f"{str(run.out)!r} has a report with {name} = {shown(saved.get(name))}, not {value!r}; give another"
                " --out."
            )


def check_compared(model: GPT, where: str) -> None:
    """Check that a model that was moved has circuits, and that they run elsewhere than on the exact engine.

    Raises:
        ConfigError: Otherwise.
    """
    heads = [head for _, _, head in model.quantum_heads()]
    if not heads:
        raise ConfigError(f"The model has no quantum head, so a device has nothing to run: {model.config.heads}.")
    if mixing := sorted({kind for _, kind, _ in model.quantum_heads() if head_kind(kind).mixer is not None}):
        raise ConfigError(
            f"{where} would be compared circuit by circuit, one for each token, but heads of {', '.join(mixing)} mix "
            f"several tokens in a circuit; generate with --backend runs them."
        )
    if all(head.fusible for head in heads):
        raise ConfigError(f"{where} is the exact engine itself, which a device is compared with; name a device.")


def make_record(
    run: DeviceRun,
    settings: Mapping[str, Any],
    model: GPT,
    tokenizer: CharTokenizer,
    prompt: Tensor,
    place: Place,
    trace: Trace,
    estimate: RunCost,
    on_token: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Compare a generation with the exact engine, and return the record of it.

    Args:
        run: What was asked for.
        settings: The same as plain values.
        model: The model, still on the device.
        tokenizer: Its tokenizer.
        prompt: Tokens, shape ``(1, P)``.
        place: Where it ran.
        trace: The generation.
        estimate: What it was estimated to cost.
        on_token: Called after each token that is compared with runs of the exact circuits with shots.

    Raises:
        BackendError: If a device does not answer what is asked of it.
    """
    audit = model.audit()  # before the model moves
    text = torch.tensor([trace.tokens])  # (1, n)
    drawn, exact = exact_run(model, prompt, text, **run.options)
    link = next((each for each in place.backends if each.precision > 0), None)
    sampled = None
    if link is not None:
        shots = link.shots or shots_of(link.precision)
        sampled = sampled_runs(model, prompt, text, shots=shots, seed=run.seed, on_token=on_token)
    device = torch.stack(trace.logits)  # (n, V)
    tokens = token_rows(trace.tokens, device, drawn, exact, sampled, run.temperature)
    names = [tokenizer.decode(torch.tensor([token])) for token in range(tokenizer.vocab_size)]
    heads = model.config.heads
    return {
        "format": FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "run": str(run.run),
        "heads": heads if isinstance(heads, str) else list(heads),
        "num_qubits": max(head.circuit.num_qubits for _, _, head in model.quantum_heads()),
        "settings": dict(settings),
        "backend": place.name,
        "devices": [_device(each, trace, estimate) for each in place.backends],
        "estimate": asdict(estimate.total) | {"two_qubit_depth": estimate.depth},
        "calls": audit.get("calls", {}),
        "falls": audit.get("falls", []),
        "text": tokenizer.decode(text[0]),
        "tokens": [{"text": names[row.token], "exact_text": names[row.exact_token], **asdict(row)} for row in tokens],
        "summary": summary(tokens, sampled, exact, run.temperature),
        "samples": 0 if sampled is None else SAMPLES,
        "heads_compared": [asdict(row) for row in head_rows(trace.passes)],
        "expectations": [
            {"token": number, "layer": each.layer, "kind": each.kind, "shape": list(each.values.shape)}
            | {name: _plain(getattr(each, name)) for name in ("values", "exact", "errors")}
            for number, one in enumerate(trace.passes)
            for each in one
        ],
        "versions": versions(_SDKS),
        "machine": machine(),
    }


def _on_device(program: PubProgram) -> list[QuantumCircuit]:
    """Return the circuits of a program on the qubits of the device: one, or one for each tile it ran on."""
    tiling = program.tiling
    if tiling is None:
        return [program.circuit]
    used = [placed for placed in tiling.places(program.circuit) if placed.where in program.tiles]
    return [QuantumCircuit(tiling.num_qubits).compose(placed.circuit, placed.tile) for placed in used]


def _plain(values: np.ndarray) -> list[float | None]:
    """Return numbers as a list, with None for those that are not known."""
    return [round(value, 6) if math.isfinite(value) else None for value in values.ravel().tolist()]


def _device(backend: Backend, trace: Trace, estimate: RunCost) -> dict[str, Any]:
    """Return what is known of one backend, and of the jobs on it whose results the generation used."""
    spec, estimator = BackendSpec.parse(backend.name), backend.estimator
    device = getattr(estimator, "device", None)
    found: dict[str, Any] = {
        "backend": backend.name,
        "name": f"{spec.name}:{spec.target}" if device is None and spec.target else getattr(device, "name", spec.name),
        "is_hardware": bool(device is not None and device.paid and not getattr(device, "is_simulator", False)),
        "options": dict(spec.options),
        "mitigation": None if backend.mitigation is None else str(backend.mitigation),
        "tiles": [],
        "shots": backend.shots,
        "precision": backend.precision,
        "settings": getattr(device, "settings", ""),
        "jobs": None,
        "calibration": None,
    }
    if device is None:
        return found
    ids: dict[str, bool] = {}  # whether it was in the ledger before
    for item in trace.metadata:
        if item.get("device") == device.name:
            ids[item["job_id"]] = bool(item.get("cached")) and ids.get(item["job_id"], True)
    rows = [row for row in estimator.ledger.rows(device=device.name) if row.job_id in ids]
    rows = list({row.job_id: row for row in rows}.values())
    if not rows:
        return found
    first = datetime.fromtimestamp(min(row.created for row in rows), UTC)
    last = datetime.fromtimestamp(max(row.updated for row in rows), UTC)
    counted, paid = reduce(add, (row.estimate for row in rows)), reduce(add, (row.cost for row in rows))
    found["jobs"] = {
        "count": len(rows),
        "from_ledger": sum(ids.values()),
        "first": first.isoformat(timespec="seconds"),
        "last": last.isoformat(timespec="seconds"),
        "circuits": counted.circuits,
        "executions": counted.shots,
        "seconds": paid.seconds,
        "seconds_estimated": counted.seconds,
        "usd": paid.usd,
        "is_paid": device.paid,
        "is_estimate": any(row.used is None for row in rows),
        "ids": sorted(ids),
    }
    programs = [program for program in trace.programs.values() if program.estimator is estimator]
    tiles = reduce(add, (program.tiles for program in programs), Counter[Tile]())
    found["tiles"] = [{"qubits": list(tile), "circuits": count} for tile, count in sorted(tiles.items())]
    circuits = [circuit for program in programs for circuit in _on_device(program)]
    ask = getattr(device, "calibration", None)
    calibration = None if ask is None else ask(circuits, first)
    if calibration is not None:
        qubits = [{"qubit": qubit, **figures} for qubit, figures in calibration.qubits.items()]
        found["calibration"] = {"date": calibration.date, "qubits": qubits, "gates": calibration.gates}
    return found
