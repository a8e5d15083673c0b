"""What goes wrong at AWS, told as ours: faults of the service, limits, names, credentials."""

from __future__ import annotations

import itertools
import json

import pytest
from qiskit import QuantumCircuit
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.quantum_info import SparsePauliOp

from qiskit_qattn.backends.braket.provider import aws_device
from qiskit_qattn.backends.registry import precision_of
from qiskit_qattn.errors import (
    BackendError,
    ConfigError,
    TransientBackendError,
    UnknownNameError,
)

from .aws_devices import PLAIN, QPU, SV1
from .aws_faults import FAULTS as FAULTS_OF_ANSWERS
from .aws_faults import AnswerFault
from .braket_adapter import PRECISION, backend_of, device_of, eight_circuits


@pytest.fixture
def pub(rng):
    return eight_circuits(rng)


FAULTS = [
    ("throttle", True, "ThrottlingException"),
    ("broken", True, "InternalServiceException"),
    ("quota", True, "ServiceQuotaExceededException"),
    ("drop", True, "connection to AWS failed"),
    ("drop_answer", True, "connection to AWS failed"),
    ("denied", False, "AmazonBraketFullAccess"),
    ("identity", False, "InvalidSignatureException. Amazon Braket needs AWS credentials"),
    ("invalid", False, "ValidationException: as told"),
]


FAULTS_OF_S3 = [
    ("slow", True, "SlowDown"),
    ("broken", True, "InternalServiceException"),
    ("drop", True, "connection to AWS failed"),
    ("forbidden", False, "AmazonBraketFullAccess"),
]


@pytest.mark.parametrize(
    ("operation", "faults"),
    [
        ("GetDevice", FAULTS[::3]),
        ("SearchQuantumTasks", FAULTS),
        ("GetQuantumTask", FAULTS),
        ("CancelQuantumTask", [fault for fault in FAULTS if fault[0] != "drop_answer"]),  # which cancels
        ("GetObject", FAULTS_OF_S3),
    ],
)
def test_errors_of_aws_are_told_as_ours(aws, pub, operation, faults):
    aws.held = operation != "GetObject"
    device = device_of()
    job = device.submit([pub], PRECISION, "tag")
    calls = {
        "GetDevice": lambda: aws_device(QPU),
        "SearchQuantumTasks": lambda: device.find("tag"),
        "GetQuantumTask": lambda: device.status(job),
        "CancelQuantumTask": lambda: device.cancel(job),
        "GetObject": lambda: device.result(job, [pub]),
    }
    for fault, transient, message in faults:
        aws.faults.append((operation, fault))
        with pytest.raises(BackendError, match=message) as caught:
            calls[operation]()
        assert isinstance(caught.value, TransientBackendError) == transient
        assert not aws.faults
        assert "very-secret" not in str(caught.value) and "AKID" not in str(caught.value)
    calls[operation]()  # it has passed


def test_results_that_were_removed(aws, pub):
    device = device_of()
    job = device.submit([pub], PRECISION, "tag")
    aws.objects.clear()
    with pytest.raises(BackendError, match="was it removed"):
        device.result(job, [pub])


def test_a_device_that_is_offline_says_when_it_is_not(aws, pub):
    device = device_of()
    aws.devices[QPU]["deviceStatus"] = "OFFLINE"
    with pytest.raises(BackendError, match="DeviceOfflineException"):
        device.submit([pub], PRECISION, "tag")
    with pytest.raises(BackendError, match=r"Test Garnet is OFFLINE; .* Weekdays 09:00 to 17:30 UTC"):
        device_of().submit([pub], PRECISION, "tag")
    aws.devices[QPU]["deviceStatus"] = "ONLINE"
    assert device.submit([pub], PRECISION, "tag")


def test_devices_by_name_and_region(aws):
    assert aws_device("TEST-garnet").arn == aws_device(QPU).arn == QPU
    assert aws_device("test-plain", "us-east-1").arn == PLAIN
    assert aws_device("SV1", "us-west-2").aws_session.region == "us-west-2"
    with pytest.raises(UnknownNameError, match=r"'garnit'.*Known: .*Test Garnet, Test-Forte, Test-Plain.*sv1"):
        aws_device("garnit")
    with pytest.raises(ConfigError, match="Test-Garnet is in region eu-north-1, not in us-east-1"):
        aws_device("Test-Garnet", "us-east-1")
    with pytest.raises(ConfigError, match="is in region eu-north-1, not in us-east-1"):
        aws_device(QPU, "us-east-1")
    with pytest.raises(BackendError, match=r"no device .*/nope in us-east-1"):
        aws_device("arn:aws:braket:us-east-1::device/qpu/maker/nope")
    aws.devices.pop(SV1)
    with pytest.raises(BackendError, match="Not all regions have AWS's simulators"):
        aws_device("sv1")


