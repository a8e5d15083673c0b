"""An estimator with a budget: no job passes it, whoever sends it."""

import math
import threading
from dataclasses import replace

import numpy as np
import pytest

from qiskit_qattn.backends.jobs.budget import Budget
from qiskit_qattn.backends.jobs.client import resume
from qiskit_qattn.backends.jobs.device import Cost
from qiskit_qattn.errors import BackendError, BudgetError, TransientBackendError

from .disk_client import small_pubs
from .disk_device import DiskDevice
from .on_disk import estimator_of, states

pytestmark = pytest.mark.usefixtures("short_waits")


def test_no_job_passes_the_budget(device, ledger):
    estimator = estimator_of(device, ledger, budget=Budget.parse("5s"))
    device.billed = 1.0
    estimator.run(small_pubs(0.1)).result()  # 1 s spent
    device.hold()
    waiting = [estimator.run(small_pubs(angle)) for angle in (0.2, 0.3)]  # 4 s more on their way
    with pytest.raises(
        BudgetError, match=r"budget of 5s: it would take about 2 s, and 5 s of 5 s are spent or on their"
    ):
        estimator.run(small_pubs(0.4))
    assert (len(device.jobs), len(ledger.rows())) == (3, 3)
    device.free()
    for job in waiting:
        job.result()
    assert estimator.spent.seconds == 3.0  # actual usage has replaced the estimates
    estimator.run(small_pubs(0.4)).result()
    estimator.run(small_pubs(0.1)).result()  # stored: costs nothing
    assert estimator.spent.seconds == 4.0
    with pytest.raises(BudgetError):
        estimator.run(small_pubs(0.5))


