"""A paid job on Braket under every answer that AWS should not give: found again, and sent once."""

from __future__ import annotations

import itertools

import pytest

from qiskit_qattn.backends.jobs import retries, runner
from qiskit_qattn.errors import BackendError

from .aws_devices import QPU
from .aws_faults import FAULTS, RESULT_FAULTS, AnswerFault
from .braket_adapter import assert_right, backend_of, eight_circuits

CASES = [
    (operation, name)
    for operation in ("CreateQuantumTask", "SearchQuantumTasks", "GetQuantumTask", "GetObject")
    for name in (FAULTS | RESULT_FAULTS if operation == "GetObject" else FAULTS)
]
FEW = {
    ("CreateQuantumTask", "nulls"),
    ("CreateQuantumTask", "other_task"),
    ("SearchQuantumTasks", "no_keys"),
    ("GetQuantumTask", "null"),
} | {("GetObject", name) for name in ("empty", "no_items", "no_samples")}
_NUMBERS = itertools.count()


@pytest.fixture
def pub(rng):
    return eight_circuits(rng)


@pytest.fixture
def text(aws, monkeypatch):
    """Return a backend string of a device that no circuit breaker knows."""
    monkeypatch.setattr(retries, "BACKOFF", 0.001)
    monkeypatch.setattr(runner, "FIRST_POLL", 0.001)
    monkeypatch.setattr(runner, "LONGEST_POLL", 0.01)
    aws.devices[QPU]["deviceName"] = name = f"Paid-{next(_NUMBERS)}"
    return f"braket:{name}?shots=400&s3=results/here&budget=unlimited&retries=1"


def run(text, pub):
    found = backend_of(text).estimator
    return found, lambda: found.run([pub]).result()[0].data


@pytest.mark.parametrize(
    ("operation", "name"),
    [pytest.param(*case, marks=[] if case in FEW else pytest.mark.more) for case in CASES],
)
def test_a_job_is_paid_once(aws, pub, text, operation, name):
    fault = (FAULTS | RESULT_FAULTS)[name]
    if operation == "SearchQuantumTasks":  # which is asked where the answer to the first task is lost
        aws.faults.append(("CreateQuantumTask", "drop_answer"))
    found, act = run(text, pub)
    aws.answers[operation] = fault
    try:
        assert_right(act(), pub)
    except BackendError:
        [row] = found.ledger.rows()
        refused = operation == "CreateQuantumTask" and (fault.refuses or fault.status == 429)
        expected = {"CreateQuantumTask": "sending", "SearchQuantumTasks": "sending"}.get(operation, "sent")
        expected = "sent" if name == "other_task" else expected  # under an id that no task has, until it is looked for
        assert row.state == ("failed" if refused else expected)
    aws.answers.clear()
    _, act = run(text, pub)
    assert_right(act(), pub)
    assert len(aws.tasks) == 2 and {task["meta"]["status"] for task in aws.tasks.values()} == {"COMPLETED"}
    assert found.ledger.rows()[0].state == "done"


@pytest.mark.parametrize("shots", [0, 300])
def test_a_task_without_all_its_shots_stays_in_the_ledger(aws, pub, text, shots):
    found = run(text, pub)[0]
    aws.held = True
    job = found.run([pub])
    aws.release()
    task = next(iter(aws.tasks.values()))["meta"]
    task["numSuccessfulShots"], all_shots = shots, task["numSuccessfulShots"]
    with pytest.raises(BackendError, match=rf"Task {task['quantumTaskArn']} has {shots} of 2,400 shots"):
        job.result()
    [row] = found.ledger.rows()
    assert row.state == "sent" and task["quantumTaskArn"] in row.job_id
    task["numSuccessfulShots"] = all_shots
    assert_right(run(text, pub)[1](), pub)
    assert len(aws.tasks) == 2


def test_tasks_that_cannot_be_cancelled_after_a_refusal_are_used_by_the_next_run(aws, pub, text):
    aws.held = True
    aws.faults.extend([("CreateQuantumTask", None), ("CreateQuantumTask", "invalid")])
    aws.answers["CancelQuantumTask"] = AnswerFault(403, "AccessDeniedException", served=False)
    found, act = run(text.replace("retries=1", "retries=0"), pub)
    with pytest.raises(BackendError, match=r"ValidationException.*could not be cancelled"):
        act()
    assert found.ledger.rows()[0].state == "sending"
    aws.answers.clear()
    aws.release()
    assert_right(run(text, pub)[1](), pub)
    assert len(aws.tasks) == 2
