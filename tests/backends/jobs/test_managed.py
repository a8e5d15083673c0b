"""An estimator over a device: stored results, jobs on their way, faults, budgets. The device keeps its jobs on disk."""

import logging
import threading

import numpy as np
import pytest
import torch
from qiskit.primitives import StatevectorEstimator

from qiskit_qattn import attention_circuit
from qiskit_qattn.backends.jobs import managed_job, resilience
from qiskit_qattn.backends.jobs.budget import Budget
from qiskit_qattn.backends.jobs.device import Cost
from qiskit_qattn.backends.jobs.ledger import Ledger
from qiskit_qattn.backends.jobs.managed import DEVICE_OPTIONS, ManagedEstimator, managed_estimator
from qiskit_qattn.backends.pub import PubProgram
from qiskit_qattn.backends.spec import BackendSpec
from qiskit_qattn.errors import BackendError, BudgetError, ConfigError, JobError, TransientBackendError

from .disk_client import PRECISION, small_pubs
from .disk_device import DiskDevice


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(resilience, "BACKOFF", 0.001)
    monkeypatch.setattr(managed_job, "FIRST_POLL", 0.001)
    monkeypatch.setattr(managed_job, "LONGEST_POLL", 0.02)


@pytest.fixture
def device(tmp_path, request):
    return DiskDevice(tmp_path / "device", name=f"disk:{request.node.name}")  # breakers go by name


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "ledger.sqlite")


def estimator_of(device, ledger, **options):
    return ManagedEstimator(device, ledger=ledger, precision=PRECISION, **options)


def states(ledger):
    return [row.state for row in ledger.rows()]


def test_a_run_is_one_job_and_its_result_is_stored(device, ledger):
    estimator = estimator_of(device, ledger)
    first = estimator.run(small_pubs()).result()
    exact = StatevectorEstimator().run(small_pubs(), precision=0.0).result()
    for pub, wanted in zip(first, exact, strict=True):
        assert pub.data.evs.shape == pub.data.stds.shape == wanted.data.evs.shape
        np.testing.assert_allclose(pub.data.evs, wanted.data.evs, atol=5 * 1.5 * PRECISION)
    about = {"job_id": "job-1", "cached": False, "shots": 100, "device": device.name}
    assert about.items() <= first[1].metadata.items()
    again = estimator_of(device, ledger)
    second = again.run(small_pubs()).result()
    np.testing.assert_array_equal(second[0].data.evs, first[0].data.evs)
    assert second[0].metadata["cached"] and second[0].metadata["job_id"] == "job-1"
    assert (estimator.jobs_sent, again.jobs_sent, again.jobs_cached, len(device.jobs)) == (1, 0, 1, 1)
    assert (estimator.spent.seconds, again.spent) == (2.0, Cost())


def test_what_differs_is_sent(device, ledger):
    estimator = estimator_of(device, ledger)
    for pubs, precision in [
        (small_pubs(), None),
        (small_pubs(0.4), None),
        (small_pubs(), 0.2),
        (small_pubs()[:1], None),
    ]:
        estimator.run(pubs, precision=precision).result()
    assert (estimator.jobs_sent, len(device.jobs)) == (4, 4)
    assert len({job["tag"] for job in device.jobs}) == 4


def test_without_cache_each_run_is_a_job_and_all_are_recorded(device, ledger):
    estimator = estimator_of(device, ledger, cache=False)
    first, second = (estimator.run(small_pubs()).result()[0].data.evs for _ in range(2))
    assert not np.array_equal(first, second)
    device.hold()
    jobs = [estimator.run(small_pubs()) for _ in range(2)]  # both on their way at once
    device.free()
    assert [job.result()[0].metadata["job_id"] for job in jobs] == ["job-3", "job-4"]
    assert states(ledger) == ["done"] * 4


def test_no_pubs_are_no_job(device, ledger):
    assert len(estimator_of(device, ledger).run([]).result()) == 0
    assert device.jobs == []


def test_several_jobs_are_on_their_way_at_once(device, ledger):
    device.hold(position=4)
    estimator = estimator_of(device, ledger)
    jobs = [estimator.run(small_pubs(angle)) for angle in (0.1, 0.2, 0.1)]
    assert [job.job_id() for job in jobs] == ["job-1", "job-2", "job-1"]
    assert [job.status() for job in jobs] == ["queued"] * 3
    assert not any(job.in_final_state() or job.running() for job in jobs)
    assert (estimator.jobs_sent, estimator.jobs_attached, estimator.spent.seconds) == (2, 1, 4.0)
    device.free()
    results = [job.result()[0] for job in jobs]
    np.testing.assert_array_equal(results[0].data.evs, results[2].data.evs)
    assert all(job.done() for job in jobs)
    assert len(device.jobs) == 2


