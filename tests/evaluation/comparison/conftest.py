from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qiskit_qattn.evaluation.comparison.cell import run_cell
from qiskit_qattn.evaluation.comparison.plan import open_study, plan_study
from qiskit_qattn.evaluation.comparison.study import Study
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
#: Those of a comparison of one's own models.
OWN_SETTINGS: dict[str, Any] = {
    **{name: SETTINGS[name] for name in ("batch_size", "max_steps", "warmup_steps", "log_interval", "eval_interval")},
    **{name: SETTINGS[name] for name in ("eval_batches", "checkpoint_interval", "device")},
    "learning_rate": 1e-2,
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


#: A module of a user's own, whose function builds small models on generated data.
OWN = """
import torch
from torch import nn

import qiskit_qattn as qa


class Model(nn.Module):
    def __init__(self, kind, width):
        super().__init__()
        self.first = nn.Linear(4, 2)
        if kind == "quantum":
            self.middle = qa.QuantumHead(qa.attention_circuit("angle", num_qubits=2))
        else:
            self.middle = nn.Linear(2, 8)
        outputs = len(self.middle.gain) if kind == "quantum" else 8
        self.last = nn.Sequential(nn.Linear(outputs, width), nn.Tanh(), nn.Dropout(0.1), nn.Linear(width, 2))

    def forward(self, x):
        return self.last(self.middle(self.first(x)))


class Broken(Model):
    def forward(self, x):
        return super().forward(x) * float("nan")


def accuracy(output, target):
    return (output.argmax(-1) == target).float().mean()


def data(count, seed):
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return x, (x[:, 0] * x[:, 1] > 0).long()


def build(kind, seed, width=None):
    if kind == "raises" and seed:
        raise ValueError("no such kind")
    model = (Broken if kind == "nan" else Model)(kind, width or 16)
    return qa.Task(model, data(40, 1), data(20, 2), nn.functional.cross_entropy, accuracy)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Yield a function that writes a module into the current folder, and returns the name of a function in it."""
    folder, written = tmp_path / "project", []
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def write(source: str = OWN, function: str = "build", module: str = "ownmodels") -> str:
        (folder / f"{module}.py").write_text(source)
        importlib.invalidate_caches()
        written.append(module)
        sys.modules.pop(module, None)
        return f"{module}:{function}"

    yield write
    for module in written:
        sys.modules.pop(module, None)


@pytest.fixture
def plan_own(own: Callable[..., str], tmp_path: Path) -> Plan:
    """Return a function that plans a comparison of one's own models, with changes of the settings."""
    own()

    def make(kinds: str = "quantum", seeds: int = 2, reference: str = "plain", **changes: Any) -> Study:
        build = changes.pop("build", "ownmodels:build")
        settings = {"out": str(tmp_path / "own"), **OWN_SETTINGS, **changes}
        return plan_study(resolve(settings), kinds, seeds, reference, build=build)

    return make
