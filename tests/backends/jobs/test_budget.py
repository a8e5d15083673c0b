"""Budgets: what they read, and what they let pass."""

import pytest

from qiskit_qattn.backends.jobs.budget import Budget, no_budget
from qiskit_qattn.backends.jobs.device import Cost
from qiskit_qattn.errors import BudgetError, ConfigError


@pytest.mark.parametrize(
    ("text", "limit", "unit", "normal"),
    [
        ("60s", 60, "seconds", "60s"),
        ("0.5s", 0.5, "seconds", "0.5s"),
        (" 5USD ", 5, "usd", "5usd"),
        ("1.50usd", 1.5, "usd", "1.5usd"),
        ("unlimited", float("inf"), "seconds", "unlimited"),
    ],
)
def test_budgets_are_read_and_written(text, limit, unit, normal):
    budget = Budget.parse(text)
    assert (budget.limit, budget.unit, str(budget)) == (limit, unit, normal)
    assert Budget.parse(normal) == budget


@pytest.mark.parametrize(
    "text", ["", "0s", "0.0usd", "-5s", "60", "5eur", "s", "nans", "infs", "1e9s", "5 m", "9" * 400 + "s"]
)
def test_other_texts_are_errors(text):
    with pytest.raises(ConfigError, match="such as 60s or 5usd, or unlimited"):
        Budget.parse(text)


def test_a_job_may_reach_the_limit_but_not_pass_it():
    budget = Budget.parse("60s")
    budget.check("disk:test", Cost(seconds=20), Cost(seconds=40))
    with pytest.raises(BudgetError, match=r"budget of 60s: it would take about 20\.5 s, and 40 s of 60 s are spent"):
        budget.check("disk:test", Cost(seconds=20.5), Cost(seconds=40))
    with pytest.raises(BudgetError):
        budget.check("disk:test", Cost(seconds=float("nan")), Cost())
    Budget.parse("0.3s").check("disk:test", Cost(seconds=0.1), Cost(seconds=0.1) + Cost(seconds=0.1))  # rounding
    Budget().check("disk:test", Cost(seconds=1e9), Cost())


def test_dollars_need_a_price():
    budget = Budget.parse("5usd")
    budget.check("disk:test", Cost(seconds=1e9, usd=2.0), Cost(usd=3.0))
    budget.check("disk:test", Cost(usd=5.0), Cost())
    with pytest.raises(BudgetError, match=r"would take about 2\.5 USD, and 3 USD of 5 USD"):
        budget.check("disk:test", Cost(usd=2.5), Cost(usd=3.0))
    with pytest.raises(BudgetError, match=r"disk:test publishes no price.*budget=60s"):
        budget.check("disk:test", Cost(seconds=1), Cost())


def test_a_paid_device_says_how_to_agree():
    message = str(no_budget("disk:test", Cost(seconds=1.5, usd=0.25)))
    for part in ("disk:test", "1.5 s", "0.25 USD", "budget=60s", "budget=5usd", "--yes", "budget=unlimited"):
        assert part in message