def test_progress_is_told_one_line_a_change(device, ledger, caplog):
    caplog.set_level(logging.INFO, "qiskit_qattn.backends")
    device.hold(position=4)
    job = estimator_of(device, ledger).run(small_pubs())
    waiting = threading.Thread(target=job.result)
    waiting.start()
    before = device.calls("status")
    while waiting.is_alive() and device.calls("status") < before + 5:
        pass
    device.free()
    waiting.join()
    lines = [record.message for record in caplog.records]
    name = device.name
    assert lines[0] == f"{name} job job-1: sent"
    assert lines[1].startswith(f"{name} job job-1: queued, position 4, ")
    assert lines[2].startswith(f"{name} job job-1: done, ") and lines[2].endswith("s elapsed, used 2 s")
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("faults", "submits"),
    [(["drop_before"], 2), (["drop_after"], 1), (["busy_before:0.01"], 2), (["drop_before", "drop_after"], 2)],
)
def test_a_dropped_connection_sends_nothing_twice(device, ledger, faults, submits):
    device.fault("submit", *faults)
    estimator = estimator_of(device, ledger, retries=3)
    result = estimator.run(small_pubs()).result()
    assert result[0].metadata["job_id"] == "job-1"
    assert (device.calls("submit"), len(device.jobs), states(ledger)) == (submits, 1, ["done"])
    assert estimator.spent.seconds == 2.0


@pytest.mark.parametrize("method", ["estimate", "find", "status", "result", "usage"])
def test_every_call_is_repeated(device, ledger, method):
    device.fault("submit", "drop_after")
    device.fault(method, "drop", "busy:0", "drop")
    estimator = estimator_of(device, ledger, retries=5)
    assert estimator.run(small_pubs()).result()[0].metadata["job_id"] == "job-1"
    assert (len(device.jobs), estimator.spent.seconds) == (1, 2.0)


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_job_that_may_have_arrived_is_looked_for_by_the_next_request(device, ledger, where):
    device.fault("submit", f"drop_{where}")
    estimator = estimator_of(device, ledger, retries=0)
    with pytest.raises(TransientBackendError, match="dropped the connection"):
        estimator.run(small_pubs())
    assert states(ledger) == ["sending"]
    assert estimator.spent.seconds == 2.0  # it may be paid for
    assert estimator.run(small_pubs()).result()[0].metadata["job_id"] == "job-1"
    assert (device.calls("find"), len(device.jobs), states(ledger), estimator.spent.seconds) == (1, 1, ["done"], 2.0)


def test_an_interrupt_while_sending_loses_nothing(device, ledger):
    device.fault("submit", "interrupt_after")
    estimator = estimator_of(device, ledger)
    with pytest.raises(KeyboardInterrupt):
        estimator.run(small_pubs())
    estimator.run(small_pubs()).result()
    assert (len(device.jobs), states(ledger)) == (1, ["done"])


def test_a_refused_job_is_not_sent_again_by_itself(device, ledger):
    device.fault("submit", "refuse_before")
    estimator = estimator_of(device, ledger)
    with pytest.raises(BackendError, match="refuses this"):
        estimator.run(small_pubs())
    assert (device.calls("submit"), states(ledger), estimator.spent.seconds) == (1, ["failed"], 0.0)
    assert "refuses this" in ledger.rows()[0].error
    estimator.run(small_pubs()).result()
    assert (len(device.jobs), states(ledger)) == (1, ["done", "failed"])


def test_a_failed_job_is_an_error_and_may_be_sent_again(device, ledger):
    device.free("failed")
    estimator = estimator_of(device, ledger)
    with pytest.raises(JobError, match=r"Job job-1 on disk:.* failed: the qubits melted. The next run sends it again"):
        estimator.run(small_pubs()).result()
    assert (states(ledger), estimator.spent.seconds) == (["failed"], 2.0)  # paid for all the same
    device.free()
    result = estimator.run(small_pubs()).result()
    assert result[0].metadata["job_id"] == "job-2"
    assert device.jobs[0]["tag"] != device.jobs[1]["tag"]
    assert (states(ledger), estimator.spent.seconds) == (["done", "failed"], 4.0)


def test_a_cancelled_job_is_an_error(device, ledger):
    device.hold()
    job = estimator_of(device, ledger).run(small_pubs())
    job.cancel()
    assert job.cancelled()
    with pytest.raises(JobError, match=r"Job job-1 on disk:.* was cancelled"):
        job.result()
    assert states(ledger) == ["cancelled"]


def test_a_job_the_device_has_forgotten_is_an_error_once(device, ledger):
    device.fault("status", "lost")
    estimator = estimator_of(device, ledger)
    with pytest.raises(JobError, match="does not know this job"):
        estimator.run(small_pubs()).result()
    assert estimator.run(small_pubs()).result()[0].metadata["job_id"] == "job-2"


