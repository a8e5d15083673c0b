from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qiskit_qattn.evaluation.comparison.cell import run_cell
from qiskit_qattn.evaluation.comparison.plan import Study, open_study, plan_study
from qiskit_qattn.training.config import resolve

Plan = Callable[..., Study]
SETTINGS: dict[str, Any] = {
    "n_layer": 1,
    "n_head": 1,
    "n_embd": 8,
    "block_size": 8,
    "heads": "classical:1",
    "num_qubits": 3,
    "batch_size": 4,
    "max_steps": 12,
    "warmup_steps": 2,
    "log_interval": 1,
    "eval_interval": 5,
    "eval_batches": 2,
    "checkpoint_interval": 4,
    "device": "cpu",
}


@pytest.fixture
def plan(text_file: Path, tmp_path: Path) -> Plan:
    """Return a function that plans a comparison of tiny models, with changes of the settings."""

    def make(kinds: str = "qisa", seeds: int = 1, reference: str = "classical", **changes: Any) -> Study:
        unmatched = changes.pop("allow_unmatched", False)
        settings = {"data": str(text_file), "out": str(tmp_path / "study"), **SETTINGS, **changes}
        return plan_study(resolve(settings), kinds, seeds, reference, allow_unmatched=unmatched)

    return make


@pytest.fixture(scope="session")
def finished_study(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Return a study of two kinds and two seeds whose cells are done; to be read, not changed."""
    out = str(tmp_path_factory.mktemp("studies") / "study")
    study = plan_study(resolve({"data": str(text_file), "out": out, **SETTINGS}), "qisa", 2, "classical")
    open_study(study)
    for cell in study.cells():
        run_cell(study, cell)
    return study


@pytest.fixture
def done(finished_study: Study, plan: Plan) -> Study:
    """Return a copy of the finished study that a test may change."""
    study = plan(seeds=2)
    shutil.copytree(finished_study.folder, study.folder)
    return study
