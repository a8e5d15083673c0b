"""The search for a learning rate: every kind is trained at the same few rates, with seeds apart from those reported.

A trial is a cell with a rate: it is trained as others are, and only its validation loss is kept. The rate of a kind is
the one whose trials have the lowest mean loss; ``min_lr`` and ``circuit_lr`` keep their ratio to it. All kinds get the
same number of trials at the same rates, so no kind is tuned more than its reference or its control.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Any, TypedDict

from qiskit_qattn.errors import CheckpointError
from qiskit_qattn.evaluation.comparison.study import TRIAL_SEEDS, Cell, Study
from qiskit_qattn.evaluation.rendering import code, number, table
from qiskit_qattn.training.config import TrainConfig
from qiskit_qattn.untrusted import as_type, read_json

RECORD = "trial.json"
FORMAT = "qiskit-qattn/trial"
VERSION = 1


class Trial(TypedDict):
    """The content of ``trial.json``; the loss of a training that diverged is None."""

    format: str
    version: int
    kind: str
    seed: int
    learning_rate: float
    val_loss: float | None
    wall_seconds: float


def trial_record(cell: Cell, val_loss: float | None, wall_seconds: float) -> dict[str, Any]:
    """Return the record of a trial; ``val_loss`` is None if its training diverged."""
    found = {"format": FORMAT, "version": VERSION, "kind": cell.kind, "seed": cell.seed, "learning_rate": cell.rate}
    return {**found, "val_loss": val_loss, "wall_seconds": wall_seconds}


def read_trial(study: Study, cell: Cell) -> Trial | None:
    """Return the record of a trial that is done; None for one that is not.

    Raises:
        CheckpointError: If it is damaged or not this trial's.
    """
    path = study.cell_folder(cell) / RECORD
    try:
        record: Trial = as_type(read_json(path), Trial)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"The record {str(path)!r} is damaged: {error}. Delete it to measure again.") from error
    known = trial_record(cell, record["val_loss"], record["wall_seconds"])
    if record != known or not math.isfinite(record["val_loss"] or 0.0):
        raise CheckpointError(f"{str(path)!r} is not the record of {cell.name}. Delete it to measure again.")
    return record


def searched(study: Study) -> dict[str, dict[float, float]]:
    """Return for each kind the mean validation loss at each rate; infinity where a training diverged.

    Kinds whose trials are not all done are left out.
    """
    found: dict[str, dict[float, list[float]]] = {kind: {rate: [] for rate in study.rates} for kind in study.kinds}
    for cell in study.trials():
        if (record := read_trial(study, cell)) is not None:
            loss = record["val_loss"]
            found[cell.kind][cell.rate].append(math.inf if loss is None else loss)
    done = {
        kind: by for kind, by in found.items() if by and all(len(losses) == len(TRIAL_SEEDS) for losses in by.values())
    }
    return {kind: {rate: statistics.fmean(losses) for rate, losses in by.items()} for kind, by in done.items()}


def chosen_rates(study: Study) -> dict[str, float]:
    """Return the rate with the lowest mean loss for each kind whose trials are done; on a tie, the lowest rate."""
    return {kind: min(losses, key=lambda rate: (losses[rate], rate)) for kind, losses in searched(study).items()}


def rated(config: TrainConfig, rate: float) -> TrainConfig:
    """Return settings with another peak learning rate, to which ``min_lr`` and ``circuit_lr`` keep their ratio."""
    factor = rate / config.learning_rate
    return config.replace(
        learning_rate=rate, min_lr=min(rate, config.min_lr * factor), circuit_lr=config.circuit_lr * factor
    )


def cell_settings(study: Study, cell: Cell) -> TrainConfig:
    """Return the settings of a cell's run, with the rate that was found for its kind where one was searched.

    Raises:
        CheckpointError: If the trials of its kind are not done.
    """
    config = study.cell_config(cell)
    if not study.rates:
        return config
    rate = cell.rate or chosen_rates(study).get(cell.kind)
    if rate is None:
        raise CheckpointError(f"The learning rate of {cell.kind} is not known: its trials are not done.")
    return rated(config, rate)


def search_section(report: Mapping[str, Any]) -> list[str]:
    """Return the table of the search for learning rates; nothing where there was none."""
    found, rates = report.get("search"), [f"{rate:g}" for rate in report["study"].get("rates", ())]
    if not found:
        return []
    rows = []
    for kind, losses in found.items():
        best = min(losses, key=lambda rate: (math.inf if losses[rate] is None else losses[rate], float(rate)))
        rows.append([code(kind), *(number(losses[rate], "{:.4f}") for rate in rates), f"**{best}**"])
    return [
        "## Learning rates",
        table(["Kind", *(f"Loss at {rate}" for rate in rates), "Used"], rows),
        "Mean validation losses of the same number of trials for each kind, with seeds apart from those of the cells; a"
        " dash where a trial diverged. The learning rates of circuits and at the end of the schedule keep their ratio.",
    ]
