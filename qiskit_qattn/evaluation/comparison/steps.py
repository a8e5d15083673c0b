"""How many steps of a cell are done, as its process reports them in a file beside the cell's folder."""

from __future__ import annotations

from pathlib import Path

from qiskit_qattn.evaluation.comparison import record, search
from qiskit_qattn.evaluation.comparison.study import Cell, Study
from qiskit_qattn.training.files import writing
from qiskit_qattn.training.progress import Progress


def steps_done(study: Study, cell: Cell) -> int:
    """Return how many steps of a cell are done, as far as it has reported."""
    if (study.cell_folder(cell) / (search.RECORD if cell.rate else record.RECORD)).is_file():
        return study.config.max_steps
    try:
        return int(step_path(study, cell).read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):  # not started, or being written
        return 0


def step_path(study: Study, cell: Cell) -> Path:
    """Return the file with the number of a cell's last step."""
    return study.side_file(cell, "step")


class StepFile(Progress):
    """Writes the number of the last step to a file, from which the progress of all cells is shown."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def phase_started(self, name: str, step: int, max_steps: int) -> None:
        """Record the first step."""
        self._write(step)

    def step_done(self, step: int, loss: float | None, tokens_per_second: float) -> None:
        """Record a step whose loss is logged."""
        if loss is not None:
            self._write(step)

    def _write(self, step: int) -> None:
        with writing(self.path):
            self.path.write_text(str(step), encoding="ascii")
