"""How long a sweep will take is found out from parts of it, which leave nothing behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qiskit_qattn.evaluation.noise_sweep import timing
from qiskit_qattn.evaluation.noise_sweep.plan import NoiseSweep
from qiskit_qattn.evaluation.noise_sweep.sweep import measure, open_sweep, train_models
from qiskit_qattn.evaluation.noise_sweep.timing import point_seconds, training_seconds


@pytest.fixture
def sweep(finished_run: Path, tmp_path: Path) -> NoiseSweep:
    """Return a sweep of two strengths and two numbers of shots."""
    return NoiseSweep(run=finished_run, out=tmp_path / "sweep", strengths=(0.1, 0.2), shots=(5, 10), windows=4)


def test_points_that_differ_in_a_number_only_are_timed_once(sweep: NoiseSweep, monkeypatch: pytest.MonkeyPatch):
    calls: list[int] = []
    whole = timing.window_losses

    def counted(model: Any, x: Any, *arguments: Any) -> Any:
        calls.append(len(x))
        return whole(model, x, *arguments)

    monkeypatch.setattr(timing, "window_losses", counted)
    run, record = open_sweep(sweep)
    found = point_seconds(sweep, run, record)
    assert len(found) == 5 and min(found) > 0 and found[1] == found[2] and found[3] == found[4]
    assert calls == [1, 4] * 3
    assert not record["points"]


def test_what_is_measured_is_not_timed_again_and_what_is_timed_changes_nothing(sweep: NoiseSweep):
    run, record = open_sweep(sweep)
    measure(sweep, run, train_models(sweep, run), record)
    losses = [point["losses"] for point in record["points"]]
    assert point_seconds(sweep, run, record) == []
    record["points"].clear()
    point_seconds(sweep, run, record)
    measure(sweep, run, train_models(sweep, run), record)
    assert [point["losses"] for point in record["points"]] == losses


def test_each_copy_that_is_not_trained_yet_is_timed(finished_run: Path, tmp_path: Path):
    plan = {"run": finished_run, "strengths": (0.1,), "windows": 2, "aware_strength": 0.1}
    sweep = NoiseSweep(**plan, out=tmp_path / "sweep", aware_steps=20)
    run, _ = open_sweep(sweep)
    found = training_seconds(sweep, run)
    assert len(found) == 2 and min(found) > 0
    assert [path.name for path in sweep.out.iterdir()] == ["report.json"]
    (sweep.out / "control" / "model").mkdir(parents=True)
    assert len(training_seconds(sweep, run)) == 1
    assert training_seconds(NoiseSweep(**plan, out=tmp_path / "few", aware_steps=5), run) == []
