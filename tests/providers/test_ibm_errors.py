"""The boundary to IBM's client: whatever is raised in a call becomes a BackendError, without a credential in it."""

from __future__ import annotations

import json
import math
import time
from email.utils import formatdate
from typing import Any

import pytest
import requests
from ibm_cloud_sdk_core import ApiException
from pydantic import BaseModel, ValidationError
from qiskit.exceptions import QiskitError
from qiskit_ibm_runtime.exceptions import IBMRuntimeError, RuntimeJobFailureError, RuntimeJobNotFound

from qiskit_qattn.backends.ibm.answers import Unexpected
from qiskit_qattn.backends.ibm.errors import TRAFFIC, Guard
from qiskit_qattn.errors import BackendError, CircuitError, JobError, TransientBackendError

SECRET = "sesame-17"


class _Model(BaseModel):
    number: int


def invalid() -> ValidationError:
    try:
        _Model.model_validate({"number": SECRET})
    except ValidationError as error:
        return error
    raise AssertionError


def answered(status: int | None, **headers: str) -> Any:
    """Return the error of a request that was answered with a status, or not at all."""
    response = None
    if status is not None:
        response = requests.Response()
        response.status_code = status
        response.headers.update(headers)
    return requests.HTTPError(f"{status} Bearer {SECRET}", response=response)


def failing(error: BaseException, *posts: int | None, read: bool = True) -> None:
    """Raise as after an answer of the service, with these answers to posted jobs."""
    traffic = TRAFFIC.get()
    assert traffic is not None
    traffic.requests += read
    traffic.jobs += posts
    raise error


def caught(error: BaseException, *posts: int | None, read: bool = True) -> BackendError:
    with pytest.raises(BackendError) as found:
        Guard(SECRET)("testing", failing, error, *posts, read=read)
    assert SECRET not in str(found.value) and "testing" in str(found.value)
    assert found.value.__cause__ is found.value.__context__ is None
    return found.value


ODD = [
    KeyError("state"),
    TypeError(f"string indices must be integers, not {SECRET}"),
    AttributeError("'list' object has no attribute 'get'"),
    ValueError(SECRET),
    IndexError("0"),
    RuntimeError("Could not resolve box hash collision"),
    RecursionError(),
    ZeroDivisionError("x"),
    json.JSONDecodeError("Expecting value", "<html>", 0),
    invalid(),
    StopIteration(),
    UserWarning(f"token {SECRET}"),
]


@pytest.mark.parametrize("error", ODD, ids=lambda error: type(error).__name__)
def test_what_an_odd_answer_makes_the_client_raise_may_pass(error: Exception) -> None:
    assert isinstance(caught(error), TransientBackendError)


@pytest.mark.parametrize("error", ODD, ids=lambda error: type(error).__name__)
def test_what_fails_without_an_answer_will_not_pass(error: Exception) -> None:
    found = caught(error, read=False)
    assert not isinstance(found, TransientBackendError) and "failed in its client" in str(found)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), CircuitError("ours"), JobError("ours")])
def test_interrupts_and_our_own_errors_pass_as_they_are(error: BaseException) -> None:
    with pytest.raises(type(error)) as found:
        Guard()("testing", failing, error)
    assert found.value is error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (answered(500), TransientBackendError),
        (answered(408), TransientBackendError),
        (answered(429), TransientBackendError),
        (answered(None), TransientBackendError),
        (answered(404), BackendError),
        (answered(401), BackendError),
        (requests.exceptions.JSONDecodeError("no", "<html>", 0), TransientBackendError),
        (ApiException(400, message="bad key"), BackendError),
        (QiskitError("no"), BackendError),
        (IBMRuntimeError("no"), BackendError),
        (RuntimeJobNotFound("no"), TransientBackendError),
        (RuntimeJobFailureError("no"), JobError),
        (Unexpected("no"), TransientBackendError),
    ],
)
def test_kinds(error: Exception, kind: type[BackendError]) -> None:
    assert type(caught(error)) is kind


@pytest.mark.parametrize(
    ("posts", "unsent"),
    [
        ((), True),
        ((429,), True),
        ((400, 429), True),
        ((400, 503), False),
        ((503,), False),
        ((408,), False),
        ((None,), False),
        ((200,), False),
        ((302,), False),
    ],
)
def test_only_refusals_prove_that_nothing_was_sent(posts: tuple[int | None, ...], unsent: bool) -> None:
    error = caught(answered(503), *posts)
    assert isinstance(error, TransientBackendError) and error.unsent == unsent


@pytest.mark.parametrize("error", [QiskitError("no"), answered(404), RuntimeJobFailureError("no")])
def test_after_a_job_was_posted_every_error_may_pass(error: Exception) -> None:
    for status in (200, 503, None):
        found = caught(error, status)
        assert isinstance(found, TransientBackendError) and not found.unsent
    assert not isinstance(caught(error, 400), TransientBackendError)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7.0), ("0", 0.0), (" 3 ", 3.0)]
    + [(text, None) for text in ("-5", "nan", "inf", "-inf", "soon", "", "1e3", "9" * 5000)]
    + [(formatdate(0, usegmt=True), None), ("Mon, 01 Jan 99999999 00:00:00 GMT", None)],
)
def test_the_time_to_wait_is_a_number_or_a_date_to_come(text: str, seconds: float | None) -> None:
    error = caught(answered(503, **{"Retry-After": text}))
    assert isinstance(error, TransientBackendError)
    assert error.retry_after == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize("text", ["9" * 30, "9" * 400])
def test_no_time_to_wait_is_without_end(text: str) -> None:
    error = caught(answered(503, **{"Retry-After": text}))
    assert isinstance(error, TransientBackendError) and (error.retry_after or 0.0) < math.inf


def test_a_date_to_come_is_counted_from_now() -> None:
    error = caught(answered(429, **{"Retry-After": formatdate(time.time() + 500, usegmt=True)}))
    assert isinstance(error, TransientBackendError) and 400 < (error.retry_after or 0) <= 500


def test_control_characters_of_the_service_are_shown_escaped() -> None:
    assert r"\x1b[2J" in str(caught(QiskitError("\x1b[2J gone")))
