from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from qiskit_qattn.evaluation.comparison.cell import run_cell
from qiskit_qattn.evaluation.comparison.plan import open_study
from qiskit_qattn.evaluation.comparison.record import RECORD, read_record, records
from qiskit_qattn.evaluation.comparison.runners import run_cells
from qiskit_qattn.evaluation.comparison.study import Cell, Study

Plan = Callable[..., Study]
RUN_ALL = """
import sys
from qiskit_qattn.evaluation.comparison.runners import run_in_process
for kind in ("classical", "qisa"):
    run_in_process(sys.argv[1], kind, 0, 1, f"{sys.argv[1]}/{kind}.log")
"""
LONG: dict[str, Any] = {"max_steps": 100, "checkpoint_interval": 20, "eval_interval": 100}


@pytest.fixture(autouse=True)
def found_by_other_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))


def losses(study: Study) -> dict[Cell, Any]:
    return {cell: (r["val_loss"], r["val_loss_last_position"], r["history"]) for cell, r in records(study).items()}


def wait_for(condition: Callable[[], object], process: subprocess.Popen[Any]) -> None:
    while not condition():
        assert process.poll() is None
        time.sleep(0.005)


@contextmanager
def running(study: Study) -> Iterator[subprocess.Popen[bytes]]:
    """Run all cells of a study in a process group of its own."""
    command = [sys.executable, "-c", RUN_ALL, str(study.folder)]
    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE) as process:
        yield process


@pytest.mark.more
def test_killed_in_the_middle_no_cell_is_lost_or_run_twice(plan: Plan, tmp_path: Path):
    study, whole = plan(**LONG), plan(**LONG, out=str(tmp_path / "whole"))
    first, second = study.cells()
    for part in (study, whole):
        open_study(part)
    with running(study) as process:
        wait_for(lambda: list(study.cell_folder(second).glob("checkpoints/step-*")), process)
        os.killpg(process.pid, signal.SIGKILL)
    before = (study.cell_folder(first) / RECORD).stat().st_mtime_ns
    assert read_record(study, second) is None
    [*_, last] = sorted(int(path.name[5:]) for path in study.cell_folder(second).glob("checkpoints/step-*"))
    assert 0 < last < 100
    for cell in study.cells():
        run_cell(study, cell)
        run_cell(whole, cell)
    assert (study.cell_folder(first) / RECORD).stat().st_mtime_ns == before
    assert losses(study) == losses(whole)


def test_a_cell_stops_and_is_saved_when_its_runner_dies(plan: Plan):
    study = plan(**{**LONG, "max_steps": 100_000, "checkpoint_interval": 50_000})
    open_study(study)
    cell = study.cells()[0]
    step = study.cell_folder(cell).with_name(f".{cell.name}.step")
    with running(study) as process:
        wait_for(lambda: step.is_file() and int(step.read_text() or 0) > 3, process)
        process.kill()
    saved = study.cell_folder(cell) / "checkpoints"
    deadline = time.monotonic() + 60
    while not list(saved.glob("step-*")):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_cell_that_fails_says_why(plan: Plan):
    study = plan(learning_rate=1e30, warmup_steps=0, grad_clip=0.0)
    open_study(study)
    [(cell, reason)] = run_cells(study, study.cells()[1:], jobs=1).items()
    assert cell == Cell(0, "qisa")
    assert "try a lower learning_rate" in reason
    assert read_record(study, cell) is None


@pytest.mark.more
def test_ray_gives_the_same_results(plan: Plan, finished_study: Study):
    ray = pytest.importorskip("ray", reason="Ray is not installed (the extra cluster)")
    study = plan(seeds=2)
    open_study(study)
    ray.init(num_cpus=2, include_dashboard=False, configure_logging=False, log_to_driver=False)
    try:
        cells = study.cells()[:2]
        assert run_cells(study, cells, jobs=2, cluster="ray") == {}
    finally:
        ray.shutdown()
    assert losses(study) == {cell: found for cell, found in losses(finished_study).items() if cell in cells}


def test_nothing_to_run_starts_nothing(finished_study: Study):
    assert run_cells(finished_study, [], cluster="ray") == {}
