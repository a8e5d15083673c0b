"""A finished run is profiled without a change to it."""

from __future__ import annotations

import json
import mmap
from pathlib import Path
from typing import Any

import pytest
import torch

from qiskit_qattn.errors import CheckpointError, RunFolderError
from qiskit_qattn.evaluation import profile_run as module
from qiskit_qattn.evaluation.profile_run import profile_run
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.training.trainer import Trainer


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_nothing_of_the_run_changes(finished_run: Path, tmp_path: Path):
    before = contents(finished_run)
    profile = profile_run(finished_run, tmp_path / "new" / "profile", steps=12)
    assert contents(finished_run) == before
    names = {path.name for path in (tmp_path / "new" / "profile").iterdir()}
    assert names >= {"memory.json", "profile.json", "profile.md", "profile.png", "trace.json"}
    assert json.loads((tmp_path / "new" / "profile" / "profile.json").read_text()) == profile
    assert profile["resident"]["steps"] == [23, 24]  # the run has 12 steps; 3 others, 5 traced and 3 tracked precede
    text = (tmp_path / "new" / "profile" / "profile.md").read_text()
    assert "steps 13 to 24" in text and "![Time and memory of a step](profile.png)" in text


class Leaking(GPT):
    kept: tuple[torch.Tensor, ...] = ()

    def forward(self, *args: Any, **options: Any) -> Any:
        self.kept += (torch.frombuffer(mmap.mmap(-1, 2**21), dtype=torch.uint8).fill_(1),)  # new pages of 2 MiB
        return super().forward(*args, **options)


@pytest.mark.parametrize("leaks", [True, False])
def test_a_model_that_leaks_is_told(finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leaks: bool):
    def trainer(*args: Any, **options: Any) -> Trainer:
        return Trainer(*args, **options, model_class=Leaking if leaks else GPT)

    monkeypatch.setattr(module, "Trainer", trainer)
    found = profile_run(finished_run, tmp_path / "profile", steps=48)["leak"]
    assert found["leaks"] is leaks
    if leaks:
        assert found["slope_kib"] == pytest.approx(2048, rel=0.1)
        assert "Memory leaks" in (tmp_path / "profile" / "profile.md").read_text()


def test_what_cannot_be_profiled_is_said(finished_run: Path, tmp_path: Path):
    (tmp_path / "config.toml").write_text((finished_run / "config.toml").read_text())
    with pytest.raises(CheckpointError, match="has no checkpoint to start from"):
        profile_run(tmp_path, tmp_path / "profile", steps=4)
    with pytest.raises(RunFolderError, match="exists; give another --out"):
        profile_run(finished_run, tmp_path, steps=4)
    with pytest.raises(RunFolderError, match="is no run folder"):
        profile_run(tmp_path / "none", tmp_path / "profile", steps=4)
    assert not (tmp_path / "profile").exists()
