"""``qattn compare`` on a paid device."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qiskit_qattn.backends.jobs.ledger import Ledger
from qiskit_qattn.cli.app import app

from .ibm_server import IBMServer

BACKEND = "ibm:test_manila?gradient=simulated&optimization=0&resilience=0&shots=64"
TINY = (
    "--kinds qisa,classical --seeds 3 --preset smoke --n-layer 1 --n-head 1 --n-embd 4 --num-qubits 2 --block-size 2 "
    "--batch-size 1 --max-steps 3 --eval-batches 1 --val-windows 1 --device cpu"
)


def test_without_a_budget_it_says_what_all_cells_would_take_and_sends_nothing(
    ibm_server: IBMServer, tmp_path: Path
) -> None:
    text, out = tmp_path / "text.txt", tmp_path / "study"
    text.write_text("abc\n" * 30)
    options = ["--data", str(text), "--out", str(out), "--backend", BACKEND]
    result = CliRunner().invoke(app, ["compare", *TINY.split(), *options])
    assert result.exit_code == 2
    [row] = [line.split() for line in result.stderr.splitlines() if "qisa, 3 cells" in line]
    assert int(row[3]) == 3 * 7  # jobs: three steps and two validations of two batches, of each cell
    assert "classical, " not in result.stderr  # no circuit
    [error] = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "no budget is given, so nothing was sent" in error
    assert not ibm_server.jobs and Ledger().rows() == [] and not out.exists()


MODULE = """
import torch
from torch import nn

import qiskit_qattn as qa

x = torch.linspace(-1, 1, 24).view(12, 2)


def build(kind, seed):
    head = qa.QuantumHead(qa.attention_circuit("angle", num_qubits=2))
    middle = head if kind == "quantum" else nn.Linear(head.num_features, len(head.gain))
    model = nn.Sequential(nn.Linear(2, head.num_features), middle, nn.Linear(len(head.gain), 1))
    return qa.Task(model, (x, x[:, :1]), (x, x[:, :1]), nn.functional.mse_loss)
"""


def test_the_same_for_models_of_ones_own(
    ibm_server: IBMServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "paidmodels.py").write_text(MODULE)
    kinds = "--build paidmodels:build --kinds quantum --reference plain --seeds 3"
    settings = "--batch-size 4 --max-steps 3 --eval-batches 1 --device cpu --out study --backend"
    result = CliRunner().invoke(app, ["compare", *kinds.split(), *settings.split(), BACKEND])
    sys.modules.pop("paidmodels")
    assert result.exit_code == 2
    [row] = [line.split() for line in result.stderr.splitlines() if "quantum, 3 cells" in line]
    # Jobs: three steps; validations at the start and the end, and one on training data; three batches at last.
    assert int(row[3]) == 3 * (3 + 3 + 3)
    assert "plain, " not in result.stderr  # no circuit
    assert "no budget is given, so nothing was sent" in result.stderr
    assert not ibm_server.jobs and Ledger().rows() == [] and not (tmp_path / "study").exists()
