from __future__ import annotations

import io

from rich.console import Console

from qiskit_qattn.cli.progress import BarProgress, LineProgress, make_progress
from qiskit_qattn.training.progress import Progress
from qiskit_qattn.training.state import Validation


def watch(console: Console) -> Progress:
    with make_progress(console) as progress:
        progress.phase_started("model", 0, 10)
        progress.validated(Validation(0, None, 4.25, 4.5), 0.0)
        for step in range(1, 11):
            progress.step_done(step, 3.125, 12345.6)
        progress.final_validation(1, 2)
        progress.phase_finished("model", 2.5, 2.75)
    return progress


def test_lines_where_there_is_no_terminal():
    out = io.StringIO()
    assert type(watch(Console(file=out, width=40))) is LineProgress
    lines = out.getvalue().splitlines()
    assert lines[0] == "model: training from step 0 to 10"
    assert lines[1].split() == ["step", "0", "train", "–", "val", "4.2500", "last", "position", "4.5000"]
    assert lines[2] == "model: validation loss 2.5000, last position 2.7500"


def test_a_bar_on_a_terminal():
    out = io.StringIO()
    assert type(watch(Console(file=out, width=120, force_terminal=True, color_system=None))) is BarProgress
    shown = out.getvalue()
    assert "10/10" in shown
    assert "model: validation loss 2.5000" in shown
