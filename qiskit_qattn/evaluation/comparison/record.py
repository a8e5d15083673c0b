"""The record of a cell: the file that marks it as done, and what is in it."""

from __future__ import annotations

from typing import Any, TypedDict

from qiskit_qattn.errors import CheckpointError
from qiskit_qattn.evaluation.comparison.study import Cell, Study
from qiskit_qattn.training.audits import AuditOfSteps
from qiskit_qattn.training.metrics import History, Parameters
from qiskit_qattn.untrusted import as_type, read_json

RECORD = "cell.json"
FORMAT = "qiskit-qattn/cell"
VERSION = 1


class Certificate(TypedDict):
    """The causality of a model."""

    passed: bool
    leakage: float | None
    gradient: float | None


class Circuits(TypedDict):
    """The measures of a model's circuits."""

    gradient_variance: float | None
    effective_dimension: float | None
    meyer_wallach: float | None
    expressibility: float | None
    expressibility_random_weights: float | None


class Prediction(TypedDict):
    """The error rates of a model."""

    character_error_rate: float
    word_error_rate: float


class _Made(TypedDict, total=False):
    """What records have since a later version."""

    versions: dict[str, str | None]
    learning_rate: float


class Figures(_Made):
    """What every record holds."""

    val_loss: float
    train_loss: float
    step: int
    tokens_per_second: float
    train_seconds: float
    wall_seconds: float
    cpu_seconds: float
    qpu_seconds: float
    peak_rss_mib: float
    peak_gpu_mib: float | None
    parameters: Parameters
    history: History


class Record(Figures):
    """The content of ``cell.json`` for a GPT."""

    val_loss_last_position: float
    causality: Certificate
    circuits: Circuits
    prediction: Prediction


class _Audit(TypedDict, total=False):
    """What was computed where, on a chain of backends."""

    audit: AuditOfSteps


class CustomRecord(Figures, _Audit):
    """The content of ``cell.json`` for a custom model; it has a certificate if it is a language model.

    Its circuits are measured where they run exactly.
    """

    causality: Certificate | None
    circuits: Circuits | None
    metrics: dict[str, float | None]
    data: str
    source: str


def head(cell: Cell) -> dict[str, Any]:
    """Return what a record says about itself."""
    return {"format": FORMAT, "version": VERSION, "kind": cell.kind, "seed": cell.seed}


def read_record(study: Study, cell: Cell) -> dict[str, Any] | None:
    """Return the record of a cell that is done; None for one that is not.

    Raises:
        CheckpointError: If it is damaged or not this cell's.
    """
    path = study.cell_folder(cell) / RECORD
    try:
        record = read_json(path)
        is_record = isinstance(record, dict) and "causality" in record
        if not is_record or any(record.get(name) != value for name, value in head(cell).items()):
            raise CheckpointError(f"{str(path)!r} is not the record of {cell.name}. Delete it to measure again.")
        return dict(as_type(record, CustomRecord if study.build else Record))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"The record {str(path)!r} is damaged: {error}. Delete it to measure again.") from error


def records(study: Study) -> dict[Cell, dict[str, Any]]:
    """Return the records of the cells that are done, without trials."""
    found = {cell: read_record(study, cell) for cell in study.cells()}
    return {cell: record for cell, record in found.items() if record is not None}
