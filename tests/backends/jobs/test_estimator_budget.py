"""An estimator with a budget: no job passes it, whoever sends it."""

import threading

import numpy as np
import pytest

from qiskit_qattn.backends.jobs.budget import Budget
from qiskit_qattn.errors import BudgetError, TransientBackendError

from .disk_client import small_pubs
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
