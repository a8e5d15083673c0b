"""Jobs on Braket devices through the real client of AWS, against a service on the loopback."""

from __future__ import annotations

import json
import logging
import sqlite3

import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.quantum_info import SparsePauliOp

from qiskit_qattn import QuantumHead, attention_circuit
from qiskit_qattn.backends.jobs.client import cancel
from qiskit_qattn.backends.jobs.device import Cost, JobStatus
from qiskit_qattn.errors import (
    BackendError,
    BudgetError,
    JobError,
    TransientBackendError,
)

from .aws_devices import PLAIN, QPU
from .braket_adapter import PRECISION, SHOTS, assert_right, backend_of, created, device_of, eight_circuits


@pytest.fixture
def pub(rng):
    return eight_circuits(rng)


@pytest.mark.parametrize(("target", "tasks"), [("test-garnet", 2), (PLAIN, 8), ("sv1", 8)])
def test_a_job_measures_what_the_circuit_says(aws, pub, target, tasks):
    device = device_of(target)
    estimate = device.estimate([pub], PRECISION)
    job = device.submit([pub], PRECISION, "tag")
    assert device.status(job) == JobStatus("done")
    assert_right(device.result(job, [pub])[0], pub)
    assert created(aws) == (tasks, tasks) == (estimate.jobs, len(job.split(";")))
    usage = device.usage(job)
    assert (usage.circuits, usage.shots) == (estimate.circuits, estimate.shots) == (8, 8 * SHOTS)
    if target != "sv1":  # the time of a simulator is known afterwards
        assert usage.usd == pytest.approx(estimate.usd)


def test_several_pubs_are_one_job(aws, pub, rng):
    circuit = attention_circuit("qsann", 3)
    points = rng.normal(size=(2, circuit.circuit.num_parameters))
    other = EstimatorPub.coerce((circuit.circuit, [[op] for op in circuit.observables], points), PRECISION)
    constant = EstimatorPub.coerce((QuantumCircuit(1), SparsePauliOp(["I", "Z"], [0.5, 1.0])), PRECISION)
    device = device_of()
    job = device.submit([pub, other, constant], PRECISION, "tag")
    for found, sent in zip(device.result(job, [pub, other, constant]), [pub, other, constant], strict=True):
        assert_right(found, sent)
    for wrong in ([pub], [pub, other, constant, constant]):
        with pytest.raises(BackendError, match="circuits than its PUBs have"):
            device.result(job, wrong)


def test_what_is_sent(aws, pub):
    device = device_of(reservation="arn:aws:braket:eu-north-1:123456789012:reservation/abc")
    job = device.submit([pub], PRECISION, "tag")
    first, second = aws.bodies
    assert first["deviceArn"] == QPU and (first["outputS3Bucket"], first["outputS3KeyPrefix"]) == ("results", "here")
    assert first["tags"] == {"qiskit-qattn": "tag", "qiskit-qattn-part": "0/2"}
    assert (first["shots"], second["shots"]) == (6 * SHOTS, 2 * SHOTS)
    assert first["associations"][0]["arn"].endswith("reservation/abc")
    assert first["clientToken"] != second["clientToken"] and len(first["clientToken"]) == 64
    assert all(":eu-north-1:" in arn for arn in job.split(";"))


def test_costs(aws, pub):
    assert device_of().estimate([pub], PRECISION).usd == pytest.approx(2 * 0.3 + 3200 * 0.001)
    assert device_of(price=(0.1, 0.01)).estimate([pub], PRECISION).usd == pytest.approx(2 * 0.1 + 3200 * 0.01)
    simulator = device_of("sv1")
    assert simulator.estimate([pub], PRECISION) == Cost(8, 8, 8 * SHOTS, 24.0, pytest.approx(24 / 60 * 0.075))
    assert not aws.tasks
    used = simulator.usage(simulator.submit([pub], PRECISION, "tag"))
    assert used == Cost(8, 8, 8 * SHOTS, 48.0, pytest.approx(48 / 60 * 0.075))  # six seconds a task


def test_another_process_reads_the_result(aws, pub):
    aws.held = True
    job = device_of(PLAIN).submit([pub], PRECISION, "tag")
    device = device_of(PLAIN)
    assert device.find("tag") == [job] and device.find("other") == []
    assert device.status(job) == JobStatus("queued", position=10)
    with pytest.raises(BackendError, match="QUEUED and has no result") as caught:
        device.result(job, [pub])
    assert not isinstance(caught.value, JobError)  # it has not failed
    aws.release()
    assert device.status(job).state == "done"
    assert_right(device.result(job, [pub])[0], pub)
    assert created(aws) == (8, 8)


