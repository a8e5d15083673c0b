"""Every call of a Braket device under every answer that AWS should not give: a value or an error of ours."""

from __future__ import annotations

import time

import pytest

from qiskit_qattn.backends.braket.provider import aws_device
from qiskit_qattn.backends.jobs.device import Cost, JobStatus
from qiskit_qattn.errors import BackendError, JobError, TransientBackendError, UnknownNameError

from .aws_devices import PLAIN, QPU, SV1
from .aws_faults import FAULTS, OTHER_ORDER, RESULT_FAULTS
from .braket_adapter import PRECISION, assert_right, device_of, eight_circuits

# call: the operations whose answers it reads
CALLS = {
    "lookup": ("GetDevice",),
    "search": ("SearchDevices", "GetDevice"),
    "submit": ("CreateQuantumTask", "GetDevice"),
    "find": ("SearchQuantumTasks",),
    "status": ("GetQuantumTask",),
    "result": ("GetQuantumTask", "GetObject"),
    "usage": ("GetQuantumTask",),
    "usage_of_a_simulator": ("GetQuantumTask", "GetObject"),
    "cancel": ("GetQuantumTask", "CancelQuantumTask"),
    "abandon": ("SearchQuantumTasks", "GetQuantumTask", "CancelQuantumTask"),
}
PAIRS = [(call, operation) for call, operations in CALLS.items() for operation in operations]
FEW = ("html", "nulls", "500", "no_keys")  # one of these for each pair; the others run with `make test-more`
# The answers hold none of what the fault changes, or not so that it could be told.
HARMLESS = {
    ("GetDevice", "other_task"),
    ("SearchDevices", "other_task"),
    ("SearchDevices", "other_words"),  # no device is a QPU
    ("SearchDevices", "nulls"),
    ("GetObject", "other_task"),
    ("GetObject", "other_words"),
    ("CancelQuantumTask", "other_task"),
    ("CreateQuantumTask", "other_words"),
    ("CreateQuantumTask", "other_task"),
    ("SearchQuantumTasks", "other_task"),
}


_SAMPLES = {"no_samples", "null_samples", "few_samples", "ragged", "no_bits", "other_qubits", "no_qubits", "no_items"}


def faults_of(call, operation):
    """Return the faults of an operation; usage does not read what was measured."""
    if operation != "GetObject":
        return FAULTS
    return FAULTS | {name: fault for name, fault in RESULT_FAULTS.items() if call == "result" or name not in _SAMPLES}


@pytest.fixture
def pub(rng):
    return eight_circuits(rng)


@pytest.fixture
def stage(aws, pub):
    """Return a function that makes a call ready: what calls it, and what checks its value."""

    def ready(call):
        aws.held = call in ("cancel", "abandon")
        target = SV1 if call.endswith("simulator") else PLAIN if call == "abandon" else QPU
        if call in ("lookup", "search"):
            name = QPU if call == "lookup" else "test-garnet"
            return (lambda: aws_device(name)), lambda value: value.arn == QPU
        device = device_of(target)
        if call == "submit":
            device._device._status = "OFFLINE"  # as it was when it was looked up
            return (lambda: device.submit([pub], PRECISION, "tag")), lambda value: value == ";".join(aws.tasks)
        if call == "abandon":
            aws.faults.extend([("CreateQuantumTask", None), ("CreateQuantumTask", "throttle")])
            with pytest.raises(TransientBackendError):
                device.submit([pub], PRECISION, "tag")
            other = device_of(target)  # of another process
            return (lambda: other.abandon("tag")), lambda _: states(aws) == ["CANCELLED"]
        job = device.submit([pub], PRECISION, "tag")
        other = device_of(target)
        return {
            "find": ((lambda: other.find("tag")), lambda value: value == [job]),
            "status": ((lambda: other.status(job)), lambda value: value == JobStatus("done")),
            "result": ((lambda: other.result(job, [pub])), lambda value: assert_right(value[0], pub) is None),
            "usage": ((lambda: other.usage(job)), lambda value: isinstance(value, Cost) and value.jobs == 2),
            "usage_of_a_simulator": ((lambda: other.usage(job)), lambda value: value.jobs == 8),
            "cancel": ((lambda: other.cancel(job)), lambda _: states(aws) == ["CANCELLED"] * 2),
        }[call]

    return ready


def states(aws):
    return [task["meta"]["status"] for task in aws.tasks.values()]


@pytest.mark.parametrize(
    ("call", "operation", "name"),
    [
        pytest.param(call, operation, name, marks=[] if name == FEW[pair % len(FEW)] else pytest.mark.more)
        for pair, (call, operation) in enumerate(PAIRS)
        for name in faults_of(call, operation)
    ],
)
def test_a_call_ends_in_a_value_or_an_error_of_ours(aws, stage, call, operation, name):
    act, right = stage(call)
    aws.answers[operation] = faults_of(call, operation)[name]
    started = time.monotonic()
    if (operation, name) in HARMLESS:
        try:
            act()
        except BackendError as error:
            assert not isinstance(error, JobError)
        except UnknownNameError:
            assert operation == "SearchDevices"
    else:
        with pytest.raises(BackendError) as caught:
            act()
        # A job is not failed because its answer did not come.
        assert not isinstance(caught.value, JobError)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 2000
        assert not any(secret in str(caught.value) for secret in ("very-secret", "AKID"))
        if call == "submit" and operation == "CreateQuantumTask":
            fault = aws.answers[operation]
            assert isinstance(caught.value, TransientBackendError) != fault.refuses
            if not fault.refuses:  # no answer but the service's own says that it has nothing
                assert caught.value.unsent == (fault.status == 429)
    assert time.monotonic() - started < 10
    aws.answers.clear()
    assert right(act())  # it has passed


def test_circuits_in_another_order_are_told_by_their_parameters(aws, pub):
    device = device_of()
    job = device.submit([pub], PRECISION, "tag")
    aws.answers["GetObject"] = OTHER_ORDER
    with pytest.raises(BackendError, match="A circuit was run at"):
        device.result(job, [pub])
    first, second = job.split(";")
    aws.answers.clear()
    with pytest.raises(BackendError, match="is part 1/2 of its job, not 0/2"):
        device.result(f"{second};{first}", [pub])
    assert_right(device.result(job, [pub])[0], pub)
