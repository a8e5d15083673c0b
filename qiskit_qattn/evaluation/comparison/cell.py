"""One cell of a comparison: an ordinary run, what is measured of it, and a record that marks it as done.

``python -m qiskit_qattn.evaluation.comparison.cell FOLDER KIND SEED`` runs one in a process of its own, so that
threads, peak memory and random states are its own; with a RATE after the seed, a trial of the search for one. It stops,
as on SIGTERM, when its standard input is closed, that is, when the process that started it has ended.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
import traceback
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from filelock import FileLock
from torch import nn

from qiskit_qattn.backends.place import Place
from qiskit_qattn.errors import ConfigError, DivergenceError, QattnError
from qiskit_qattn.evaluation.circuit_measures import circuit_measures, head_measures
from qiskit_qattn.evaluation.comparison import search
from qiskit_qattn.evaluation.comparison.builder import load_builder, on_text
from qiskit_qattn.evaluation.comparison.device_use import qpu_clock, share_budget
from qiskit_qattn.evaluation.comparison.plan import load_study
from qiskit_qattn.evaluation.comparison.record import RECORD, head, read_record
from qiskit_qattn.evaluation.comparison.steps import StepFile, step_path
from qiskit_qattn.evaluation.comparison.study import Cell, Study
from qiskit_qattn.evaluation.gradient_leakage import gradients_cost_circuits
from qiskit_qattn.evaluation.leakage import leakage
from qiskit_qattn.evaluation.rendering import versions, write_json
from qiskit_qattn.evaluation.text_metrics import prediction_errors
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.nn.heads import QuantumHead
from qiskit_qattn.nn.placement import Movable, to_backend
from qiskit_qattn.training.config import TrainConfig
from qiskit_qattn.training.data import Corpus, fingerprint, load_corpus
from qiskit_qattn.training.metrics import finite, read_metrics
from qiskit_qattn.training.progress import Progress, TrainingInterrupted
from qiskit_qattn.training.run import train_run
from qiskit_qattn.training.task import Task, collated
from qiskit_qattn.training.task_loop import train_task

_MEASURED = 64  # items of validation data on which the circuits of custom models are measured
#: The figures that a cell takes from its run.
FROM_TRAINING = (
    *("val_loss", "val_loss_last_position", "train_loss", "step", "tokens_per_second", "train_seconds"),
    *("wall_seconds", "cpu_seconds", "peak_rss_mib", "peak_gpu_mib", "parameters", "head_backends", "history"),
)


def run_cell(study: Study, cell: Cell) -> dict[str, Any]:
    """Train and measure a cell, or continue where it stopped, unless its record exists; return the record.

    Of two processes that run the same cell, the second waits for the first and returns its record.

    Raises:
        CheckpointError: If its record or its run is damaged.
        ConfigError: If the text is not the one the study was planned for.
        TrainingInterrupted: On SIGINT or SIGTERM; the state of the run has been saved.
    """
    folder = study.cell_folder(cell)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(study.side_file(cell, "lock")):
        if (record := finished(study, cell)) is not None:
            return record
        progress = StepFile(step_path(study, cell))
        try:
            record = _run_trial(study, cell, progress) if cell.rate else train_and_measure(study, cell, progress)
        except QattnError:
            step_path(study, cell).unlink(missing_ok=True)
            raise
        write_json(folder / (search.RECORD if cell.rate else RECORD), record)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # the model and its figures are kept
        return record


def finished(study: Study, cell: Cell) -> dict[str, Any] | None:
    """Return the record of a cell or a trial that is done; None for one that is not.

    Raises:
        CheckpointError: If it is damaged or not this one's.
    """
    if not cell.rate:
        return read_record(study, cell)
    trial = search.read_trial(study, cell)
    return None if trial is None else dict(trial)


def _run_trial(study: Study, cell: Cell, progress: Progress) -> dict[str, Any]:
    """Train a trial, and return its record."""
    start = time.perf_counter()
    try:
        loss = train_and_measure(study, cell, progress)["val_loss"]
    except DivergenceError:
        loss = None
    return search.trial_record(cell, loss, time.perf_counter() - start)


def train_and_measure(study: Study, cell: Cell, progress: Progress) -> dict[str, Any]:
    """Train a cell, or continue where it stopped, and return its record, that of a trial without measures."""
    config, folder = search.cell_settings(study, cell), study.cell_folder(cell)
    made = {"versions": versions(), **({"learning_rate": config.learning_rate} if study.rates else {})}
    if study.build:
        return {**head(cell), **_build_and_train(study, cell, progress), **made}
    corpus = _text(study)
    resume = (folder / "config.toml").is_file()
    if not resume:
        shutil.rmtree(folder, ignore_errors=True)  # left by a process that was killed before the run started
    place = Place.open(config.backend)
    share_budget(place, study.num_circuit_cells)
    with place, qpu_clock(place, study.side_file(cell, "qpu")) as qpu:
        train_run(config, resume=resume, progress=progress, backend=place)
        measured = (read_metrics(folder) or {}) if cell.rate else cell_metrics(config, corpus, place)
    return {**head(cell), **measured, "qpu_seconds": qpu(), **made}


def _build_and_train(study: Study, cell: Cell, progress: Progress) -> dict[str, Any]:
    """Build a cell's model by the study's function, train it, and return its figures."""
    builder, config = load_builder(study.build), search.cell_settings(study, cell)
    text = cache(partial(_text, study))
    task = builder.build(cell.kind, cell.seed, config, text, study.sizes[cell.kind].n_inner)
    place = Place.open(config.backend)
    share_budget(place, study.num_circuit_cells)
    moved = study.moves and any(isinstance(part, Movable) for part in task.model.modules())
    with place, qpu_clock(place, study.side_file(cell, "qpu")) as qpu:
        if moved:
            to_backend(task.model, place)
        figures = train_task(config, task, study.cell_folder(cell), progress=progress)
        seconds = qpu()
    if cell.rate:
        return figures
    if moved:
        to_backend(task.model, "statevector")
    certificate = circuits = None
    if any(isinstance(part, QuantumHead) for part in task.model.modules()) and not gradients_cost_circuits(task.model):
        start = builder.build(cell.kind, cell.seed, config, text, study.sizes[cell.kind].n_inner).model
        circuits = head_measures(start, task.model, partial(_run_on_some, task), seed=cell.seed)
    if on_text(task):
        certificate = causality(task.model, vocab_size=text().tokenizer.vocab_size, block_size=config.model.block_size)
    return {
        **{name: figures[name] for name in (*FROM_TRAINING, "metrics", "data")},
        **({"audit": figures["audit"]} if figures["audit"] else {}),
        "source": builder.source,
        "qpu_seconds": seconds,
        "causality": certificate,
        "circuits": circuits,
    }


@torch.no_grad()
def _run_on_some(task: Task, model: nn.Module) -> None:
    """Call a model of a task on the first validation data."""
    device = next(task.model.parameters()).device
    batch = collated(task, task.validation, list(range(min(_MEASURED, len(task.validation)))), seed=0)
    task(model.eval().to(device), send_to_device(batch, device))


def _text(study: Study) -> Corpus:
    """Return the text of a study.

    Raises:
        ConfigError: If it is not the one the study was planned for.
    """
    corpus = load_corpus(study.config.data, study.config.model.block_size, split=study.config.split)
    if fingerprint(corpus) != study.text:
        raise ConfigError(f"The text {study.config.data!r} is not the one that {str(study.folder)!r} was planned for.")
    return corpus


def cell_metrics(config: TrainConfig, corpus: Corpus, place: Place) -> dict[str, Any]:
    """Return the figures of a finished run, and measurements of its saved model.

    Causality and the measures of circuits are properties of the model, not of where it runs: they are computed exactly.

    Args:
        config: The run's settings.
        corpus: The text it was trained on.
        place: Where its circuits run, those of its predictions too.

    Raises:
        CheckpointError: If the run's figures or its model are damaged.
    """
    figures = read_metrics(config.folder)
    assert figures is not None, "train_run leaves figures"
    model = GPT.from_pretrained(config.folder / "model")
    measured = {"causality": causality(model), "circuits": circuit_measures(model, corpus.val, seed=config.seed)}
    model.to_backend(place)
    measured["prediction"] = prediction_errors(model, corpus.tokenizer, corpus.val).to_dict()
    return {**{name: figures[name] for name in FROM_TRAINING}, **measured}


def causality(model: Any, *, vocab_size: int | None = None, block_size: int | None = None) -> dict[str, Any]:
    """Return the causality certificate of a model as plain values; arguments as for ``qa.leakage``."""
    found = leakage(model, vocab_size, block_size)
    return {
        "passed": found.passed,
        "leakage": finite(found),
        "gradient": finite(found.gradient),
        "edited": found.edited,
        "changed": found.changed,
    }


def _stop_with_parent() -> None:
    """Stop this process, as on SIGTERM, when its standard input is closed."""

    def wait() -> None:
        sys.stdin.read()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def main(folder: str, kind: str, seed: str, rate: str = "0") -> int:
    """Run a cell of the study in ``folder``, and return the exit code."""
    _stop_with_parent()
    try:
        run_cell(load_study(Path(folder)), Cell(int(seed), kind, float(rate)))
    except QattnError as error:
        if error.__cause__ is not None:
            traceback.print_exception(error.__cause__)  # for the log, of which the last line is the reason
        sys.stderr.write(" ".join(str(error).split()) + "\n")
        return 2
    except TrainingInterrupted as stop:
        return 128 + stop.signal
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