def test_a_timeout_leaves_the_job_to_the_next_run(device, ledger):
    device.hold()
    estimator = estimator_of(device, ledger, timeout=0.05)
    with pytest.raises(BackendError, match=r"Job job-1 on disk:.* not ended after 0.05 s .*next run .*picks it up"):
        estimator.run(small_pubs()).result()
    assert (device.calls("cancel"), states(ledger), estimator.spent.seconds) == (0, ["sent"], 2.0)
    device.free()
    later = estimator_of(device, ledger, cache=False)  # nobody has seen the result: this is no cache
    assert later.run(small_pubs()).result()[0].metadata == estimator.run(small_pubs()).result()[0].metadata | {
        "cached": False
    }
    assert (len(device.jobs), later.jobs_attached, later.spent.seconds) == (1, 1, 2.0)


def test_a_result_that_cannot_be_fetched_now_is_fetched_later(device, ledger):
    device.fault("result", "refuse")
    estimator = estimator_of(device, ledger)
    with pytest.raises(BackendError, match="refuses this"):
        estimator.run(small_pubs()).result()
    assert states(ledger) == ["sent"]
    estimator.run(small_pubs()).result()
    assert (len(device.jobs), states(ledger)) == (1, ["done"])


def test_an_unknown_usage_counts_as_estimated(device, ledger):
    device.seconds = 7.0
    device.fault("usage", "refuse")
    estimator = estimator_of(device, ledger)
    estimator.run(small_pubs()).result()
    assert (ledger.rows()[0].used, estimator.spent.seconds) == (None, 7.0)


class Cut(DiskDevice):
    """Returns one PUB too few."""

    def result(self, job_id, pubs):
        return super().result(job_id, pubs)[1:]


def test_results_of_another_shape_are_not_stored(tmp_path, ledger):
    estimator = estimator_of(Cut(tmp_path / "device"), ledger)
    with pytest.raises(BackendError, match=r"returned values and errors of shapes .* expected .*\(2, 3\)"):
        estimator.run(small_pubs()).result()
    assert states(ledger) == ["sent"]


def test_a_device_that_keeps_failing_is_left_alone(device, ledger, monkeypatch):
    monkeypatch.setattr(resilience, "FAILURES", 3)
    device.fault("submit", *["drop_before"] * 9)
    with pytest.raises(BackendError, match="failed 3 times in a row and is left alone until"):
        estimator_of(device, ledger).run(small_pubs())
    calls = device.calls("submit")
    with pytest.raises(BackendError, match="left alone until"):
        estimator_of(device, ledger).run(small_pubs(0.7))
    assert device.calls("submit") == calls


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
    assert (device.jobs, states(ledger)) == ([], ["failed"])
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


def test_an_attention_circuit_runs_and_learns_through_it(device, ledger, rng):
    head = attention_circuit("qisa", num_qubits=2)
    params = {"input_params": head.input_params, "weight_params": head.weight_params}
    estimator = estimator_of(device, ledger)
    program = PubProgram(head.circuit, list(head.observables), estimator=estimator, precision=PRECISION, **params)
    inputs = torch.from_numpy(rng.normal(size=(3, len(head.input_params))))
    weights = torch.from_numpy(rng.normal(size=len(head.weight_params))).requires_grad_()
    values = program(inputs, weights)
    values.sum().backward()
    assert (estimator.jobs_sent, len(device.jobs)) == (2, 2)  # one forward, one backward
    assert weights.grad.abs().sum() > 0
    torch.testing.assert_close(program(inputs, weights), values)
    assert (estimator.jobs_sent, estimator.jobs_cached) == (2, 1)


def test_options_of_a_backend_string(device, tmp_path, monkeypatch):
    monkeypatch.setenv("QATTN_LEDGER", str(tmp_path / "mine.sqlite"))
    spec = BackendSpec.parse("disk:test?budget=1.5usd&cache=off&timeout=30&retries=0")
    spec.check_options(DEVICE_OPTIONS)
    estimator = managed_estimator(spec, device, precision=0.25)
    assert estimator.ledger.path == tmp_path / "mine.sqlite"
    assert (str(estimator.budget), estimator.cache, estimator.timeout) == ("1.5usd", False, 30)
    device.fault("estimate", "drop")
    with pytest.raises(TransientBackendError):
        estimator.run(small_pubs())
    usual = managed_estimator(BackendSpec.parse("disk:test"), device, precision=0.25)
    assert (usual.budget, usual.cache, usual.timeout) == (None, True, None)
    assert usual.run(small_pubs()).result()[0].metadata["shots"] == 16


@pytest.mark.parametrize("option", ["budget=0s", "budget=5", "cache=yes", "timeout=0", "retries=-1", "retries=many"])
def test_bad_options_are_errors(device, option):
    key, value = option.split("=")
    with pytest.raises(ConfigError, match=f"(?i){key}.*'{value}'"):
        managed_estimator(BackendSpec.parse(f"disk:test?{option}"), device, precision=0.25)
