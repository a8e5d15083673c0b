"""The adapter over the real client and the loopback service: modes, states, and what goes wrong on the way."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit_ibm_runtime import QiskitRuntimeService

from qiskit_qattn.backends.ibm.device import IBMDevice
from qiskit_qattn.backends.ibm.runtime import EstimatorSettings
from qiskit_qattn.backends.registry import precision_of
from qiskit_qattn.errors import BackendError, JobError, TransientBackendError

from .ibm_adapter import PRECISION, RAW, SHOTS, at_precision, exact
from .ibm_client import Pub
from .ibm_server import TOKEN, IBMServer


@pytest.fixture
def pubs(pub: Pub) -> list[EstimatorPub]:
    return at_precision(pub)


@pytest.fixture
def ibm(service: QiskitRuntimeService, device: Any) -> IBMDevice:
    return IBMDevice(device, service, settings=RAW, secrets=[TOKEN])


# modes


@pytest.mark.parametrize("mode", ["batch", "session", "job"])
def test_each_mode_runs_jobs_and_closes(
    ibm_server: IBMServer, service: QiskitRuntimeService, device: Any, pubs: list[EstimatorPub], mode: Any
) -> None:
    ibm = IBMDevice(device, service, mode=mode, settings=RAW, max_time=300)
    assert not ibm_server.state.sessions  # opened with the first job
    first, second = (ibm.submit(pubs, PRECISION, tag) for tag in ("a", "b"))
    assert ibm.status(first).state == ibm.status(second).state == "done"
    [values] = ibm.result(first, pubs)
    assert values.evs.shape == values.stds.shape == (3, 2)
    assert np.abs(values.evs - exact(pubs[0])).max() < 0.35  # a noisy device, without mitigation
    ibm.close()
    opened = [(s.mode, s.max_ttl, s.accepting_jobs) for s in ibm_server.state.sessions.values()]
    assert opened == {"batch": [("batch", 300, False)], "session": [("dedicated", 300, False)], "job": []}[mode]
    assert {job.max_seconds for job in ibm_server.jobs.values()} == {300 if mode == "job" else None}
    assert (ibm.name, ibm.paid) == ("ibm:test_manila", True)


def test_a_session_that_closed_under_us_is_renewed(
    ibm_server: IBMServer,
    service: QiskitRuntimeService,
    device: Any,
    pubs: list[EstimatorPub],
    caplog: pytest.LogCaptureFixture,
) -> None:
    ibm = IBMDevice(device, service, mode="session", settings=RAW)
    with caplog.at_level(logging.INFO, "qiskit_qattn.backends"):
        ibm.submit(pubs, PRECISION, "a")
        ibm_server.close_session("session-0")
        job_id = ibm.submit(pubs, PRECISION, "b")
    assert ibm_server.jobs[job_id].session_id == "session-1"
    assert caplog.messages == ["ibm:test_manila: the session was closed; opening another."]
    assert len(ibm_server.jobs) == 2


def test_a_session_is_renewed_once_a_job(ibm_server: IBMServer, ibm: IBMDevice, pubs: list[EstimatorPub]) -> None:
    ibm_server.refuse("POST /jobs", 400, 1217, "Session has been closed.", times=2)
    with pytest.raises(BackendError, match="Session has been closed") as caught:
        ibm.submit(pubs, PRECISION, "a")
    assert not isinstance(caught.value, TransientBackendError)
    assert ibm_server.count("POST /sessions") == 2
    assert ibm.status(ibm.submit(pubs, PRECISION, "a")).state == "done"


def test_a_closed_device_opens_another_batch(ibm_server: IBMServer, ibm: IBMDevice, pubs: list[EstimatorPub]) -> None:
    ibm.close()  # nothing is open
    for _ in range(2):
        ibm.submit(pubs, PRECISION, "a")
        ibm.close()
        ibm.close()
    assert ibm_server.count("POST /sessions") == ibm_server.count("PATCH /sessions/.*") == 2


def test_the_open_plan_runs_batches_with_a_notice(
    ibm_server: IBMServer,
    service: QiskitRuntimeService,
    device: Any,
    pubs: list[EstimatorPub],
    caplog: pytest.LogCaptureFixture,
) -> None:
    ibm_server.set_plan("open")
    ibm = IBMDevice(device, service, mode="session", settings=RAW)
    with pytest.warns(UserWarning, match="open plan .* has no sessions; jobs for test_manila run in a batch"):
        ibm.submit(pubs, PRECISION, "a")
    assert "no sessions" in caplog.text
    ibm.submit(pubs, PRECISION, "b")  # without a second notice
    assert [session.mode for session in ibm_server.state.sessions.values()] == ["batch"]
    assert len(ibm_server.jobs) == 2


# what is sent


@pytest.mark.parametrize(
    ("level", "twirling", "shots"),
    [(0, None, 1000), (0, True, 1000), (1, None, 1000), (1, False, 4096), (2, None, 1000), (2, False, 500)],
)
def test_the_estimate_is_what_the_service_counts(
    ibm_server: IBMServer,
    service: QiskitRuntimeService,
    device: Any,
    pub: Pub,
    level: Any,
    twirling: bool | None,
    shots: int,
) -> None:
    ibm_server.hold()
    pubs = [EstimatorPub.coerce(pub, precision_of(shots))]
    settings = EstimatorSettings(resilience=level, twirling=twirling)
    ibm = IBMDevice(device, service, mode="job", settings=settings, seconds_price=1.6)
    cost = ibm.estimate(pubs, precision_of(shots))
    assert not ibm_server.jobs
    job_id = ibm.submit(pubs, precision_of(shots), "a")
    job = ibm_server.jobs[job_id]
    assert (cost.jobs, cost.shots) == (1, job.shots)
    assert cost.circuits == [4, 5, 13][level]  # two bindings in two bases; a calibration; three noise factors
    assert job.seconds + 2 < cost.seconds < 1.1 * job.seconds + 2  # two seconds a job, and the circuits' durations
    assert cost.usd == pytest.approx(1.6 * cost.seconds)


def test_options_and_tag_are_sent(
    ibm_server: IBMServer, service: QiskitRuntimeService, device: Any, pubs: list[EstimatorPub]
) -> None:
    settings = EstimatorSettings(resilience=0, twirling=True, decoupling="XY4")
    ibm = IBMDevice(device, service, mode="job", settings=settings)
    job_id = ibm.submit(pubs, PRECISION, "my tag")
    job = ibm_server.jobs[job_id]
    sent = job.params["quantum_program"]["passthrough_data"]["post_processor"]["options"]
    assert job.tags == ["my tag"]
    assert sent["twirling"]["enable_gates"] is True
    assert (sent["dynamical_decoupling"]["enable"], sent["dynamical_decoupling"]["sequence_type"]) == (True, "XY4")
    assert ibm.settings != IBMDevice(device, service, settings=RAW).settings


@pytest.mark.filterwarnings("ignore:The EstimatorV2 class is deprecated:DeprecationWarning")
def test_an_older_client_runs_its_own_estimator(
    ibm_server: IBMServer, ibm: IBMDevice, pubs: list[EstimatorPub], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "qiskit_ibm_runtime.executor_estimator", None)  # the import then fails
    job_id = ibm.submit(pubs, PRECISION, "old")
    assert ibm_server.jobs[job_id].program == "estimator"
    assert ibm_server.jobs[job_id].tags == ["old"]
    assert np.abs(ibm.result(job_id, pubs)[0].evs - exact(pubs[0])).max() < 0.35


@pytest.mark.parametrize("precision", [0.0, -0.1, float("nan")])
def test_a_precision_that_is_none_is_refused_before_anything_is_sent(
    ibm_server: IBMServer, ibm: IBMDevice, pubs: list[EstimatorPub], precision: float
) -> None:
    for call in (lambda: ibm.submit(pubs, precision, "a"), lambda: ibm.estimate(pubs, precision)):
        with pytest.raises(BackendError, match="precision must be"):
            call()
    assert ibm_server.count("POST /(jobs|sessions)") == 0


# states and results


def test_a_job_waits_runs_and_ends(ibm_server: IBMServer, ibm: IBMDevice, pubs: list[EstimatorPub]) -> None:
    ibm_server.hold()
    job_id = ibm.submit(pubs, PRECISION, "a")
    assert (ibm.status(job_id).state, ibm.status(job_id).position) == ("queued", None)
    with pytest.raises(TransientBackendError):
        ibm.result(job_id, pubs)
    with pytest.raises(BackendError, match="not yet counted"):
        ibm.usage(job_id)
    ibm_server.hold("Running")
    assert ibm.status(job_id).state == "running"
    ibm_server.release()
    assert ibm.status(job_id).state == "done"
    assert ibm.usage(job_id).seconds == pytest.approx(4 * SHOTS * 250e-6)


def test_the_place_in_the_queue_is_told(ibm_server: IBMServer, ibm: IBMDevice, pubs: list[EstimatorPub]) -> None:
    ibm_server.hold()
    job_id = ibm.submit(pubs, PRECISION, "a")
    with ibm_server.lock:
        ibm_server.state.routes.insert(0, (r"GET /jobs/[\w-]+/metrics", lambda **_: {"position_in_queue": 7}))
    assert ibm.status(job_id).position == 7
    ibm_server.refuse("GET /jobs/.*/metrics", 404)
    assert (ibm.status(job_id).state, ibm.status(job_id).position) == ("queued", 7)


def test_a_cancelled_job_has_no_result(ibm_server: IBMServer, ibm: IBMDevice, pubs: list[EstimatorPub]) -> None:
    ibm_server.hold()
    job_id = ibm.submit(pubs, PRECISION, "a")
    ibm.cancel(job_id)
    assert ibm.status(job_id).state == "cancelled"
    assert ibm.find("a") == []
    with pytest.raises(JobError, match="cancelled"):
        ibm.result(job_id, pubs)
    ibm_server.release()
    with pytest.raises(JobError, match="cannot be cancelled"):
        ibm.cancel(ibm.submit(pubs, PRECISION, "b"))


def test_a_failed_job_says_why(ibm_server: IBMServer, ibm: IBMDevice, pubs: list[EstimatorPub]) -> None:
    ibm_server.fail_jobs("The device broke.", 9999)
    job_id = ibm.submit(pubs, PRECISION, "a")
    status = ibm.status(job_id)
    assert status.state == "failed"
    assert "The device broke" in status.message
    assert ibm.find("a") == []
    with pytest.raises(JobError, match="The device broke"):
        ibm.result(job_id, pubs)


def test_foreign_gates_fail_as_a_job(ibm: IBMDevice) -> None:
    circuit = QuantumCircuit(2)
    circuit.ch(0, 1)
    pubs = [EstimatorPub.coerce((circuit, "ZZ"), PRECISION)]
    with pytest.raises(JobError, match="unknown instruction: ch"):
        ibm.result(ibm.submit(pubs, PRECISION, "a"), pubs)


def test_a_job_that_is_not_there(ibm: IBMDevice, pubs: list[EstimatorPub]) -> None:
    for call in (lambda: ibm.status("nowhere"), lambda: ibm.result("nowhere", pubs), lambda: ibm.cancel("nowhere")):
        with pytest.raises(TransientBackendError, match=r"Job not found: nowhere\. If the account .* go back to that"):
            call()


def test_another_process_finds_the_job_and_reads_the_same(
    ibm_server: IBMServer, ibm: IBMDevice, pubs: list[EstimatorPub]
) -> None:
    expected = ibm.result(ibm.submit(pubs, PRECISION, "of a process that died"), pubs)[0].evs
    code = (
        "from qiskit.primitives.containers.estimator_pub import EstimatorPub\n"
        "from qiskit_qattn.backends.ibm.provider import find_device, open_service\n"
        "from qiskit_qattn.backends.ibm.device import IBMDevice\n"
        "from tests.providers.ibm_client import small_pub\n"
        "service, _ = open_service()\n"
        "ibm = IBMDevice(find_device(service, 'test_manila'), service)\n"
        "[job_id] = ibm.find('of a process that died')\n"
        "pubs = [EstimatorPub.coerce(small_pub(), 0.1)]\n"
        "print(ibm.status(job_id).state, ibm.result(job_id, pubs)[0].evs.tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | ibm_server.proxy_environment,
        cwd=os.path.dirname(os.path.dirname(os.path.dirname(__file__))),
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == f"done {expected.tolist()}", done.stderr