def test_limits_of_a_device(aws, pub):
    device = device_of()
    with pytest.raises(ConfigError, match="takes 1 to 20000 shots per circuit, got 40000"):
        device.submit([pub], precision_of(40000), "tag")
    with pytest.raises(BackendError, match="Set shots"):
        device.estimate([pub], 0.0)
    large = EstimatorPub.coerce((QuantumCircuit(5), SparsePauliOp("ZZZZZ")), PRECISION)
    with pytest.raises(BackendError, match="5 qubits, but Test Garnet has 4"):
        device.submit([large], PRECISION, "tag")
    identity = EstimatorPub.coerce((QuantumCircuit(1), SparsePauliOp("I")), PRECISION)
    with pytest.raises(BackendError, match="no Pauli string"):
        device.submit([identity], PRECISION, "tag")
    aws.devices[PLAIN]["deviceCapabilities"]["action"] = {}
    with pytest.raises(BackendError, match="runs no circuits of gates"):
        device_of("test-plain")
    assert not aws.tasks


@pytest.mark.parametrize("names", [("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), ("AWS_SECRET_ACCESS_KEY",)])
def test_without_credentials(aws, monkeypatch, names):
    for name in names:
        monkeypatch.delenv(name)
    with pytest.raises(BackendError, match="aws configure") as caught:
        backend_of("braket:sv1?budget=unlimited")
    assert "AKID" not in str(caught.value)
    assert not aws.calls


def test_without_a_region(aws, monkeypatch):
    monkeypatch.delenv("AWS_REGION")
    with pytest.raises(BackendError, match="region=us-east-1 in the backend string, or set AWS_REGION"):
        backend_of("braket:sv1?budget=unlimited")
    assert aws_device("sv1", "us-west-1").arn == SV1


@pytest.mark.parametrize("target", ["sv1", "test-garnet"])
def test_a_profile_that_is_not_there(aws, monkeypatch, target):
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(BackendError, match="nobody"):
        backend_of(f"braket:{target}?budget=unlimited")


@pytest.mark.parametrize("fault", ["500", "403", "html", "no_keys", "lost"])
def test_an_outage_is_not_an_unknown_device(aws, fault):
    """A chain goes on after a BackendError, and not after an UnknownNameError."""
    aws.answers["SearchDevices"] = FAULTS_OF_ANSWERS[fault]
    with pytest.raises(BackendError, match="looking for device 'test-garnet' in") as caught:
        aws_device("test-garnet")
    assert isinstance(caught.value, TransientBackendError) == (fault != "403")


def test_a_region_that_is_out_of_order_hides_no_device_of_another(aws):
    aws.faults.append(("SearchDevices", "broken"))  # the first region
    assert aws_device("test-garnet").arn == QPU
    aws.faults.append(("SearchDevices", "denied"))
    with pytest.raises(BackendError, match="AccessDeniedException"):  # the device may be there
        aws_device("garnit")


@pytest.mark.parametrize("kind", ["ValidationException", "AccessDeniedException", "ThrottlingException", 17, ""])
def test_answers_that_quote_what_was_signed_are_not_quoted(aws, kind):
    quoted = "Credential=AKIDTESTKEY/20260101/us-east-1, Signature=0123abcdef; a-very-secret-key\x1b[31m" + 900 * "!"
    body = json.dumps({"__type": kind, "message": quoted} if kind else {"message": quoted}).encode()
    aws.answers["GetDevice"] = AnswerFault(400, body=lambda _: body)
    with pytest.raises(BackendError) as caught:
        aws_device(QPU)
    text = str(caught.value)
    assert not any(secret in text for secret in ("AKID", "0123abcdef", "very-secret", "\x1b")) and len(text) < 900


@pytest.mark.parametrize("tokens", [["1"], ["1", "2"]])
@pytest.mark.parametrize("operation", ["SearchDevices", "SearchQuantumTasks"])
def test_a_list_that_does_not_end_is_an_error(aws, operation, tokens):
    """Whether it gives one page over and over, or two in turn."""
    device, following = device_of(), itertools.cycle(tokens)
    key = {"SearchDevices": "devices", "SearchQuantumTasks": "quantumTasks"}[operation]
    aws.answers[operation] = AnswerFault(body=lambda _: json.dumps({key: [], "nextToken": next(following)}).encode())
    with pytest.raises(TransientBackendError, match=f"list of {key} does not end"):
        device.find("tag") if operation == "SearchQuantumTasks" else aws_device("test-garnet")


@pytest.mark.parametrize("wait", ["nan", "inf", "-3", "1e400", "soon", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_a_wait_that_is_no_number_of_seconds_is_none(aws, wait):
    aws.answers["GetDevice"] = AnswerFault(429, "ThrottlingException", headers=(("Retry-After", wait),))
    with pytest.raises(TransientBackendError) as caught:
        aws_device(QPU)
    assert caught.value.retry_after is None
