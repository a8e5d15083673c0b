from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from qiskit_qattn.errors import CheckpointError, ConfigError
from qiskit_qattn.evaluation.comparison import cell as cell_module
from qiskit_qattn.evaluation.comparison.cell import run_cell
from qiskit_qattn.evaluation.comparison.plan import open_study
from qiskit_qattn.evaluation.comparison.record import RECORD, read_record, records
from qiskit_qattn.evaluation.comparison.steps import steps_done
from qiskit_qattn.evaluation.comparison.study import Cell, Study
from qiskit_qattn.training import trainer as trainer_module
from qiskit_qattn.training.metrics import read_metrics
from qiskit_qattn.training.progress import Progress
from qiskit_qattn.training.run import train_run

Plan = Callable[..., Study]
TIMES = {"tokens_per_second", "train_seconds", "wall_seconds", "cpu_seconds", "peak_rss_mib"}


def without_times(record: dict[str, Any] | None) -> dict[str, Any]:
    assert record is not None
    return {name: value for name, value in record.items() if name not in TIMES}


def test_a_cell_holds_what_the_report_asks_for(finished_study: Study):
    found = records(finished_study)
    assert list(found) == finished_study.cells()
    for cell, record in found.items():
        figures = read_metrics(finished_study.cell_folder(cell))
        assert figures is not None
        assert (record["kind"], record["seed"]) == (cell.kind, cell.seed)
        assert record["val_loss"] == figures["val_loss"]
        assert record["history"] == figures["history"]
        assert record["parameters"]["total"] == finished_study.sizes[cell.kind].total
        assert record["causality"] == {"passed": True, "leakage": 0, "gradient": 0, "edited": None, "changed": None}
        assert 0 < record["prediction"]["character_error_rate"] <= 1
        assert record["circuits"]["effective_dimension"] > 0
        assert (record["circuits"]["gradient_variance"] is None) == (cell.kind == "classical")
        assert record["qpu_seconds"] == 0
        assert all(record[name] > 0 for name in TIMES)
        assert steps_done(finished_study, cell) == 12


def test_a_cell_that_is_done_is_not_run_again(done: Study, monkeypatch: pytest.MonkeyPatch):
    def run_twice(*args: Any, **options: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(cell_module, "train_run", run_twice)
    found = records(done)
    assert list(found) == done.cells()
    for cell, record in found.items():
        assert run_cell(done, cell) == record
        assert not (done.cell_folder(cell) / "checkpoints").exists()


def test_a_cell_of_a_finished_run_is_only_measured(done: Study, monkeypatch: pytest.MonkeyPatch):
    cell = done.cells()[1]
    before = read_record(done, cell)
    (done.cell_folder(cell) / RECORD).unlink()
    monkeypatch.setattr(trainer_module.Trainer, "train", None)
    assert run_cell(done, cell) == before


def test_an_interrupted_cell_goes_on_to_the_same_figures(plan: Plan, finished_study: Study):
    study, cell = plan(seeds=2), Cell(0, "qisa")
    open_study(study)

    class Killed(Progress):
        def step_done(self, step: int, loss: float | None, tokens_per_second: float) -> None:
            if step == 6:
                raise KeyboardInterrupt

    config = study.cell_config(cell)
    with pytest.raises(KeyboardInterrupt):
        train_run(config, progress=Killed())
    assert read_record(study, cell) is None
    assert without_times(run_cell(study, cell)) == without_times(read_record(finished_study, cell))


def test_a_run_that_was_killed_before_it_had_begun_starts_anew(plan: Plan, finished_study: Study):
    study, cell = plan(seeds=2), Cell(1, "classical")
    open_study(study)
    study.cell_folder(cell).mkdir(parents=True)
    (study.cell_folder(cell) / ".config.toml.tmp").write_text("preset = ")
    assert without_times(run_cell(study, cell)) == without_times(read_record(finished_study, cell))


def test_kinds_of_one_seed_see_the_same_batches(plan: Plan, monkeypatch: pytest.MonkeyPatch):
    seen: dict[Cell, list[torch.Tensor]] = {}
    draw = trainer_module.random_batch
    study = plan("qsann,rff", max_steps=3)
    open_study(study)
    for cell in study.cells():
        batches = seen.setdefault(cell, [])

        def noted(*args: Any, batches: list[torch.Tensor] = batches) -> tuple[torch.Tensor, torch.Tensor]:
            x, y = draw(*args)
            batches.append(x)
            return x, y

        monkeypatch.setattr(trainer_module, "random_batch", noted)
        run_cell(study, cell)
    first, *others = (torch.stack(batches) for batches in seen.values())
    assert len(first) == 3
    assert all(torch.equal(first, other) for other in others)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"val_loss": 1}'])
def test_a_damaged_record_is_refused_and_left(done: Study, content: str):
    cell = done.cells()[0]
    path = done.cell_folder(cell) / RECORD
    path.write_text(content)
    with pytest.raises(CheckpointError, match=r"cell\.json.*Delete it"):
        run_cell(done, cell)
    assert path.read_text() == content


def test_the_record_of_another_cell_is_refused(done: Study):
    one, other = done.cells()[:2]
    shutil.copy(done.cell_folder(one) / RECORD, done.cell_folder(other))
    with pytest.raises(CheckpointError, match=r"not the record of qisa-s0"):
        read_record(done, other)


def test_another_text_is_refused(plan: Plan, text_file: Path, tmp_path: Path):
    text = tmp_path / "text.txt"
    shutil.copy(text_file, text)
    study = plan(data=str(text))
    text.write_text(text.read_text()[::-1])
    with pytest.raises(ConfigError, match="not the one"):
        run_cell(study, study.cells()[0])
    assert not study.cell_folder(study.cells()[0]).exists()


def test_only_models_with_circuits_share_a_budget(plan: Plan):
    assert plan("qisa,rff", seeds=3).num_circuit_cells == 3
    assert plan("rff", seeds=3).num_circuit_cells == 1
