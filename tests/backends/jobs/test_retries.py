"""Calls to devices that fail for a while: which are repeated, when, and when a device is left alone."""

import logging
import math
import time

import pytest

from qiskit_qattn.backends.jobs import retries
from qiskit_qattn.backends.jobs.retries import Caller, OutOfTime
from qiskit_qattn.errors import BackendError, JobError, TransientBackendError


class Flaky:
    """Raises each of some errors, then returns its arguments."""

    def __init__(self, *errors):
        self.errors, self.calls = list(errors), 0

    def __call__(self, *args):
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return args


def busy(retry_after=None):
    return TransientBackendError("The service is busy.", retry_after)


@pytest.fixture
def waits():
    return []


@pytest.fixture
def name(request):
    return f"disk:{request.node.name}"  # breakers are shared by all callers of a device


def test_what_may_pass_is_tried_again_with_growing_waits(name, waits, caplog):
    caplog.set_level(logging.WARNING, "qiskit_qattn.backends")
    function = Flaky(*[busy() for _ in range(4)])
    assert Caller(name, 4, sleep=waits.append)(function, 1, 2) == (1, 2)
    assert function.calls == 5
    assert all(0 <= wait <= 2**n for n, wait in enumerate(waits))
    assert len(set(waits)) == 4
    assert f"{name}: The service is busy. Trying again in" in caplog.text


def test_the_time_the_service_asks_for_is_waited(name, waits):
    Caller(name, 2, sleep=waits.append)(Flaky(busy(30.0), busy(0.0)))
    assert 30 <= waits[0] <= 31
    assert 0 <= waits[1] <= 1


@pytest.mark.parametrize("seconds", [61.0, 86400.0, 1e300])
def test_no_wait_is_longer_than_a_minute(name, waits, seconds):
    Caller(name, 1, waits.append)(Flaky(busy(seconds)))
    assert 60 <= waits[0] <= 61


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -math.inf, -1.0])
def test_a_time_to_wait_that_is_none_is_ignored(name, waits, seconds):
    assert busy(seconds).retry_after is None
    Caller(name, 1, waits.append)(Flaky(busy(seconds)))
    assert 0 <= waits[0] <= 1


def test_a_wait_never_passes_the_deadline(name, waits):
    function = Flaky(busy(30.0), busy())
    caller = Caller(name, 5, waits.append, deadline=time.monotonic() + 20)
    with pytest.raises(OutOfTime, match=r"no time for another call after 3[01]\.. s\. The service is busy"):
        caller(function)
    assert (function.calls, waits) == (1, [])
    assert caller(function) == ()  # a short wait fits
    with pytest.raises(OutOfTime):
        caller.pause(21)


def test_a_limit_starts_with_the_first_failure(name, waits):
    caller = Caller(name, 5, waits.append, limit=40)
    caller(Flaky(busy(30.0)))
    caller(Flaky(busy(35.0)))  # as no time has passed on the clock
    with pytest.raises(OutOfTime):
        caller(Flaky(busy(50.0)))
    assert len(waits) == 2


def test_tries_end(name, waits):
    function = Flaky(*[busy() for _ in range(9)])
    with pytest.raises(TransientBackendError, match="busy"):
        Caller(name, 2, sleep=waits.append)(function)
    assert (function.calls, len(waits)) == (3, 2)


@pytest.mark.parametrize("error", [BackendError("no"), JobError("no"), ValueError("no")])
def test_what_will_not_pass_is_tried_once(name, waits, error):
    function = Flaky(error)
    with pytest.raises(type(error), match="no"):
        Caller(name, 5, sleep=waits.append)(function)
    assert (function.calls, waits) == (1, [])


def test_after_failures_in_a_row_a_device_is_left_alone(name, waits, monkeypatch):
    monkeypatch.setattr(retries, "FAILURES", 4)
    failing = Flaky(*[busy() for _ in range(9)])
    with pytest.raises(TransientBackendError):
        Caller(name, 2, sleep=waits.append)(failing)
    with pytest.raises(BackendError, match=r"failed 4 times in a row and is left alone until \d\d:\d\d:\d\d\. Try"):
        Caller(name, 2, sleep=waits.append)(failing)
    assert failing.calls == 4
    untouched = Flaky()
    with pytest.raises(BackendError, match="left alone"):
        Caller(name, 2, sleep=waits.append)(untouched)
    assert untouched.calls == 0
    assert Caller(f"{name}, another", 0)(Flaky(), 7) == (7,)


def test_one_call_is_let_through_when_the_time_is_over(name, waits, monkeypatch):
    monkeypatch.setattr(retries, "FAILURES", 1)
    monkeypatch.setattr(retries, "OPEN_SECONDS", 0.0)
    caller = Caller(name, 0, sleep=waits.append)
    with pytest.raises(TransientBackendError):
        caller(Flaky(busy()))
    assert caller(Flaky(), 1) == (1,)


def test_an_answer_of_any_kind_ends_the_row_of_failures(name, waits, monkeypatch):
    monkeypatch.setattr(retries, "FAILURES", 2)
    caller = Caller(name, 0, sleep=waits.append)
    for _ in range(3):
        with pytest.raises(TransientBackendError):
            caller(Flaky(busy()))
        with pytest.raises(JobError):
            caller(Flaky(JobError("no")))
