"""Studies and cells with anything in them are refused with one error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qiskit_qattn.errors import CheckpointError, QattnError
from qiskit_qattn.evaluation.comparison.plan import load_study, open_study, plan_study
from qiskit_qattn.evaluation.comparison.record import RECORD, read_record
from qiskit_qattn.evaluation.comparison.study import Cell, Study
from qiskit_qattn.training.config import resolve

FIGURES = (
    *("val_loss", "val_loss_last_position", "train_loss", "tokens_per_second", "train_seconds", "wall_seconds"),
    *("cpu_seconds", "qpu_seconds", "peak_rss_mib"),
)


@pytest.fixture
def study(text_file: Path, tmp_path: Path) -> Study:
    """Return a study of one seed that was written into its folder."""
    shape = {"n_layer": 1, "n_head": 1, "n_embd": 8, "block_size": 8, "heads": "classical:1", "device": "cpu"}
    config = resolve({"data": str(text_file), "out": str(tmp_path / "study"), "batch_size": 2, "max_steps": 1, **shape})
    planned = plan_study(config, "rff", 1, "classical")
    open_study(planned)
    return planned


@pytest.mark.parametrize(
    "change",
    [
        {"kinds": 1},
        {"kinds": ["rff"]},
        {"kinds": [1, 2]},
        {"kinds": ["classical", "../rff"]},
        {"kinds": ["rff", "classical"], "build": "m:f", "reference": "x/y"},
        {"build": 1},
        {"first_kinds": 1},
        {"first_seeds": ["0"]},
        {"seeds": ["0"]},
        {"seeds": 5},
        {"seeds": [0.5]},
        {"reference": "zz"},
        {"reference": None},
        {"config": []},
        {"config": {"n_head": "1"}},
        {"config": {"n_embd": 10**12}},
        {"text": 0},
        {"sizes": {}},
        {"sizes": {"rff": 1, "classical": 2}},
        {"sizes": {"rff": {}, "classical": {}}},
        {"more": 1, "kinds": None},
    ],
    ids=str,
)
def test_a_study_of_wrong_types(study: Study, change: dict[str, Any]):
    path = study.folder / "study.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **change}))
    with pytest.raises(CheckpointError, match=r"study\.json.* is damaged"):
        load_study(study.folder)


@pytest.mark.parametrize("content", ["[" * 100_000, "9" * 5000, '{"format": NaN}', "\0", "[]"])
@pytest.mark.parametrize("what", ["study", "cell"])
def test_what_is_no_json(study: Study, content: str, what: str):
    cell = Cell(0, "rff")
    path = study.folder / "study.json" if what == "study" else study.cell_folder(cell) / RECORD
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    with pytest.raises(QattnError, match=path.name):
        load_study(study.folder) if what == "study" else read_record(study, cell)


def record() -> dict[str, Any]:
    circuits = ("gradient_variance", "effective_dimension", "meyer_wallach", "expressibility")
    return {
        **{"format": "qiskit-qattn/cell", "version": 1, "kind": "rff", "seed": 0, "step": 1, "peak_gpu_mib": None},
        **dict.fromkeys(FIGURES, 1.0),
        "parameters": {"quantum": 0, "classical": 1},
        "history": {"train": [], "val": []},
        "causality": {"passed": True, "leakage": 0.0, "gradient": None},
        "circuits": {**dict.fromkeys(circuits), "expressibility_random_weights": None, "layers": []},
        "prediction": {"character_error_rate": 0.5, "word_error_rate": 1.0},
    }


@pytest.mark.parametrize(
    "change",
    [
        *({name: value} for name in FIGURES for value in ("1", None, [])),
        {"causality": {"passed": "yes", "leakage": 0.0, "gradient": None}},
        {"causality": 1},
        {"circuits": {}},
        {"prediction": []},
        {"history": {"train": [1], "val": []}},
        {"parameters": {"quantum": 0.5, "classical": 1}},
        {"kind": "zz"},
        {"seed": 1},
    ],
    ids=str,
)
def test_a_record_of_wrong_types(study: Study, change: dict[str, Any]):
    path = study.cell_folder(Cell(0, "rff")) / RECORD
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(record()))
    assert read_record(study, Cell(0, "rff")) == record()
    path.write_text(json.dumps({**record(), **change}))
    with pytest.raises(CheckpointError, match=RECORD):
        read_record(study, Cell(0, "rff"))