@pytest.mark.parametrize("at", [0, 1])
def test_a_lost_answer_makes_no_second_task(aws, pub, at):
    aws.faults.extend([("CreateQuantumTask", None)] * at + [("CreateQuantumTask", "drop_answer")])
    with pytest.raises(TransientBackendError, match=f"failed while sending task {at + 1} of 2 to Test Garnet"):
        device_of().submit([pub], PRECISION, "tag")
    device = device_of()  # of another process
    assert device.find("tag") == ([] if at == 0 else [";".join(aws.tasks)])
    job = device.submit([pub], PRECISION, "tag")
    assert len(aws.tasks) == 2 and job == ";".join(aws.tasks)
    assert_right(device.result(job, [pub])[0], pub)


def test_the_same_task_sent_twice_is_one(aws, pub):
    """The client token alone, where the search is behind."""
    aws.faults.append(("CreateQuantumTask", "drop_answer"))
    device = device_of()
    with pytest.raises(TransientBackendError):
        device.submit([pub], PRECISION, "tag")
    job = device.submit([pub], PRECISION, "tag")
    assert created(aws) == (3, 2) and job == ";".join(aws.tasks)
    assert device_of().submit([pub], PRECISION, "another tag") != job
    assert len(aws.tasks) == 4


def test_throttling_half_way_goes_on_from_there(aws, pub):
    aws.faults.extend([("CreateQuantumTask", None)] * 3 + [("CreateQuantumTask", "throttle")])
    device = device_of(PLAIN)
    with pytest.raises(TransientBackendError, match="ThrottlingException") as caught:
        device.submit([pub], PRECISION, "tag")
    assert caught.value.retry_after == 7
    assert len(aws.tasks) == 3 and device.find("tag") == []
    assert_right(device.result(device.submit([pub], PRECISION, "tag"), [pub])[0], pub)
    assert created(aws) == (9, 8)  # three, the one refused, five


def test_a_refusal_half_way_cancels_what_was_sent(aws, pub):
    aws.held = True
    aws.faults.extend([("CreateQuantumTask", None), ("CreateQuantumTask", "invalid")])
    device = device_of()
    with pytest.raises(BackendError, match="ValidationException: as told"):
        device.submit([pub], PRECISION, "tag")
    assert [task["meta"]["status"] for task in aws.tasks.values()] == ["CANCELLED"]
    assert device.find("tag") == []


def test_a_failed_task_fails_the_job_and_can_be_sent_again(aws, pub):
    aws.fail_tasks = 1
    device = device_of()
    job = device.submit([pub], PRECISION, "tag")
    assert device.status(job) == JobStatus("failed", message="the cryostat warmed up")
    with pytest.raises(JobError, match="FAILED and has no result"):
        device.result(job, [pub])
    assert device.usage(job) == Cost(1, 2, 2 * SHOTS, 0.0, pytest.approx(0.3 + 0.8))  # the other task was run
    assert device.find("tag") == []
    again = device.submit([pub], PRECISION, "tag")  # the part that failed is sent, the other is there
    assert len(aws.tasks) == 3 and again.split(";")[1] == job.split(";")[1]
    assert_right(device.result(again, [pub])[0], pub)


def test_a_circuit_that_failed_within_a_program_set(aws, pub):
    device = device_of()
    job = device.submit([pub], PRECISION, "tag")
    key = next(key for key in aws.objects if "/1/" in key)
    result = json.loads(aws.objects[key])
    entry = result["programResults"][0]["executableResults"][1]
    result["programResults"][0]["executableResults"][1] = {
        "braketSchemaHeader": {"name": "braket.task_result.program_set_executable_failure", "version": "1"},
        "inputsIndex": entry["inputsIndex"],
        "failureMetadata": {"failureReason": "qubit 3 was lost", "retryable": True, "category": "DEVICE"},
    }
    aws.objects[key] = json.dumps(result)
    with pytest.raises(JobError, match="qubit 3 was lost"):
        device.result(job, [pub])


