"""Jobs that may have been sent, and results that cannot be read: each is paid once, and its values come in the end."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from qiskit_qattn.backends.jobs.client import resume
from qiskit_qattn.backends.jobs.estimator import ManagedEstimator
from qiskit_qattn.backends.jobs.ledger import Ledger
from qiskit_qattn.backends.registry import get_backend
from qiskit_qattn.errors import BackendError, TransientBackendError

from .ibm_client import Pub
from .ibm_faults import CALLS
from .ibm_server import IBMServer

BACKEND = "ibm:test_manila?optimization=0&resilience=0&shots=100&budget=9s&retries=1"


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qiskit_qattn.backends.jobs.retries.BACKOFF", 0.001)


@pytest.fixture
def estimator(ibm_server: IBMServer) -> ManagedEstimator:
    return managed()


def managed() -> Any:
    return get_backend(BACKEND).estimator


def without_items(answer: Any) -> Any:
    return answer | {"data": []}


def without_shots(answer: Any) -> Any:
    """Keep the form of a result, with arrays that hold no shots."""

    def walk(value: Any) -> Any:
        if isinstance(value, dict) and "shape" in value and "data" in value:
            return value | {"shape": [0, *value["shape"][1:]], "data": ""}
        if isinstance(value, dict):
            return {name: walk(item) for name, item in value.items()}
        return [walk(item) for item in value] if isinstance(value, list) else value

    return walk(answer)


SPOILED = {
    "no items": without_items,
    "no shots": without_shots,
    "empty": lambda _: None,
}


@pytest.mark.parametrize("kind", SPOILED)
def test_a_bad_transfer_is_not_a_failed_job(
    ibm_server: IBMServer, estimator: ManagedEstimator, pub: Pub, kind: str
) -> None:
    ibm_server.change("GET /jobs/.*/results", SPOILED[kind], times=2)
    with pytest.raises(TransientBackendError, match=r"Job job-0 on ibm:test_manila: .*qattn jobs resume 1\."):
        estimator.run([pub]).result()
    [row] = Ledger().rows()
    assert (row.state, ibm_server.count("GET /jobs/job-0/results")) == ("sent", 2)  # and it was fetched again
    assert managed().run([pub]).result()[0].data.evs.shape == (3, 2)
    assert (len(ibm_server.jobs), Ledger().rows()[0].state) == (1, "done")


@pytest.mark.parametrize("kind", SPOILED)
def test_a_bad_transfer_that_passes_is_not_noticed(
    ibm_server: IBMServer, estimator: ManagedEstimator, pub: Pub, kind: str
) -> None:
    ibm_server.change("GET /jobs/.*/results", SPOILED[kind])
    assert estimator.run([pub]).result()[0].data.evs.shape == (3, 2)
    assert len(ibm_server.jobs) == 1


def test_a_result_of_another_size_is_not_taken(ibm_server: IBMServer, estimator: ManagedEstimator, pub: Pub) -> None:
    circuit, observables, angles = pub
    estimator.run([(circuit, observables, angles[:1])]).result()
    ibm_server.change("GET /jobs/.*/results", lambda _: json.loads(ibm_server.jobs["job-0"].result), times=2)
    with pytest.raises(TransientBackendError, match=r"values have shape \(3, 1\).* expected \(3, 2\)"):
        estimator.run([pub]).result()
    assert Ledger().rows()[0].state == "sent"
    assert estimator.run([pub]).result()[0].data.evs.shape == (3, 2)
    assert len(ibm_server.jobs) == 2


def test_a_job_of_another_account_stays_paid(ibm_server: IBMServer, estimator: ManagedEstimator, pub: Pub) -> None:
    ibm_server.hold()
    estimator.run([pub])
    ibm_server.release()
    ibm_server.refuse(CALLS["status"], 404, 1291, "Job not found.", times=99)
    later = managed()
    with pytest.raises(TransientBackendError, match=r"Job job-0 .* If the account or instance has changed since"):
        later.run([pub]).result()
    with pytest.raises(TransientBackendError, match=r"Job not found"):
        resume(Ledger(), Ledger().rows()[0], later.device)
    assert [row.state for row in Ledger().rows()] == ["sent"]
    ibm_server.mend()
    later.run([pub]).result()
    assert (len(ibm_server.jobs), later.jobs_sent) == (1, 0)


ODD: dict[str, Any] = {
    "no id": lambda answer: answer | {"id": None},
    "another device": lambda answer: answer | {"backend": "test_nairobi"},
    "no such device": lambda answer: answer | {"backend": "test_venice"},
    "no device": lambda answer: {"id": answer["id"]},
    "a word": lambda _: "accepted",
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("looks", [0, 2])
def test_a_job_with_an_odd_answer_is_found_by_its_tag(
    ibm_server: IBMServer, estimator: ManagedEstimator, pub: Pub, kind: str, looks: int
) -> None:
    ibm_server.change("POST /jobs", ODD[kind])
    ibm_server.lag(looks)
    assert estimator.run([pub]).result()[0].metadata["job_id"] == "job-0"
    assert (ibm_server.count("POST /jobs"), ibm_server.count("GET /jobs")) == (1, looks + 1)


@pytest.mark.parametrize("looks", [0, 1, 3])
def test_a_late_list_is_waited_for_before_a_job_is_sent_again(
    ibm_server: IBMServer, estimator: ManagedEstimator, pub: Pub, looks: int
) -> None:
    ibm_server.drop("POST /jobs", "after")
    ibm_server.lag(looks)
    assert estimator.run([pub]).result()[0].metadata["job_id"] == "job-0"
    assert len(ibm_server.jobs) == 1


def test_what_an_earlier_process_left_unsure_is_looked_for_as_patiently(
    ibm_server: IBMServer, estimator: ManagedEstimator, pub: Pub
) -> None:
    ibm_server.drop("POST /jobs", "after")
    ibm_server.spoil("GET /jobs", "500")
    with pytest.raises(TransientBackendError):
        estimator.run([pub])
    assert Ledger().rows()[0].state == "sending"
    ibm_server.mend()
    ibm_server.lag(3)
    later = managed()
    assert later.run([pub]).result()[0].metadata["job_id"] == "job-0"
    assert (len(ibm_server.jobs), later.jobs_sent) == (1, 0)


def test_a_refusal_after_a_lost_answer_proves_nothing(
    ibm_server: IBMServer, estimator: ManagedEstimator, pub: Pub
) -> None:
    ibm_server.drop("POST /jobs", "after")
    ibm_server.refuse("POST /jobs", 400, 1234, "No more jobs.")
    ibm_server.lag(4)
    with pytest.raises(BackendError, match=r"No more jobs"):
        estimator.run([pub])
    assert Ledger().rows()[0].state == "sending"
    assert managed().run([pub]).result()[0].metadata["job_id"] == "job-0"
    assert len(ibm_server.jobs) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413])
def test_the_posts_own_refusal_closes_the_row(
    ibm_server: IBMServer, estimator: ManagedEstimator, pub: Pub, status: int
) -> None:
    ibm_server.refuse("POST /jobs", status)
    with pytest.raises(BackendError) as caught:
        estimator.run([pub])
    assert not isinstance(caught.value, TransientBackendError)
    assert (Ledger().rows()[0].state, estimator.spent.seconds) == ("failed", 0.0)
    assert (ibm_server.count("POST /jobs"), ibm_server.count("GET /jobs")) == (1, 0)


def test_two_jobs_with_a_tag_are_one_and_the_ledger_says_so(
    ibm_server: IBMServer, estimator: ManagedEstimator, pub: Pub, caplog: pytest.LogCaptureFixture
) -> None:
    ibm_server.hold()
    ibm_server.drop("POST /jobs", "after", times=2)
    ibm_server.lag(4)  # longer than we are patient
    with pytest.raises(TransientBackendError):
        estimator.run([pub])
    job = managed().run([pub])
    ibm_server.release()
    assert job.result()[0].metadata["job_id"] == "job-0"
    assert [each.status for each in ibm_server.jobs.values()] == ["Completed", "Cancelled"]
    [row] = Ledger().rows()
    assert (row.state, row.error) == ("done", "its copy job-1 was cancelled")
    assert "job-0 was sent more than once: its copy job-1 was cancelled" in caplog.text


def test_a_job_that_ended_although_it_was_cancelled_keeps_its_result(
    ibm_server: IBMServer, estimator: ManagedEstimator, pub: Pub
) -> None:
    ibm_server.hold()
    job = estimator.run([pub])
    with ibm_server.lock:  # the service takes the request, and does not follow it
        ibm_server.state.routes.insert(0, (r"POST /jobs/[\w-]+/cancel", lambda **_: None))
    job.cancel()
    assert Ledger().rows()[0].state == "sent"
    ibm_server.release()
    assert job.result()[0].data.evs.shape == (3, 2)


def test_a_job_with_our_tag_in_a_list_of_others_is_ours(
    ibm_server: IBMServer, estimator: ManagedEstimator, pub: Pub
) -> None:
    estimator.run([pub], precision=0.2).result()

    def all_jobs(answer: Any) -> Any:
        jobs = [job.describe(with_params=False) for job in ibm_server.state.jobs.values()]
        return answer | {"jobs": jobs[::-1], "count": len(jobs)}

    ibm_server.change("GET /jobs", all_jobs, times=99)
    ibm_server.drop("POST /jobs", "after")
    assert estimator.run([pub]).result()[0].metadata["job_id"] == "job-1"


@pytest.mark.parametrize("page", ["no jobs", "the same job", "a wrong count"])
def test_a_list_that_never_ends_is_left(
    ibm_server: IBMServer, estimator: ManagedEstimator, pub: Pub, page: str, caplog: pytest.LogCaptureFixture
) -> None:
    def endless(answer: Any) -> Any:
        jobs = {"no jobs": [], "the same job": first, "a wrong count": answer["jobs"]}[page]
        return answer | {"jobs": jobs, "count": 10**6}

    caplog.set_level(logging.WARNING, "qiskit_qattn.backends")
    ibm_server.drop("POST /jobs", "after")
    ibm_server.hold()
    first = [{"id": "job-9", "backend": "test_manila", "tags": ["other"], "state": {"status": "Queued"}}]
    ibm_server.change("GET /jobs", endless, times=10**4)
    with pytest.raises(TransientBackendError, match=r"the list of jobs .* did not end after 50 pages"):
        estimator.run([pub])
    assert Ledger().rows()[0].state == "sending"
    assert Ledger().rows()[0].job_id is None
