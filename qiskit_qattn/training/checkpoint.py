"""Checkpoints: folders ``step-N`` with all that a run needs to continue as if it had never stopped.

A checkpoint is

    model/          config.json, model.safetensors (and tokenizer.json), as ``save_pretrained`` writes them;
                    for another model than a GPT weights.pt, its ``state_dict``
    trainer.pt      optimizer, gradient scaler, batch generator and every process's random states
    state.json      step, losses so far and clocks: a :class:`TrainState`

and appears under its name only when it is complete. ``trainer.pt`` is read with ``weights_only``, which runs no code.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import re
import shutil
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch

from qiskit_qattn.errors import CheckpointError, RunFolderError
from qiskit_qattn.training.files import new_folder, write_bytes, write_text
from qiskit_qattn.training.tokenizer import CharTokenizer
from qiskit_qattn.untrusted import as_type, read_json

KEEP = 2  # newest checkpoints that are not deleted
FORMAT = "qiskit-qattn/checkpoint"
VERSION = 1


@dataclass(frozen=True)
class TrainLoss:
    """The mean cross-entropy (nats per token) of the batch of one step."""

    step: int
    loss: float


@dataclass(frozen=True)
class Validation:
    """Losses on the fixed validation batches before training step ``step``.

    ``val_loss`` is the mean over all positions, ``val_loss_last_position`` that of the last position alone, which
    has no future to leak from; None for other data than text.
    """

    step: int
    train_loss: float | None
    val_loss: float
    val_loss_last_position: float | None


class Tensors(TypedDict):
    """The content of ``trainer.pt``: state dicts, the batch generator, random states per process, the text's hash."""

    optimizer: dict[str, Any]
    scaler: dict[str, Any] | None
    generator: torch.Tensor
    random: list[dict[str, Any]]
    text: str


@dataclass
class TrainState:
    """The history and the clocks of one model's training.

    Attributes:
        step: Steps done.
        train: Logged training losses.
        val: Validations so far.
        tokens: Tokens trained on while ``train_seconds`` ran.
        train_seconds: Time in training steps.
        wall_seconds: Total time, over all resumed parts.
        cpu_seconds: Total processor time.
    """

    step: int = 0
    train: list[TrainLoss] = field(default_factory=list)
    val: list[Validation] = field(default_factory=list)
    tokens: int = 0
    train_seconds: float = 0.0
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0

    @property
    def tokens_per_second(self) -> float:
        """Training throughput, without validation and saving."""
        return self.tokens / self.train_seconds if self.train_seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainState:
        """Return the state that :meth:`to_dict` wrote.

        Raises:
            ValueError: For values of other types, a negative clock, or a history that is not before ``step``.
        """
        known = {name: value for name, value in values.items() if name != "profile"}  # that early versions wrote
        state: TrainState = as_type(known, cls)
        for name in ("step", "tokens", "train_seconds", "wall_seconds", "cpu_seconds"):
            if (number := getattr(state, name)) < 0:
                raise ValueError(f"{name} is {number}, but must be at least 0")
        for name in ("train", "val"):
            if any(not 0 <= item.step <= state.step for item in getattr(state, name)):
                raise ValueError(f"{name} has steps that are not between 0 and {state.step}")
        return state


def random_states() -> dict[str, Any]:
    """Return the states of Python's, NumPy's and PyTorch's global generators as tensors and plain values."""
    version, numbers, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [str(kind), [int(k) for k in keys], int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """Set the global generators to what :func:`random_states` returned.

    Raises:
        ValueError: For states that are not those of generators.
    """
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, position, has_gauss, cached = states["numpy"]
    if not 0 <= position <= len(keys):  # NumPy does not check it
        raise ValueError(f"the position of NumPy's generator is {position}")
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(states["torch"])
    if states["cuda"] and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])


