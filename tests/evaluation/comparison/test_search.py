from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from qiskit_qattn.errors import CheckpointError, ConfigError
from qiskit_qattn.evaluation.comparison.cell import finished, run_cell
from qiskit_qattn.evaluation.comparison.plan import load_study, open_study, plan_study
from qiskit_qattn.evaluation.comparison.report import collect_report, render_markdown
from qiskit_qattn.evaluation.comparison.search import (
    RECORD,
    cell_settings,
    chosen_rates,
    read_trial,
    searched,
    trial_record,
)
from qiskit_qattn.evaluation.comparison.study import TRIAL_SEEDS, Cell, Study
from qiskit_qattn.evaluation.rendering import write_json

Plan = Callable[..., Study]


@pytest.fixture
def rated(plan: Plan) -> Callable[..., Study]:
    """Return a function that plans a study of rff and classical heads with a search."""

    def make(*rates: float, **changes: Any) -> Study:
        alone = plan("rff", **{"max_steps": 2, "eval_interval": 2, **changes})
        return plan_study(alone.config, "rff", 1, "classical", rates=rates)

    return make


def tried(study: Study, losses: dict[tuple[str, float], tuple[float | None, float | None]]) -> None:
    """Write records of trials with these losses."""
    for (kind, rate), pair in losses.items():
        for seed, loss in zip(TRIAL_SEEDS, pair, strict=True):
            cell = Cell(seed, kind, rate)
            write_json(study.cell_folder(cell) / RECORD, trial_record(cell, loss, 1.0))


def test_every_kind_has_the_same_trials_with_seeds_apart_from_the_cells(rated: Callable[..., Study]):
    study = rated(1e-2, 1e-3)
    trials = study.trials()
    assert study.rates == (1e-3, 1e-2)
    assert len(trials) == len({trial.name for trial in trials}) == 2 * 2 * len(TRIAL_SEEDS)
    assert {trial.seed for trial in trials}.isdisjoint(study.seeds)
    plain = [sorted((t.seed, t.rate) for t in trials if t.kind == kind) for kind in study.kinds]
    assert plain[0] == plain[1]


def test_the_rate_of_a_kind_is_that_of_the_lowest_mean_loss_and_none_that_diverged(rated: Callable[..., Study]):
    study = rated(1e-3, 1e-2, 1e-1)
    tried(study, {("rff", 1e-3): (2.0, 1.0), ("rff", 1e-2): (1.4, 1.4), ("rff", 1e-1): (0.1, None)})
    assert chosen_rates(study) == {"rff": 1e-2}
    tried(study, {("classical", rate): (1.0, 1.0) for rate in study.rates})
    assert chosen_rates(study) == {"rff": 1e-2, "classical": 1e-3}  # of equal ones the lowest
    text = render_markdown(collect_report(study, {}))
    assert "| `rff` | 1.5000 | 1.4000 | – | **0.01** |" in text


def test_cells_are_trained_at_the_rate_that_was_found_with_the_ratios_of_the_settings(rated: Callable[..., Study]):
    study = open_study(rated(1e-3, 1e-2, learning_rate=2e-3, min_lr=1e-3, circuit_lr=4e-3))
    cell = Cell(0, "rff")
    with pytest.raises(CheckpointError, match="trials are not done"):
        cell_settings(study, cell)
    tried(study, {("rff", 1e-3): (2.0, 2.0), ("rff", 1e-2): (1.0, 1.0)})
    found = cell_settings(study, cell)
    assert (found.learning_rate, found.min_lr, found.circuit_lr) == pytest.approx((1e-2, 5e-3, 2e-2))
    assert cell_settings(study, Cell(TRIAL_SEEDS[0], "rff", 1e-3)).learning_rate == 1e-3
    assert run_cell(load_study(study.folder), cell)["learning_rate"] == pytest.approx(1e-2)


def test_a_trial_is_trained_once_and_one_that_diverges_is_done_without_a_loss(rated: Callable[..., Study]):
    study = open_study(rated(1e-3, 1e30, max_steps=4, log_interval=1))
    good, bad = (Cell(TRIAL_SEEDS[0], "classical", rate) for rate in study.rates)
    assert finished(study, good) is None
    record = run_cell(study, good)
    assert record == finished(study, good) == run_cell(study, good)
    assert 0 < record["val_loss"] < 10
    assert run_cell(study, bad)["val_loss"] is None
    assert searched(study) == {}  # not all trials are done


def test_records_of_other_trials_are_refused(rated: Callable[..., Study]):
    study = rated(1e-3, 1e-2)
    tried(study, {("rff", 1e-3): (1.0, 1.0)})
    cell = Cell(TRIAL_SEEDS[0], "rff", 1e-3)
    path = study.cell_folder(cell) / RECORD
    for change in ({"learning_rate": 1e-2}, {"seed": 3}, {"val_loss": "low"}, {"format": "other"}):
        path.write_text(json.dumps(trial_record(cell, 1.0, 1.0) | change))
        with pytest.raises(CheckpointError):
            read_trial(study, cell)


@pytest.mark.parametrize("rates", [(1e-3,), (1e-3, 1e-3), (0.0, 1e-3), (-1.0, 1e-3), (float("nan"), 1e-3)])
def test_rates_that_make_no_search_are_refused(rated: Callable[..., Study], rates: tuple[float, ...]):
    with pytest.raises(ConfigError, match="learning-rates"):
        rated(*rates)


def test_the_rates_of_a_study_cannot_change(rated: Callable[..., Study]):
    study = open_study(rated(1e-3, 1e-2))
    assert load_study(study.folder) == study
    assert "--learning-rates 0.001,0.01" in study.command()
    with pytest.raises(Exception, match="learning_rates"):
        open_study(replace(study, rates=(1e-3, 1e-1)))
