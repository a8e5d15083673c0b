"""Checkpoints: folders ``step-N`` that hold all a run needs to continue as if it had never stopped.

A checkpoint is

    model/          config.json, model.safetensors (and tokenizer.json), as ``save_pretrained`` writes them
    trainer.pt      optimizer, gradient scaler, batch generator and every process's random states
    state.json      step, losses so far and clocks

and appears under its name only when it is complete. ``trainer.pt`` is read with ``weights_only``, which runs no code.
"""

from __future__ import annotations

import io
import json
import pickle
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import torch

from qiskit_qattn.errors import CheckpointError
from qiskit_qattn.training.files import new_folder, write_bytes, write_text
from qiskit_qattn.training.state import TrainState
from qiskit_qattn.training.tokenizer import CharTokenizer

KEEP = 2  # newest checkpoints that stay
FORMAT = "qiskit-qattn/checkpoint"
VERSION = 1


def save_model(folder: Path, model: Any, tokenizer: CharTokenizer) -> None:
    """Write a model and its tokenizer into the new folder ``folder``, in full or not at all.

    Raises:
        RunFolderError: If it cannot be written.
    """
    with new_folder(folder) as scratch:
        model.save_pretrained(scratch)
        tokenizer.save(scratch / "tokenizer.json")
        for file in scratch.iterdir():
            file.chmod(0o644)  # safetensors' own mode would hide the weights from other users of a shared folder


def save_checkpoint(
    folder: Path, model: Any, tokenizer: CharTokenizer, state: TrainState, tensors: dict[str, Any]
) -> Path:
    """Write ``folder/step-N`` for the step N of ``state``, then drop all but the newest :data:`KEEP`.

    Args:
        folder: The folder of checkpoints.
        model: What ``save_pretrained`` is called on.
        tokenizer: Its tokenizer.
        state: History and clocks.
        tensors: What goes to ``trainer.pt``: state dicts, tensors and plain values.

    Raises:
        RunFolderError: If it cannot be written; the checkpoints that were there then still are.
    """
    path = folder / f"step-{state.step}"
    buffer = io.BytesIO()
    torch.save(tensors, buffer)  # to memory first: on a full disk torch's own writer gives no clear error
    with new_folder(path) as scratch:
        save_model(scratch / "model", model, tokenizer)
        write_bytes(scratch / "trainer.pt", buffer.getvalue())
        record = {"format": FORMAT, "version": VERSION, **state.to_dict()}
        write_text(scratch / "state.json", json.dumps(record))
    for old in list_checkpoints(folder)[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    return path


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in ``folder``, oldest first."""
    found = [path for path in folder.glob("step-*") if re.fullmatch(r"step-\d+", path.name)]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def load_state(path: Path) -> TrainState:
    """Return the history and clocks of the checkpoint ``path``.

    Raises:
        CheckpointError: If it is missing, damaged or not ours.
    """
    try:
        record = json.loads((path / "state.json").read_text(encoding="utf-8"))
        if not isinstance(record, dict) or record.pop("format", None) != FORMAT:
            raise CheckpointError(f"{str(path)!r} is no checkpoint of qiskit-qattn.")
        if record.pop("version", None) != VERSION:
            raise CheckpointError(f"{str(path)!r} was written by another version of qiskit-qattn.")
        return TrainState.from_dict(record)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _damaged(path, "state.json", error) from error


def load_tensors(path: Path) -> dict[str, Any]:
    """Return what :func:`save_checkpoint` got as ``tensors``.

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
    return loaded


def _damaged(path: Path, part: str, error: Exception) -> CheckpointError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if isinstance(error, KeyError):
        reason = f"missing key {reason}"
    return CheckpointError(
        f"The checkpoint {str(path)!r} is damaged: {part}: {reason.rstrip('.')}."
        " Delete it to resume from the one before."
    )