def save_model(folder: Path, model: Any, tokenizer: CharTokenizer) -> None:
    """Write a model and its tokenizer into the new folder ``folder``, completely or not at all.

    Raises:
        RunFolderError: If it cannot be written.
    """
    with new_folder(folder) as scratch:
        model.save_pretrained(scratch)
        tokenizer.save(scratch / "tokenizer.json")


def save_checkpoint(folder: Path, save: Callable[[Path], None], state: TrainState, tensors: Tensors) -> Path:
    """Write ``folder/step-N`` for the step N of ``state``, then drop all but the newest :data:`KEEP`.

    Args:
        folder: The folder of checkpoints.
        save: Writes the model into a new folder, for example by :func:`save_model`.
        state: History and clocks.
        tensors: The content of ``trainer.pt``.

    Raises:
        RunFolderError: If it cannot be written; earlier checkpoints are then kept.
    """
    path = folder / f"step-{state.step}"
    buffer = io.BytesIO()
    torch.save(tensors, buffer)  # to memory first: on a full disk torch's own writer gives no clear error
    with new_folder(path) as scratch:
        save(scratch / "model")
        write_bytes(scratch / "trainer.pt", buffer.getvalue())
        record = {"format": FORMAT, "version": VERSION, **state.to_dict()}
        write_text(scratch / "state.json", json.dumps(record))
    for old in list_checkpoints(folder)[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    return path


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in ``folder``, oldest first."""
    found = [path for path in folder.glob("step-*") if re.fullmatch("step-[0-9]{1,18}", path.name)]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def find_model(run: Path) -> Path:
    """Return the folder of a run's model: the final one, else the newest checkpoint's, else ``run`` itself.

    Raises:
        RunFolderError: If there is no model.
    """
    checkpoints = [path / "model" for path in reversed(list_checkpoints(run / "checkpoints"))]
    for folder in (run / "model", *checkpoints, run):
        if os.path.isfile(folder / "tokenizer.json"):
            return folder
    raise RunFolderError(f"No model in {str(run)!r}: neither a run folder with a checkpoint nor a saved model.")


def load_state(path: Path) -> TrainState:
    """Return the history and clocks of the checkpoint ``path``.

    Raises:
        CheckpointError: If it is missing, damaged or not a checkpoint of this package.
    """
    try:
        record = read_json(path / "state.json")
        if not isinstance(record, dict) or record.pop("format", None) != FORMAT:
            raise CheckpointError(f"{str(path)!r} is not a checkpoint of qiskit-qattn.")
        if record.pop("version", None) != VERSION:
            raise CheckpointError(f"{str(path)!r} was written by another version of qiskit-qattn.")
        state = TrainState.from_dict(record)
        if path.name != f"step-{state.step}":
            raise ValueError(f"its step is {state.step}")
        return state
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _damaged(path, "state.json", error) from error


def load_tensors(path: Path) -> Tensors:
    """Return the ``tensors`` that :func:`save_checkpoint` wrote.

    Raises:
        CheckpointError: If it is missing or damaged.
    """
    try:
        if not zipfile.is_zipfile(path / "trainer.pt"):
            raise ValueError("it is missing or cut short.")
        loaded = torch.load(path / "trainer.pt", map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise _damaged(path, "trainer.pt", error) from error
    if not isinstance(loaded, dict) or not {"optimizer", "generator", "random", "text"} <= loaded.keys():
        raise CheckpointError(f"{str(path / 'trainer.pt')!r} is no trainer state of qiskit-qattn.")
    try:
        tensors: Tensors = as_type({"scaler": None, **loaded}, Tensors)
    except ValueError as error:
        raise _damaged(path, "trainer.pt", error) from error
    return tensors


def _damaged(path: Path, part: str, error: Exception) -> CheckpointError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return CheckpointError(
        f"The checkpoint {str(path)!r} is damaged: {part}: {reason.rstrip('.')}."
        " Delete it to resume from the previous one."
    )
