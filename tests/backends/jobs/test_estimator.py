"""An estimator over a device: one job a run, stored results, jobs on their way, progress, options."""

import logging
import threading

import numpy as np
import pytest
import torch
from qiskit.primitives import StatevectorEstimator

from qiskit_qattn import attention_circuit
from qiskit_qattn.backends.jobs.device import Cost
from qiskit_qattn.backends.jobs.estimator import managed_estimator
from qiskit_qattn.backends.options import DEVICE_OPTIONS
from qiskit_qattn.backends.pub import PubProgram
from qiskit_qattn.backends.spec import BackendSpec
from qiskit_qattn.errors import ConfigError, TransientBackendError

from .disk_client import PRECISION, small_pubs
from .on_disk import estimator_of, states

pytestmark = pytest.mark.usefixtures("short_waits")


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