def test_threads_cannot_pass_the_budget_together(device, ledger):
    device.hold()
    estimator = estimator_of(device, ledger, budget=Budget.parse("5s"))
    refused = []

    def work(angle):
        try:
            estimator.run(small_pubs(angle))
        except BudgetError as error:
            refused.append(error)

    threads = [threading.Thread(target=work, args=(angle,)) for angle in np.linspace(0.1, 0.8, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(device.jobs), len(refused)) == (2, 4)


def test_a_job_that_never_arrived_is_sent_again_only_within_the_budget(device, ledger):
    device.fault("submit", "drop_before")
    with pytest.raises(TransientBackendError):
        estimator_of(device, ledger, retries=0).run(small_pubs())
    with pytest.raises(BudgetError):
        estimator_of(device, ledger, budget=Budget.parse("1s")).run(small_pubs())
    assert (device.jobs, states(ledger)) == ([], ["sending"])
    estimator_of(device, ledger).run(small_pubs()).result()
    assert len(device.jobs) == 1


def test_prices_are_kept_where_the_bill_tells_none(device, ledger):
    device.usd = 2.0
    estimator = estimator_of(device, ledger, budget=Budget.parse("5usd"))
    for angle in (0.1, 0.2):
        estimator.run(small_pubs(angle)).result()
    assert estimator.spent.usd == 4.0
    with pytest.raises(BudgetError, match="2 USD, and 4 USD of 5 USD"):
        estimator.run(small_pubs(0.3))
    device.usd = None
    with pytest.raises(BudgetError, match="publishes no price"):
        estimator_of(device, ledger, budget=Budget.parse("5usd")).run(small_pubs(0.3))


def test_a_paid_device_needs_a_budget_but_stored_results_do_not(device, ledger):
    device.paid = True
    with pytest.raises(BudgetError, match="budget=60s"):
        estimator_of(device, ledger).run(small_pubs())
    assert (device.jobs, ledger.rows()) == ([], [])
    estimator_of(device, ledger, budget=Budget.parse("unlimited")).run(small_pubs()).result()
    assert estimator_of(device, ledger).run(small_pubs()).result()[0].metadata["cached"]


def test_a_usage_that_comes_late_stops_what_follows(device, ledger):
    device.billed = 150.0
    device.fault("usage", "refuse")  # not counted yet
    estimator = estimator_of(device, ledger, budget=Budget.parse("20s"))
    estimator.run(small_pubs(0.1)).result()
    assert (ledger.rows()[0].used, estimator.spent.seconds) == (None, 2.0)
    with pytest.raises(BudgetError, match="150 s of 20 s are spent"):
        estimator.run(small_pubs(0.2))
    assert (len(device.jobs), ledger.rows()[0].used.seconds, estimator.spent.seconds) == (1, 150.0, 150.0)
    estimator.run(small_pubs(0.1)).result()  # stored


@pytest.mark.parametrize("budget", [Budget.parse("20s"), Budget(20.0, shared=False)])
def test_a_usage_is_asked_for_until_it_is_known(device, ledger, budget):
    device.billed = 19.0
    device.fault("usage", *["refuse", "drop"] * 3)
    estimator = estimator_of(device, ledger, budget=budget, retries=0)
    for angle in (0.1, 0.2, 0.3):
        estimator.run(small_pubs(angle)).result()
    assert (device.calls("usage"), estimator.spent.seconds) == (1 + 2 + 3, 6.0)
    estimator.update_usage()  # as at the end of a run
    assert estimator.spent.seconds == 57.0
    assert [row.used.seconds for row in ledger.rows()] == [19.0] * 3
    calls = device.calls("usage")
    estimator.update_usage()
    assert device.calls("usage") == calls


def test_a_device_that_never_tells_is_asked_for_some_jobs_at_a_time(device, ledger):
    device.fault("usage", *["refuse"] * 100)
    estimator = estimator_of(device, ledger, budget=Budget.parse("100s"))
    for angle in np.linspace(0.1, 0.9, 12):
        estimator.run(small_pubs(angle)).result()
    calls = device.calls("usage")
    for _ in range(3):
        estimator.update_usage()
    assert device.calls("usage") == calls + 3 * 8
    assert (len(device.jobs), estimator.spent.seconds) == (12, 24.0)


@pytest.mark.parametrize("billed", [-60.0, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("outcome", ["done", "failed"])
def test_a_usage_that_cannot_be_is_not_known(device, ledger, billed, outcome):
    device.billed, device.seconds = billed, 4.0
    device.free(outcome)
    estimator = estimator_of(device, ledger, budget=Budget.parse("8s"))
    for angle in (0.1, 0.2):
        job = estimator.run(small_pubs(angle))
        if outcome == "done":
            job.result()
        else:
            with pytest.raises(BackendError, match="the qubits melted"):
                job.result()
    assert [row.used for row in ledger.rows()] == [None, None]
    assert estimator.spent.seconds == 8.0
    with pytest.raises(BudgetError, match="8 s of 8 s"):
        estimator.run(small_pubs(0.3))
    device.billed = 1.0  # the device corrects it
    estimator.run(small_pubs(0.3))
    assert {row.used.seconds for row in ledger.rows() if row.used is not None} == {1.0}


@pytest.mark.parametrize("used", [Cost(seconds=-1.0), Cost(usd=math.nan), Cost(shots=-1), Cost(seconds=math.inf)])
def test_the_ledger_takes_no_cost_that_cannot_be(device, ledger, used):
    estimator = estimator_of(device, ledger)
    estimator.run(small_pubs()).result()
    assert ledger.settle(1, used).used is None
    device.seconds = used.seconds or -1.0
    with pytest.raises(BackendError, match="must have numbers that are finite and not negative"):
        estimator.run(small_pubs(0.7))
    assert len(device.jobs) == len(ledger.rows()) == 1


def test_resume_asks_for_a_usage_that_is_not_known(device, ledger):
    device.fault("usage", "refuse")
    estimator_of(device, ledger).run(small_pubs()).result()
    [row] = ledger.rows()
    assert row.is_unsettled
    assert resume(ledger, row, device).used.seconds == 2.0
    calls = device.calls("usage")
    assert not resume(ledger, ledger.row(row.id), device).is_unsettled
    assert device.calls("usage") == calls


def test_estimators_that_are_open_at_the_same_time_share_a_budget(device, ledger):
    estimator_of(device, ledger).run(small_pubs(0.1)).result()  # before: does not count
    first, second = (estimator_of(device, ledger, budget=Budget.parse("5s")) for _ in range(2))
    first.run(small_pubs(0.2)).result()
    second.run(small_pubs(0.3)).result()
    for estimator in (first, second):
        with pytest.raises(BudgetError, match="4 s of 5 s"):
            estimator.run(small_pubs(0.4))
    assert (first.spent.seconds, second.spent.seconds) == (2.0, 2.0)
    first.budget = replace(first.budget, shared=False)
    first.run(small_pubs(0.4)).result()
    estimator_of(device, ledger, budget=Budget.parse("5s")).run(small_pubs(0.5)).result()  # opened later


@pytest.mark.parametrize("budget", [Budget.parse("1000s"), Budget(1000.0, shared=False), None])
def test_an_account_does_not_grow_with_the_jobs_and_forgets_no_cost(device, ledger, budget):
    first, second = (estimator_of(device, ledger, budget=budget) for _ in range(2))
    for i, angle in enumerate(np.linspace(0.1, 0.9, 24)):
        device.billed = 1.0 + i
        (first, second)[i % 3 == 0].run(small_pubs(angle)).result()
        if i == 11:
            ledger.clear()
    assert len(first.account._own) == len(second.account._own) == 1
    others = sum(range(1, 25, 3))
    assert (first.spent.seconds, second.spent.seconds) == (300 - others, others)
    if budget is not None:
        device.seconds = 1e6
        with pytest.raises(BudgetError, match=f"and {300 if budget.shared else 300 - others} s of 1000 s are spent"):
            first.run(small_pubs(2.0))
        assert not first.account._own
        if budget.shared:
            assert not ledger.charged(device.name, first.account._since)


def test_another_device_has_a_budget_of_its_own(tmp_path, device, ledger):
    estimator, budget = estimator_of(device, ledger), Budget.parse("3s")
    other = estimator_of(DiskDevice(tmp_path / "other", name="disk:other"), ledger, budget=budget)
    estimator.run(small_pubs(0.1)).result()
    other.run(small_pubs(0.1)).result()
    assert other.spent.seconds == 2.0


def test_what_is_deleted_from_the_ledger_is_still_spent(device, ledger):
    estimator = estimator_of(device, ledger, budget=Budget.parse("5s"))
    for angle in (0.1, 0.2):
        estimator.run(small_pubs(angle)).result()
    assert ledger.clear() == 2
    with pytest.raises(BudgetError, match="4 s of 5 s"):
        estimator.run(small_pubs(0.3))
    fresh = estimator_of(device, ledger, budget=Budget.parse("5s"))
    fresh.run(small_pubs(0.4)).result()
    with pytest.raises(BudgetError, match="6 s of 5 s"):  # numbers of charges go on
        estimator.run(small_pubs(0.3))


def test_a_job_that_is_taken_over_counts_for_all(device, ledger):
    device.hold()
    estimator_of(device, ledger).run(small_pubs())  # nobody waits for it
    first, second = (estimator_of(device, ledger, budget=Budget.parse("3s")) for _ in range(2))
    job = first.run(small_pubs())
    assert (first.jobs_attached, first.spent.seconds) == (1, 2.0)
    with pytest.raises(BudgetError, match="2 s of 3 s"):
        second.run(small_pubs(0.4))
    device.free()
    job.result()


def test_a_refusal_leaves_the_row_to_be_looked_for(device, ledger):
    device.fault("submit", "drop_after")  # the device has the job
    with pytest.raises(TransientBackendError):
        estimator_of(device, ledger, retries=0).run(small_pubs())
    device.fault("find", "miss")
    with pytest.raises(BudgetError):
        estimator_of(device, ledger, budget=Budget.parse("1s")).run(small_pubs())
    assert states(ledger) == ["sending"]
    assert estimator_of(device, ledger).run(small_pubs()).result()[0].metadata["job_id"] == "job-1"
    assert len(device.jobs) == 1


def test_seconds_do_not_limit_what_is_paid_by_the_shot(device, ledger):
    device.paid, device.seconds, device.billed, device.usd = True, 0.0, 0.0, 3.0
    with pytest.raises(BudgetError, match=r"not paid by the second, so the budget of 60s cannot be kept.*budget=5usd"):
        estimator_of(device, ledger, budget=Budget.parse("60s")).run(small_pubs())
    assert (device.jobs, ledger.rows()) == ([], [])
    for budget in ("5usd", "unlimited"):
        estimator_of(device, ledger, budget=Budget.parse(budget), cache=False).run(small_pubs()).result()
