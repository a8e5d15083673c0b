"""The comparison of the natural gradient with AdamW runs, and starts all contenders alike."""

from __future__ import annotations

import pytest
import torch

from benchmarks import natural_gradient


@pytest.mark.parametrize("name", ["ground-state", "regression"])
def test_contenders_start_alike_and_move(name: str):
    problem = natural_gradient.PROBLEMS[name]
    with torch.no_grad():
        start = problem.start(5).final()
    for contender, (_, rates) in natural_gradient.CONTENDERS.items():
        assert natural_gradient.run(problem, contender, rates[0], 5, 0) == start
        assert natural_gradient.run(problem, contender, rates[0], 5, 2) != start


def test_weights_beside_the_angles_get_adamw():
    trial = natural_gradient.regression(0)
    trial.model = torch.nn.Sequential(trial.model, torch.nn.Linear(1, 1))
    angles, rest = natural_gradient._optimizers(trial, "natural gradient", 0.1)
    assert [weight.numel() for weight in angles.param_groups[0]["params"]] == [24]
    assert [weight.numel() for weight in rest.param_groups[0]["params"]] == [1, 1]
