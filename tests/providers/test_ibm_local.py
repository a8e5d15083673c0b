"""The adapter in local testing mode: a snapshot of a device, simulated in this process."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit_ibm_runtime.fake_provider import FakeManilaV2

from qiskit_qattn.backends.ibm.device import IBMDevice
from qiskit_qattn.backends.ibm.runtime import EstimatorSettings
from qiskit_qattn.errors import BackendError, JobError, TransientBackendError

from .ibm_adapter import PRECISION, RAW, at_precision, exact
from .ibm_client import Pub


@pytest.fixture(autouse=True)
def new_process(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Forget the local jobs, as in a new process, and return a function that does so again."""

    def forget() -> None:
        monkeypatch.setattr("qiskit_qattn.backends.ibm.device._LOCAL_JOBS", OrderedDict())
        monkeypatch.setattr("qiskit_qattn.backends.ibm.device._LOCAL_TAGS", {})

    forget()
    return forget


@pytest.fixture(scope="module")
def pubs(pub: Pub) -> list[EstimatorPub]:
    return at_precision(pub)


@pytest.mark.parametrize("mode", ["batch", "session", "job"])
def test_each_mode_runs_and_closes(pubs: list[EstimatorPub], mode: Any) -> None:
    ibm = IBMDevice(FakeManilaV2(), mode=mode, settings=EstimatorSettings(seed=1), max_time=60)
    [values] = ibm.result(ibm.submit(pubs, PRECISION, "a"), pubs)
    ibm.close()
    [again] = ibm.result(ibm.submit(pubs, PRECISION, "b"), pubs)
    for found in (values, again):
        assert np.abs(found.evs - exact(pubs[0])).max() < 0.2


def test_local_jobs_end_with_their_process(pubs: list[EstimatorPub], new_process: Callable[[], None]) -> None:
    ibm = IBMDevice(FakeManilaV2(), settings=RAW)
    job_id = ibm.submit(pubs, PRECISION, "a")
    assert ibm.find("a") == [job_id] and ibm.find("b") == []
    assert np.abs(ibm.result(job_id, pubs)[0].evs - exact(pubs[0])).max() < 0.35
    assert (ibm.status(job_id).state, ibm.usage(job_id).seconds, ibm.paid) == ("done", 0.0, False)
    assert IBMDevice(FakeManilaV2(), settings=RAW).status(job_id).state == "done"
    new_process()
    later = IBMDevice(FakeManilaV2(), settings=RAW)
    assert later.find("a") == []
    assert later.status(job_id).state == "lost"
    with pytest.raises(JobError, match="has ended"):
        later.result(job_id, pubs)


def test_a_seed_gives_each_job_its_own_noise_and_the_same_in_the_next_run(pubs: list[EstimatorPub]) -> None:
    def run(seed: int, tags: str) -> list[np.ndarray]:
        ibm = IBMDevice(FakeManilaV2(), settings=EstimatorSettings(resilience=0, seed=seed))
        return [ibm.result(ibm.submit(pubs, PRECISION, tag), pubs)[0].evs for tag in tags]

    first, again, other = run(0, "ab"), run(0, "cd"), run(1, "a")
    np.testing.assert_array_equal(first, again)
    assert (first[0] != first[1]).any() and (first[0] != other[0]).any()


def test_noise_off_leaves_shot_noise(pubs: list[EstimatorPub]) -> None:
    ibm = IBMDevice(FakeManilaV2(), settings=EstimatorSettings(seed=1, noise=False))
    [values] = ibm.result(ibm.submit(pubs, PRECISION, "a"), pubs)
    assert np.abs(values.evs - exact(pubs[0])).max() < 5 * PRECISION
    assert ibm.name == "ibm:fake_manila"


@pytest.mark.parametrize("sequence", ["XX", "XpXm", "XY4"])
def test_decoupling_and_twirling_keep_the_values(pubs: list[EstimatorPub], sequence: Any) -> None:
    settings = EstimatorSettings(resilience=1, twirling=True, decoupling=sequence, seed=2)
    ibm = IBMDevice(FakeManilaV2(), settings=settings)
    [values] = ibm.result(ibm.submit(pubs, PRECISION, "a"), pubs)
    assert np.abs(values.evs - exact(pubs[0])).max() < 0.2


def test_a_simulation_that_fails_says_why() -> None:
    circuit = QuantumCircuit(2)
    circuit.ch(0, 1)
    pubs = [EstimatorPub.coerce((circuit, "ZZ"), PRECISION)]
    ibm = IBMDevice(FakeManilaV2(), settings=RAW)
    job_id = ibm.submit(pubs, PRECISION, "a")
    with pytest.raises(BackendError, match="unknown instruction: ch"):
        ibm.result(job_id, pubs)
    assert "unknown instruction: ch" in ibm.status(job_id).message
    assert ibm.find("a") == []


def test_what_fails_in_the_simulation_is_a_failed_job(
    pubs: list[EstimatorPub], monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*_: Any, **__: Any) -> None:
        raise RuntimeError("Could not resolve box hash collision")

    monkeypatch.setattr("qiskit_ibm_runtime.fake_provider.local_service.run_quantum_program", explode)
    ibm = IBMDevice(FakeManilaV2(), settings=RAW)
    job_id = ibm.submit(pubs, PRECISION, "a")
    with pytest.raises(BackendError, match="RuntimeError: Could not resolve box hash collision"):
        ibm.result(job_id, pubs)
    status = ibm.status(job_id)
    assert status.state == "failed" and "box hash collision" in status.message


def test_what_fails_in_the_preparation_is_a_refused_job(
    pubs: list[EstimatorPub], monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*_: Any, **__: Any) -> None:
        raise RuntimeError("Could not resolve box hash collision")

    monkeypatch.setattr("qiskit_ibm_runtime.executor_estimator.estimator.prepare", explode)
    with pytest.raises(BackendError, match="sending a job failed in its client: RuntimeError: Could not") as caught:
        IBMDevice(FakeManilaV2(), settings=RAW).submit(pubs, PRECISION, "a")
    assert not isinstance(caught.value, TransientBackendError)
