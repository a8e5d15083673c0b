"""One cell of a comparison: an ordinary run, its figures, and a record that says it is done.

``python -m qiskit_qattn.evaluation.comparison.cell FOLDER KIND SEED`` runs one in a process of its own, so that
threads, peak memory and random states are its own. It stops, as on SIGTERM, when its standard input is closed: that is
how it learns that whoever started it is gone.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from qiskit_qattn.backends.place import Place
from qiskit_qattn.errors import CheckpointError, ConfigError, QattnError
from qiskit_qattn.evaluation.comparison.devices import qpu_seconds, share_budget
from qiskit_qattn.evaluation.comparison.metrics import cell_metrics
from qiskit_qattn.evaluation.comparison.plan import Cell, Study, load_study
from qiskit_qattn.training.data import load_corpus
from qiskit_qattn.training.figures import fingerprint
from qiskit_qattn.training.files import write_text, writing
from qiskit_qattn.training.interrupt import TrainingInterrupted
from qiskit_qattn.training.progress import Progress
from qiskit_qattn.training.run import train_run

RECORD = "cell.json"
FORMAT = "qiskit-qattn/cell"
VERSION = 1


class StepFile(Progress):
    """Keeps the number of the last step in a file, for whoever shows the progress of all cells."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def phase_started(self, name: str, step: int, max_steps: int) -> None:
        """Note where training starts."""
        self._note(step)

    def step_done(self, step: int, loss: float | None, tokens_per_second: float) -> None:
        """Note a step whose loss is logged."""
        if loss is not None:
            self._note(step)

    def _note(self, step: int) -> None:
        with writing(self.path):
            self.path.write_text(str(step), encoding="ascii")


def run_cell(study: Study, cell: Cell) -> dict[str, Any]:
    """Train and measure a cell, or go on where it stopped, unless its record is there; return the record.

    Of two processes that come to the same cell, the second waits for the first and takes its record.

    Raises:
        CheckpointError: If its record or its run is damaged.
        ConfigError: If the text is not the study's.
        TrainingInterrupted: If SIGINT or SIGTERM came; the run's state has been saved.
    """
    folder = study.cell_folder(cell)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(_beside(study, cell, "lock")):
        if (record := read_record(study, cell)) is not None:
            return record
        try:
            record = _train_and_measure(study, cell)
        except QattnError:
            step_path(study, cell).unlink(missing_ok=True)
            raise
        write_text(folder / RECORD, json.dumps(record, indent=1, allow_nan=False) + "\n")
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # the model and its figures stay
        return record


def _train_and_measure(study: Study, cell: Cell) -> dict[str, Any]:
    """Train a cell, or go on where it stopped, and return its record."""
    config, folder = study.cell_config(cell), study.cell_folder(cell)
    corpus = load_corpus(config.data, config.block_size)
    if fingerprint(corpus) != study.text:
        raise ConfigError(f"The text {config.data!r} is not the one that {str(study.folder)!r} was planned for.")
    resume = (folder / "config.toml").is_file()
    if not resume:
        shutil.rmtree(folder, ignore_errors=True)  # killed before the run had begun
    backend = Place.open(config.backend)
    share_budget(backend, study.num_circuit_cells)
    with backend, qpu_clock(backend, _beside(study, cell, "qpu")) as qpu:
        train_run(config, resume=resume, progress=StepFile(step_path(study, cell)), backend=backend)
        measured = cell_metrics(config, corpus, backend)
    head = {"format": FORMAT, "version": VERSION, "kind": cell.kind, "seed": cell.seed}
    return {**head, **measured, "qpu_seconds": qpu()}


@contextmanager
def qpu_clock(backend: Place, path: Path) -> Iterator[Callable[[], float]]:
    """Yield a function that returns the QPU seconds of a cell, those of earlier processes in the file included.

    At the end of the block, however it ends, the file gets them; a process that is killed loses its own.
    """
    before = float(path.read_text(encoding="ascii")) if path.is_file() else 0.0

    def read() -> float:
        return before + qpu_seconds(backend)

    try:
        yield read
    finally:
        write_text(path, repr(read()))


def read_record(study: Study, cell: Cell) -> dict[str, Any] | None:
    """Return the record of a cell that is done; None for one that is not.

    Raises:
        CheckpointError: If it is damaged or not this cell's.
    """
    path = study.cell_folder(cell) / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"The record {str(path)!r} is damaged: {error}. Delete it to measure again.") from error
    head = {"format": FORMAT, "version": VERSION, "kind": cell.kind, "seed": cell.seed}
    if not isinstance(record, dict) or "causality" not in record or any(record.get(k) != v for k, v in head.items()):
        raise CheckpointError(f"{str(path)!r} is not the record of {cell.name}. Delete it to measure again.")
    return record


def records(study: Study) -> dict[Cell, dict[str, Any]]:
    """Return the records of the cells that are done."""
    found = {cell: read_record(study, cell) for cell in study.cells()}
    return {cell: record for cell, record in found.items() if record is not None}


def steps_done(study: Study, cell: Cell) -> int:
    """Return how many steps of a cell are trained, as far as it has told."""
    if (study.cell_folder(cell) / RECORD).is_file():
        return study.config.max_steps
    try:
        return int(step_path(study, cell).read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):  # not begun, or just being written
        return 0


def told_since(study: Study, cell: Cell, when: float) -> bool:
    """Return whether a cell has told its step since a time in seconds since 1970."""
    try:
        return step_path(study, cell).stat().st_mtime >= when
    except FileNotFoundError:
        return False


def log_path(study: Study, cell: Cell) -> Path:
    """Return where a cell's process writes what it has to say."""
    return _beside(study, cell, "log")


def step_path(study: Study, cell: Cell) -> Path:
    """Return where a cell keeps the number of its last step."""
    return _beside(study, cell, "step")


def _beside(study: Study, cell: Cell, suffix: str) -> Path:
    return study.cell_folder(cell).with_name(f".{cell.name}.{suffix}")


def _stop_with_parent() -> None:
    """Ask this process to stop when its standard input is closed."""

    def wait() -> None:
        sys.stdin.read()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def main(folder: str, kind: str, seed: str) -> int:
    """Run a cell of the study in ``folder``, and return the exit code."""
    _stop_with_parent()
    try:
        run_cell(load_study(Path(folder)), Cell(int(seed), kind))
    except QattnError as error:
        sys.stderr.write(" ".join(str(error).split()) + "\n")
        return 2
    except TrainingInterrupted as stop:
        return 128 + stop.signal
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
