from __future__ import annotations

import random

import pytest
from rich.console import Console

from qiskit_qattn.cli.progress import LineProgress
from qiskit_qattn.cli.remaining import QUEUE, Remaining, RunTime, duration, forecast_text, seconds_left
from qiskit_qattn.training.checkpoint import Validation


class Time:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_times_in_words():
    expected = ["1 s", "42 s", "1.0 min", "1.5 min", "12 min", "2.5 h"]
    assert [duration(t) for t in (0.2, 42, 59.7, 90, 700, 9000)] == expected


def test_equal_units_take_their_pace():
    reached = [(10.0 + 2 * i, float(i)) for i in range(6)]
    assert seconds_left(reached, 20, 20.0) == pytest.approx(30.0)
    assert seconds_left(reached, 20, 21.5) == pytest.approx(28.5)  # time that passes is taken off
    assert seconds_left(reached, 5, 20.0) == 0.0
    assert seconds_left(reached[:1], 20, 500.0) is None


def test_a_slow_start_does_not_count_for_long():
    reached = [(0.0, 0.0), (60.0, 1.0), *((60.0 + 0.1 * i, 1.0 + i) for i in range(1, 20))]  # compiled, say
    assert seconds_left(reached, 1020, 61.9) == pytest.approx(100.0, rel=0.05)


def test_a_late_unit_leaves_the_time_of_those_after_it():
    reached = [(float(i), float(i)) for i in range(11)]
    assert seconds_left(reached, 20, 13.0) == pytest.approx(9.0)  # not 7: nine more have to follow the late one
    assert seconds_left(reached, 11, 70.0) == pytest.approx(6.0)  # the last one has been overdue for a minute
    assert seconds_left(reached, 11, 10.5) == pytest.approx(1.0)


def test_it_stays_true_while_work_is_done():
    """The time left at each moment is within a fifth of what it turns out to be, and five seconds."""
    rng, time = random.Random(1), Time()
    clock = Remaining(200, clock=time)
    told: list[tuple[float, float]] = []
    for unit in range(200):
        time.now += (3.0 if unit < 2 else 0.5) * rng.uniform(0.8, 1.2)
        clock.reach(unit + 1)
        if clock.known and unit > 8:
            told.append((time.now, clock.left() or 0.0))
    end = time.now
    assert len(told) > 180
    assert all(abs(left - (end - now)) <= 0.2 * (end - now) + 5 for now, left in told)
    assert clock.left() == 0.0


def train(run: RunTime, time: Time, steps: int, *, step: float, validation: float, final: int, told: list) -> None:
    """Do the events of a training, and note what was said of the time left at each."""
    run.started(0, steps)
    for number in range(steps + 1):
        if number:
            time.now += step
            run.stepped(number)
        if number % 10 == 0:
            time.now += validation
            run.validated()
        if run.known:
            told.append((time.now, run.left()))
    for done in range(1, final + 1):
        time.now += validation
        run.validating(done, final)
        told.append((time.now, run.left()))
    run.finished()


def test_a_run_counts_its_validations_and_its_other_models():
    time = Time()
    run, told = RunTime(time), []
    run.planned(2, 15.0)
    for _ in range(2):
        train(run, time, 100, step=0.5, validation=2.0, final=15, told=told)
    end = time.now
    assert len(told) > 200
    assert all(abs(left - (end - now)) <= 0.25 * (end - now) + 5 for now, left in told)  # later validations cost more


def test_what_is_long_is_told_once_before_it_and_then_at_validations(capsys: pytest.CaptureFixture[str]):
    time = Time()
    progress = LineProgress(Console(width=200))
    progress.clock = RunTime(time)
    progress.planned(1, 3.0)
    progress.phase_started("model", 0, 400)
    for step in range(1, 401):
        time.now += 1.0
        progress.step_done(step, None, 100.0)
        if step % 100 == 0:
            time.now += 4.0
            progress.validated(Validation(step, None, 3.0, 3.0), 100.0)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("about")] == ["about 6.6 min left, for all steps and validations"]
    assert [line.rpartition("tokens/s")[2].strip() for line in lines if line.startswith("step")] == [
        *("5.2 min left", "3.6 min left", "1.9 min left", ""),
    ]