def test_results_in_many_objects(aws, pub):
    aws.split = True
    device = device_of()
    job = device.submit([pub], PRECISION, "tag")
    assert_right(device.result(job, [pub])[0], pub)
    assert aws.calls.count("GetObject") == len(aws.objects) == 2 * 2 + 3 * 2 + 8  # of tasks, programs and circuits
    lost = next(key for key in aws.objects if key.endswith("executables/1.json"))
    del aws.objects[lost]
    with pytest.raises(TransientBackendError, match="was it removed"):
        device.result(job, [pub])


def test_cancel(aws, pub):
    aws.held = True
    device = device_of()
    job = device.submit([pub], PRECISION, "tag")
    aws.run(aws.tasks[job.split(";")[1]])  # the second has just ended
    device.cancel(job)
    assert [task["meta"]["status"] for task in aws.tasks.values()] == ["CANCELLED", "COMPLETED"]
    assert device.status(job).state == "cancelled"
    device.cancel(job)
    assert aws.calls.count("CancelQuantumTask") == 1


def test_a_head_on_a_device_through_the_ledger(aws, caplog, tmp_path):
    caplog.set_level(logging.INFO)
    text = "braket:test-garnet?shots=400&s3=results/here&budget=unlimited&gradient=simulated"
    head = QuantumHead(attention_circuit("angle", 2))
    x = torch.randn(3, head.num_features)
    exact = head(x)
    backend = backend_of(text)
    assert backend.shots == 400 and backend.price == (0.3, 0.001)
    values = head.to_backend(backend)(x)
    assert 0 < (values - exact).abs().max() < 1.5
    torch.testing.assert_close(head.to_backend(backend_of(text))(x), values)  # from the ledger
    count = created(aws)[1]
    assert count > 0 and backend.estimator.jobs_sent == 1
    head.to_backend(backend_of(text + "&cache=off"))(x)
    assert created(aws)[1] == 2 * count
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    assert sqlite3.connect(tmp_path / "ledger.sqlite").execute("SELECT count(*) FROM jobs").fetchone() == (2,)
    for secret in ("very-secret", "AKIDTEST"):
        assert secret.encode() not in stored and secret not in caplog.text


def test_a_paid_device_needs_a_budget(aws, pub):
    with pytest.raises(BudgetError):
        backend_of("braket:test-garnet?s3=results/here").estimator.run([pub])
    with pytest.raises(BudgetError):
        backend_of("braket:test-garnet?s3=results/here&budget=1usd").estimator.run([pub])
    assert not aws.tasks


@pytest.mark.parametrize("other_process", [False, True])
def test_parts_of_a_job_that_was_not_sent_as_a_whole_are_cancelled(aws, pub, other_process):
    aws.held = True
    aws.faults.extend([("CreateQuantumTask", None)] * 3 + [("CreateQuantumTask", "throttle")])
    device = device_of(PLAIN)
    with pytest.raises(TransientBackendError):
        device.submit([pub], PRECISION, "tag")
    whole = device.submit([pub], PRECISION, "other tag")
    (device_of(PLAIN) if other_process else device).abandon("tag")
    states = [task["meta"]["status"] for task in aws.tasks.values()]
    assert states == ["CANCELLED"] * 3 + ["QUEUED"] * 8
    assert device.find("other tag") == [whole]


def test_a_lost_job_is_cancelled_from_the_ledger_with_all_its_tasks(aws, pub, monkeypatch):
    aws.held = True
    aws.faults.extend([("CreateQuantumTask", None)] * 3 + [("CreateQuantumTask", "throttle")])
    estimator = backend_of("braket:test-plain?s3=results/here&budget=unlimited&retries=0").estimator
    with pytest.raises(TransientBackendError):
        estimator.run([pub])
    [row] = estimator.ledger.rows()
    assert cancel(estimator.ledger, row, device_of(PLAIN)).state == "cancelled"
    assert [task["meta"]["status"] for task in aws.tasks.values()] == ["CANCELLED"] * 3


def test_one_task_that_cannot_be_cancelled_spares_none_of_the_others(aws, pub):
    aws.held = True
    device = device_of(PLAIN)
    job = device.submit([pub], PRECISION, "tag")
    aws.faults.append(("CancelQuantumTask", "denied"))
    with pytest.raises(BackendError, match="AmazonBraketFullAccess"):
        device.cancel(job)
    assert [task["meta"]["status"] for task in aws.tasks.values()] == ["QUEUED"] + ["CANCELLED"] * 7
