"""Comparisons of someone's own models, from the plan to the report."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from qiskit_qattn.errors import CheckpointError, ConfigError
from qiskit_qattn.evaluation.comparison import builder as builder_module
from qiskit_qattn.evaluation.comparison.builder import load_builder
from qiskit_qattn.evaluation.comparison.cell import run_cell
from qiskit_qattn.evaluation.comparison.plan import load_study, open_study
from qiskit_qattn.evaluation.comparison.record import RECORD, read_record, records
from qiskit_qattn.evaluation.comparison.report import write_report
from qiskit_qattn.evaluation.comparison.study import Cell, Study
from qiskit_qattn.training import task_loop as loop_module
from qiskit_qattn.training.progress import Progress
from qiskit_qattn.training.task_loop import train_task

Plan = Callable[..., Study]
TIMES = {"tokens_per_second", "train_seconds", "wall_seconds", "cpu_seconds", "peak_rss_mib"}


def run(study: Study) -> Study:
    """Run all cells of a study in this process, and return the study in the folder."""
    study = open_study(study)
    for cell in study.cells():
        run_cell(study, cell)
    return study


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return the files of a folder with their times and contents."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


def without_times(record: dict[str, Any] | None) -> dict[str, Any]:
    assert record is not None
    return {name: value for name, value in record.items() if name not in TIMES}


def test_a_study_of_own_models_is_trained_and_reported(plan_own: Plan):
    study = run(plan_own())
    report = write_report(study, {})
    assert report["complete"]
    for cell, record in records(study).items():
        assert record["parameters"]["total"] == study.sizes[cell.kind].total
        assert (record["parameters"]["quantum"] > 0) == (cell.kind == "quantum")
        assert 0 <= record["metrics"]["accuracy"] <= 1
        assert record["causality"] is None
        assert (record["circuits"] is None) == (cell.kind == "plain")
        assert record["val_loss_last_position"] is None
        assert [item["step"] for item in record["history"]["val"]] == [0, 5, 10, 12]
    text = (study.folder / "report.md").read_text()
    assert "models that `ownmodels:build` builds" in text
    assert "| Kind | Validation loss | Training loss | accuracy |" in text
    assert "Not enough seeds to distinguish quantum and plain" in text
    assert "correction over 1 comparison: of kinds with the reference." in text
    assert "Width" in text and "## Circuits" in text
    for absent in ("Causality", "n_embd", "nats", "tokens", "None", "Extended", "Made by", "dequantised"):
        assert absent not in text
    assert text.rstrip().splitlines()[-2] == study.command()
    assert "--build ownmodels:build" in study.command()
    header, *rows = (study.folder / "cells.csv").read_text().splitlines()
    assert "metrics_accuracy" in header.split(",") and len(rows) == 4


def test_kinds_of_one_seed_see_the_same_batches_and_the_seed_decides_the_rest(plan_own: Plan):
    found = records(run(plan_own()))
    data = {cell: record["data"] for cell, record in found.items()}
    assert data[Cell(0, "plain")] == data[Cell(0, "quantum")] != data[Cell(1, "plain")]
    losses = [record["val_loss"] for record in found.values()]
    assert len(set(losses)) == 4


def test_a_study_grows_without_touching_the_cells_that_are_done(plan_own: Plan, tmp_path: Path):
    first = run(plan_own(seeds=1))
    before = files(first.folder / "cells")
    grown = open_study(plan_own("wide", seeds=2))
    assert [cell.name for cell in grown.cells()] == [f"{kind}-s{s}" for s in (0, 1) for kind in grown.kinds]
    assert grown.kinds == ("plain", "quantum", "wide")
    rest = [cell for cell in grown.cells() if cell not in records(grown)]
    assert rest == [Cell(0, "wide"), *(Cell(1, kind) for kind in grown.kinds)]
    for cell in rest:
        run_cell(grown, cell)
    after = files(first.folder / "cells")
    assert {name: after[name] for name in before} == before
    report = write_report(grown, {})
    assert report["complete"] and len(report["cells"]) == 6
    assert report["kinds"]["wide"]["seeds"] == [0, 1]
    text = (grown.folder / "report.md").read_text()
    assert "**Extended:** at first the study had the kinds `plain`, `quantum` and the seeds 0 to 0" in text
    whole = run(plan_own("quantum,wide", seeds=2, out=str(tmp_path / "whole")))
    assert [without_times(r) for r in records(whole).values()] == [without_times(r) for r in records(grown).values()]


def test_cells_of_different_versions_are_told_apart(plan_own: Plan):
    study = run(plan_own(seeds=1))
    path = study.cell_folder(Cell(0, "plain")) / RECORD
    record = json.loads(path.read_text())
    record["versions"]["torch"] = "1.0"
    path.write_text(json.dumps(record))
    write_report(study, {})
    text = (study.folder / "report.md").read_text()
    assert "Not all cells were made by these versions" in text
    [row] = [line for line in text.splitlines() if "torch 1.0" in line]
    assert row.endswith("| `plain-s0` |")
    for cell in study.cells():
        other = study.cell_folder(cell) / RECORD
        other.write_text(json.dumps({**json.loads(other.read_text()), "versions": record["versions"]}))
    write_report(study, {})
    text = (study.folder / "report.md").read_text()
    assert "made by other versions than this report" in text and "| `plain-s0`, `quantum-s0` |" in text
    del record["versions"]  # as earlier releases wrote it
    path.write_text(json.dumps(record))
    write_report(study, {})
    assert "| unknown versions, function" in (study.folder / "report.md").read_text()


def test_an_interrupted_cell_goes_on_to_the_same_figures(plan_own: Plan, tmp_path: Path):
    cell = Cell(0, "quantum")
    whole = without_times(run_cell(open_study(plan_own(out=str(tmp_path / "whole"))), cell))
    study = open_study(plan_own())

    class Killed(Progress):
        def step_done(self, step: int, loss: float | None, tokens_per_second: float) -> None:
            if step == 6:
                raise KeyboardInterrupt

    config = study.cell_config(cell)
    builder = load_builder(study.build)
    task = builder.build(cell.kind, cell.seed, config, pytest.fail, study.sizes[cell.kind].n_inner)
    with pytest.raises(KeyboardInterrupt):
        train_task(config, task, study.cell_folder(cell), progress=Killed())
    assert [path.name for path in study.cell_folder(cell).glob("checkpoints/step-*")] == ["step-4"]
    assert read_record(study, cell) is None
    assert without_times(run_cell(study, cell)) == whole


def test_a_cell_that_is_done_is_not_built_again(plan_own: Plan, monkeypatch: pytest.MonkeyPatch):
    study = run(plan_own(seeds=1))
    monkeypatch.setattr(builder_module.Builder, "build", None)
    found = records(study)
    assert list(found) == study.cells()
    for cell, record in found.items():
        assert run_cell(study, cell) == record


def test_the_weights_of_a_cell_can_be_loaded(plan_own: Plan):
    study = open_study(plan_own(seeds=1))
    run_cell(study, Cell(0, "quantum"))
    config, size = study.cell_config(Cell(0, "quantum")), study.sizes["quantum"]
    task = load_builder(study.build).build("quantum", 5, config, pytest.fail, size.n_inner)
    weights = torch.load(study.cell_folder(Cell(0, "quantum")) / "model" / "weights.pt", weights_only=True)
    task.model.load_state_dict(weights)


def test_losses_that_are_no_numbers_fail_the_cell(plan_own: Plan):
    study = open_study(plan_own("nan"))
    with pytest.raises(ConfigError, match=r"loss is nan at step 0; try a lower learning_rate"):
        run_cell(study, Cell(0, "nan"))
    assert read_record(study, Cell(0, "nan")) is None
    run_cell(study, Cell(0, "plain"))
    report = write_report(study, {Cell(0, "nan"): "it is nan"})
    assert not report["complete"]
    assert "nan-s0 failed: it is nan" in (study.folder / "report.md").read_text()


def test_a_builder_that_raises_fails_the_cell(plan_own: Plan):
    study = open_study(plan_own("raises"))  # raises for another seed than the first
    run_cell(study, Cell(0, "raises"))
    with pytest.raises(ConfigError, match=r"ownmodels:build\('raises', 1, width=\d+\) raised ValueError: no such kind"):
        run_cell(study, Cell(1, "raises"))


def test_data_that_differ_within_a_seed_are_not_compared(plan_own: Plan):
    study = run(plan_own(seeds=1))
    path = study.cell_folder(Cell(0, "quantum")) / RECORD
    path.write_text(json.dumps({**json.loads(path.read_text()), "data": "other"}))
    report = write_report(study, {})
    assert report["kinds"]["quantum"]["withheld"] == "its data are not those of plain with the same seed (0)"
    assert report["kinds"]["quantum"]["against_reference"] is None


def test_data_that_changed_are_not_trained_on(plan_own: Plan, own: Callable[..., str], monkeypatch: pytest.MonkeyPatch):
    study, cell = open_study(plan_own(seeds=1)), Cell(0, "plain")
    with monkeypatch.context() as patch, pytest.raises(TypeError):
        patch.setattr(loop_module.TaskLoop, "final_losses", None)
        run_cell(study, cell)  # up to the last checkpoint
    module = Path("ownmodels.py")
    own(module.read_text().replace("data(40, 1)", "data(40, 3)"))
    with pytest.raises(ConfigError, match=r"The data set of the model is not the one that .*step-12"):
        run_cell(study, cell)


@pytest.mark.parametrize(
    "change", [{"metrics": None}, {"metrics": {"accuracy": "high"}}, {"causality": 1}, {"data": 3}, {"source": None}]
)
def test_a_damaged_record_is_refused(plan_own: Plan, change: dict[str, Any]):
    study = open_study(plan_own(seeds=1))
    run_cell(study, Cell(0, "plain"))
    path = study.cell_folder(Cell(0, "plain")) / RECORD
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CheckpointError, match=RECORD):
        read_record(study, Cell(0, "plain"))


def test_the_function_is_a_part_of_the_plan(plan_own: Plan, own: Callable[..., str]):
    study = open_study(plan_own(seeds=1))
    assert load_study(study.folder) == study
    own(module="othermodels")
    with pytest.raises(Exception, match="build = ownmodels:build, not othermodels:build"):
        open_study(plan_own(seeds=1, build="othermodels:build"))


def test_the_example_of_the_documentation_runs(plan_own: Plan, own: Callable[..., str]):
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "compare.md").read_text("utf-8")
    [source] = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "def build(" in block]
    own(source, module="digits")
    study = open_study(
        plan_own("qisa;qisa:2,classical:2", 1, "classical", build="digits:build", max_steps=2, eval_batches=1)
    )
    assert study.kinds == ("classical", "qisa", "qisa:2,classical:2")
    assert all(size.matched for size in study.sizes.values())
    assert [size.circuit > 0 for size in study.sizes.values()] == [False, True, True]
    for cell in study.cells():
        run_cell(study, cell)
    assert write_report(study, {})["complete"]


def test_a_backend_moves_the_circuits_and_is_recorded(plan_own: Plan):
    study = run(plan_own(seeds=1, backend="statevector?shots=64&seed=1 -> statevector", max_steps=2))
    plain, quantum = records(study).values()
    assert "audit" not in plain
    audit = quantum["audit"]
    assert (audit["from_step"], audit["to_step"], audit["falls"]) == (0, 2, [])
    assert sum(audit["calls"].values()) > 2
    assert all("shots=64" in name for name in audit["calls"])
    assert (
        quantum["val_loss"]
        != records(run(plan_own(seeds=1, out=f"{study.folder}-exact", max_steps=2)))[Cell(0, "quantum")]["val_loss"]
    )
    write_report(study, {})
    assert "statevector?" in (study.folder / "report.md").read_text()
