"""``qattn compare --build``: models of one's own, in processes of their own."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

Run = Callable[..., Result]
MODULE = """
import torch
from torch import nn

import qiskit_qattn as qa

x = torch.linspace(-1, 1, 24).view(8, 3)


def build(kind, seed):
    if kind == "quantum" and seed:
        raise ValueError("not this\\nseed")
    if kind == "nothing":
        return None
    model = nn.Linear(3, 2)
    if kind == "quantum":
        head = qa.QuantumHead(qa.attention_circuit("angle", num_qubits=2))
        model = nn.Sequential(nn.Linear(3, head.num_features), head, nn.Linear(len(head.gain), 2))
    return qa.Task(model, (x, x[:, :2]), (x, x[:, :2]), nn.functional.mse_loss)
"""
TINY = "--reference plain --seeds 1 --batch-size 4 --max-steps 4 --warmup-steps 1 --eval-interval 2 --device cpu"


@pytest.fixture
def compare(qattn: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Yield a function that compares models of the module in the current folder, with more arguments."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clibuild.py").write_text(MODULE)
    yield lambda *more: qattn("compare", "--build", "clibuild:build", *TINY.split(), "--out", "study", *more)
    sys.modules.pop("clibuild", None)


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.more
def test_a_study_is_run_grows_and_says_which_cells_failed(compare: Run, qattn: Run, tmp_path: Path):
    result = compare("--kinds", "quantum")
    assert result.exit_code == 0, result.output
    assert "2 cells: 2 kinds, 1 seed, 4 steps each" in result.output
    assert "note: not within 1% of the parameters of plain: quantum has" in result.output
    assert "and the function takes no width" in result.output
    before = contents(tmp_path / "study" / "cells")
    assert json.loads((tmp_path / "study" / "report.json").read_text())["complete"]

    grown = compare("--kinds", "quantum", "--seeds", 2)
    assert grown.exit_code == 1
    assert "4 cells: 2 kinds, 2 seeds, 4 steps each; 2 are done" in grown.output
    assert "quantum-s1 failed: clibuild:build('quantum', 1) raised ValueError: not this seed" in grown.stderr
    after = contents(tmp_path / "study" / "cells")
    assert {name: after[name] for name in before} == before
    report = json.loads((tmp_path / "study" / "report.json").read_text())
    assert [*report["kinds"]] == ["plain", "quantum"]
    assert len(report["cells"]) == 3 and not report["complete"]
    log = (tmp_path / "study" / "cells" / ".quantum-s1.log").read_text()
    assert "Traceback" in log and "clibuild.py" in log

    (tmp_path / "clibuild.py").write_text(MODULE.replace("and seed", "and seed > 1"))
    sys.modules.pop("clibuild")
    _, *again = shlex.split(report["command"])
    assert qattn(*again).exit_code == 0
    text = (tmp_path / "study" / "report.md").read_text()
    assert "**Incomplete" not in text and "**Extended:**" in text
    assert "The file of the function changed between cells" in text
    [row] = [line for line in text.splitlines() if "function" in line and "`quantum-s1` |" in line]
    assert row.endswith("| `quantum-s1` |")  # made by another version of the function


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--kinds", "nothing"], "clibuild:build('nothing', 0): it returned None, but must return a qa.Task"),
        (["--kinds", "quantum", "--seed", 1], "clibuild:build('quantum', 1) raised ValueError: not this seed"),
        (["--build", "nosuchmodule:build"], "No module named 'nosuchmodule'"),
        (["--build", "clibuild:other"], "has no function other"),
        (["--build", "clibuild"], "package.module:function"),
        (["--kinds", "quantum", "--n-layer", 3], "cannot have n_layer = 3"),
        (["--kinds", "plain"], "no kind to compare"),
    ],
)
def test_what_cannot_be_built_is_told_in_one_line_and_leaves_no_folder(
    compare: Run, tmp_path: Path, arguments: list[Any], told: str
):
    result = compare(*arguments)
    assert result.exit_code == 2
    assert told in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "study").exists()
