from __future__ import annotations

from collections.abc import Callable

import pytest

from qiskit_qattn.evaluation.comparison.study import Cell, Study
from qiskit_qattn.evaluation.comparison.timing import Work, cell_seconds, left, paces
from qiskit_qattn.training.pace import Pace

Plan = Callable[..., Study]


def works(study: Study, predicted: float, count: int = 8) -> list[Work]:
    return [Work(study, Cell(seed, "qisa"), predicted) for seed in range(count)]


def run(cells: list[Work], true: float, until: float, at_once: int) -> None:
    """Note what is seen at a time of a run of cells that take ``true`` seconds each, two thirds of it for steps."""
    for index, work in enumerate(cells):
        begin = true * (index // at_once)
        if begin <= until:
            work.began = begin
            share = min(1.0, (until - begin) / (2 / 3 * true))
            work.steps = int(share * work.study.config.max_steps)
        work.ended = begin + true if begin + true <= until else None


def test_what_is_left_of_cells_as_fast_as_predicted_is_what_they_need(plan: Plan):
    for until in (0.0, 5.0, 12.0, 35.0):
        cells = works(plan(), 10.0)
        run(cells, 10.0, until, 2)
        assert left(cells, until, 2) == pytest.approx(40.0 - until, rel=0.15, abs=1.0)
    assert left([], 0.0, 2) == 0.0


@pytest.mark.parametrize("true", [5.0, 30.0])
def test_a_wrong_prediction_is_corrected_by_the_first_cells(plan: Plan, true: float):
    cells = works(plan(), 10.0)
    run(cells, true, 1.01 * true, 2)
    assert left(cells, 1.01 * true, 2) == pytest.approx(3 * true, rel=0.1)


def test_kinds_that_were_not_run_yet_are_corrected_by_others(plan: Plan):
    study = plan("qisa,rff")
    cells = [*works(study, 10.0, 6), Work(study, Cell(0, "rff"), 10.0)]
    run(cells[:6], 30.0, 90.0, 2)
    assert left(cells, 90.0, 1) == pytest.approx(30.0, rel=0.35)


def test_the_remaining_time_goes_down_second_by_second_and_waits_where_nothing_is_reported(plan: Plan):
    cells = works(plan(), 20.0, 1)
    cells[0].began = 0.0  # started, and no step reported yet
    seen = [left(cells, now, 1) for now in (0.0, 5.0, 10.0, 15.0)]
    assert seen == pytest.approx([20.0, 15.0, 10.0, 5.0])
    cells[0].steps = cells[0].study.config.max_steps // 4  # a quarter after 15 s: far slower than predicted
    assert left(cells, 15.0, 1) == pytest.approx(45.0)


def test_a_few_steps_of_each_kind_are_timed_and_nothing_is_left_behind(plan: Plan):
    study = plan("rff")
    found = paces(study, study.kinds, process=1.0)
    assert list(found) == list(study.kinds)
    for pace in found.values():
        assert pace.start > 1.0
        assert min(pace.step, pace.validation, pace.end) > 0
        assert cell_seconds(study, pace) > pace.start + pace.end
    assert not study.folder.exists()


def test_the_time_of_a_cell_counts_its_steps_and_validations(plan: Plan):
    study = plan(max_steps=103, eval_interval=50)
    assert cell_seconds(study, Pace(1.0, 0.5, 2.0, 4.0)) == pytest.approx(1 + 100 * 0.5 + 3 * 2 + 4)
