"""How long training will take is found out from a few steps, which leave nothing behind and change no result."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from qiskit_qattn.backends.place import Place
from qiskit_qattn.training import pace
from qiskit_qattn.training.checkpoint import Validation
from qiskit_qattn.training.config import TrainConfig
from qiskit_qattn.training.metrics import read_metrics
from qiskit_qattn.training.pace import TIMED, WARM, Pace, is_timed, measured, run_seconds, steps_seconds, waits_in_queue
from qiskit_qattn.training.progress import Progress, TrainingInterrupted
from qiskit_qattn.training.run import train_run

Tiny = Callable[..., TrainConfig]


class Time:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    """Return the clock that times training."""
    clock = Time()
    monkeypatch.setattr(pace, "time", clock)
    return clock


def training(time: Time, steps: int, *, step: float) -> Callable[[Progress], None]:
    """Return a training that takes 7 s to start, 5 s for its first step, 2 s per validation, and 4 s to end."""

    def train(progress: Progress) -> None:
        time.now += 7.0
        progress.phase_started("model", 0, steps)
        for number in range(steps + 1):
            if number:
                time.now += 5.0 if number == 1 else step
                progress.step_done(number, None, 0.0)
            if number in (0, steps):
                time.now += 2.0
                progress.validated(Validation(number, None, 1.0, 1.0), 0.0)
        progress.phase_finished("model", 1.0, 1.0)
        time.now += 4.0

    return train


def test_the_times_of_a_training(time: Time):
    found = measured(training(time, WARM + TIMED, step=0.01))
    assert found == Pace(pytest.approx(7 + 5 + 0.02), pytest.approx(0.01), pytest.approx(2), pytest.approx(4))
    assert found.seconds(103, 3) == pytest.approx(7 + 5.02 + 100 * 0.01 + 3 * 2 + 4)


def test_slow_steps_are_ended_after_two(time: Time):
    found = measured(training(time, 10**6, step=20.0))
    assert time.now == 1000 + 7 + 2 + 5 + 20
    assert found.step == 20 and found.start == pytest.approx(7 + 5 + 2 * 20)  # as if the first three were done


def test_a_training_that_does_not_end_is_ended(time: Time):
    found = measured(training(time, 10**6, step=0.1), whole=False)
    assert time.now == pytest.approx(1000 + 7 + 2 + 5 + 0.1 * (WARM + TIMED - 1))
    assert found.step == pytest.approx(0.1) and found.end == 0.0


def test_an_interruption_leaves_nothing_to_resume():
    def interrupted(progress: Progress) -> None:
        raise TrainingInterrupted(Path("scratch"), 3, signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt) as stopped:
        measured(interrupted)
    assert not isinstance(stopped.value, TrainingInterrupted)
    assert getattr(stopped.value, "signal", None) == signal.SIGTERM


def test_each_model_of_a_run_is_timed_and_nothing_is_left_behind(tiny: Tiny):
    config = tiny(max_steps=200, baseline=True)
    found = run_seconds(config, Place.open("statevector"))
    assert found is not None and len(found) == 2 and min(found) > 0
    assert not config.folder.exists()


def test_what_is_timed_before_a_run_changes_nothing(tiny: Tiny, tmp_path: Path):
    plain, timed = tiny(dropout=0.1), tiny(dropout=0.1, out=str(tmp_path / "timed"))
    train_run(plain)
    assert run_seconds(tiny(dropout=0.1, max_steps=200, out=str(tmp_path / "other")))
    train_run(timed)
    one, other = (read_metrics(config.folder) or {} for config in (plain, timed))
    assert one["history"] == other["history"] and one["val_loss"] == other["val_loss"]


def test_a_finished_model_is_not_timed_again(tiny: Tiny):
    train_run(tiny())
    assert run_seconds(tiny(), resume=True) == []
    found = run_seconds(tiny(max_steps=100), resume=True)
    assert found is not None and len(found) == 1


def test_what_cannot_be_timed_in_advance(tiny: Tiny, monkeypatch: pytest.MonkeyPatch):
    chain = Place.open("density_matrix -> statevector")
    assert not is_timed(chain) and not waits_in_queue(chain)
    assert run_seconds(tiny(max_steps=200), chain) == []
    assert run_seconds(tiny(max_steps=WARM + TIMED)) == []
    assert run_seconds(tiny(max_steps=200, data="/no/such/file")) == []  # which the run itself reports
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run_seconds(tiny(max_steps=200)) == []


def test_steps_alone_are_timed_without_validations(tiny: Tiny):
    found = steps_seconds(tiny(), 100)
    assert found is not None and len(found) == 1 and found[0] > 0
    assert steps_seconds(tiny(), 5) == []


def test_a_folder_that_is_taken_is_refused_at_once(tiny: Tiny):
    config = tiny(max_steps=200)
    config.folder.mkdir()
    assert run_seconds(config) == []


def test_a_devices_queue_decides(tiny: Tiny, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pace, "waits_in_queue", lambda place: True)
    assert run_seconds(tiny(max_steps=200), Place.open("statevector")) is None


def test_a_snapshot_has_no_queue_but_records_its_jobs():
    pytest.importorskip("qiskit_ibm_runtime")
    place = Place.open("ibm:fake_manila")
    assert not waits_in_queue(place) and not is_timed(place)