def test_before_a_start_only_what_is_long_is_told():
    assert forecast_text([50.0, 100.0]) == "time: about 2.5 min"
    assert forecast_text([20.0, 30.0]) == forecast_text([]) == ""
    assert forecast_text(None) == QUEUE


def test_news_is_what_is_long_and_then_each_half_of_it():
    time = Time()
    clock, told = Remaining(100, clock=time), []
    for unit in range(100):
        time.now += 10.0
        clock.reach(unit + 1)
        told.append(clock.news())
    assert [(unit + 1, text) for unit, text in enumerate(told) if text] == [
        *((3, "16 min"), (52, "8.0 min"), (77, "3.8 min"), (89, "1.8 min")),
    ]


def test_models_of_other_lengths_take_what_was_forecast_for_them_at_the_speed_of_this_one():
    time = Time()
    run, told = RunTime(time), []
    run.forecast([100.0, 400.0])
    for length in (200.0, 800.0):  # half as fast as forecast
        run.planned(1, 0.0)  # by each run of several
        run.started(0, 100)
        for step in range(1, 101):
            time.now += length / 100
            run.stepped(step)
            if run.known:
                told.append((time.now, run.left()))
        run.finished()
    assert len(told) > 180 and run.left() == 0.0
    assert all(left == pytest.approx(time.now - now, abs=10) for now, left in told)


def progress_at(time: Time) -> LineProgress:
    progress = LineProgress(Console(width=200))
    progress.clock = RunTime(time)
    return progress


def test_what_was_told_before_the_start_is_not_told_again(capsys: pytest.CaptureFixture[str]):
    time = Time()
    progress = progress_at(time)
    progress.forecast(lambda: [300.0])
    progress.phase_started("model", 0, 300)
    for step in range(1, 301):
        time.now += 1.0
        progress.step_done(step, None, 100.0)
        if step == 100:
            progress.validated(Validation(step, None, 3.0, 3.0), 100.0)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "time: about 5.0 min" and lines[1] == "model: training from step 0 to 300"
    assert len(lines) == 3 and lines[2].endswith("3.3 min left")


@pytest.mark.parametrize(("found", "told"), [(None, [QUEUE]), ([], []), ([3.0], [])])
def test_what_is_not_known_or_short_is_told_by_the_first_steps(found, told, capsys: pytest.CaptureFixture[str]):
    time = Time()
    progress = progress_at(time)
    progress.forecast(lambda: found)
    progress.phase_started("model", 0, 400)
    for step in range(1, 5):
        time.now += 1.0
        progress.step_done(step, None, 100.0)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [*told, "model: training from step 0 to 400", "about 6.6 min left, for all steps and validations"]


def test_counted_work_tells_its_halves_and_ends_with_nothing_left(capsys: pytest.CaptureFixture[str]):
    time = Time()
    progress = progress_at(time)
    progress.forecast(lambda: [200.0, 200.0])
    for name in ("inference", "training"):
        for done in range(21):
            progress.counted(name, done, 20)
            time.now += 10.0 * (done < 20)
    assert progress.clock.left() == 0.0
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["time: about 6.7 min", "about 2.8 min left", "about 1.3 min left"]


def test_training_without_validations_tells_its_halves(capsys: pytest.CaptureFixture[str]):
    time = Time()
    progress = progress_at(time)
    progress.forecast(lambda: [400.0])
    progress.phase_started("probe seed 0", 0, 400)
    for step in range(1, 401):
        time.now += 1.0
        progress.step_done(step, None, 100.0)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "left" in line] == ["about 3.3 min left", "about 1.6 min left"]
