from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


def test_it_prints_the_phases_and_where_the_rest_is(qattn: Run, train: Run, tmp_path: Path):
    assert train().exit_code == 0
    result = qattn("profile", tmp_path / "run", "--steps", 9)
    assert result.exit_code == 0, result.output
    for part in ("| forward |", "| backward |", "| optimizer |", "Too few steps to tell"):
        assert part in result.stdout
    assert "profile: resuming at step 6 to 15" in result.stderr
    assert f"profile: {tmp_path / 'run' / 'profile' / 'profile.md'}" in result.stdout
    again = qattn("profile", tmp_path / "run")
    assert again.exit_code == 2 and "exists; give another --out" in again.stderr


def test_many_steps_say_how_long_before_they_start(
    qattn: Run, train: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert train().exit_code == 0
    monkeypatch.setattr("qiskit_qattn.evaluation.profile_run.steps_seconds", lambda *_: [120.0])
    result = qattn("profile", tmp_path / "run", "--steps", 4)
    assert result.exit_code == 0, result.output
    assert result.stderr.splitlines()[0] == "time: about 2.0 min"


def test_the_report_of_a_profiled_training_has_it(train: Run, tmp_path: Path):
    result = train("--profile", "--max-steps", 10)
    assert result.exit_code == 0, result.output
    text = (tmp_path / "run" / "report.md").read_text()
    assert "## Time and memory: model" in text and "![Time and memory of a step](profile/profile.png)" in text
    assert (tmp_path / "run" / "profile" / "profile.png").is_file()
