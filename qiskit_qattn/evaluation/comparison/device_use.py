"""What a cell uses of a device: its share of the budget, and seconds on the processor over all its processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from qiskit_qattn.backends.place import Place
from qiskit_qattn.errors import BackendError, CheckpointError
from qiskit_qattn.training.files import write_text
from qiskit_qattn.untrusted import as_type, read_json


@contextmanager
def qpu_clock(place: Place, path: Path) -> Iterator[Callable[[], float]]:
    """Yield a function that returns the QPU seconds of a cell, including those of earlier processes.

    The file has the seconds of earlier processes. It is written at the end of the block, also after an error; only a
    process that is killed loses its own seconds.
    """
    try:
        before = as_type(read_json(path), float) if path.is_file() else 0.0
    except ValueError as error:
        raise CheckpointError(f"The QPU seconds in {str(path)!r} are damaged: {error}.") from error

    def read() -> float:
        return before + qpu_seconds(place)

    try:
        yield read
    finally:
        write_text(path, repr(read()))


def qpu_seconds(place: Place) -> float:
    """Return the QPU seconds of all jobs since a place was opened; 0 for a simulation."""
    for _, estimator in place.devices:
        with suppress(BackendError):  # of the ledger; then it is as known before
            estimator.update_usage()
    return math.fsum(estimator.spent.seconds for _, estimator in place.devices)


def share_budget(place: Place, cells: int) -> None:
    """Limit one cell to its share of each device's budget, so that all cells together stay within it.

    Args:
        place: The cell's own, already open.
        cells: Number of cells that share the budget.
    """
    for _, estimator in place.devices:
        if estimator.budget is not None:
            estimator.budget = replace(estimator.budget, limit=estimator.budget.limit / cells, shared=False)
