"""Calls to devices that fail for a while: which are repeated, when, and when a device is left alone."""

import logging

import pytest

from qiskit_qattn.backends.jobs import client
from qiskit_qattn.backends.jobs.client import Caller
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
    monkeypatch.setattr(client, "FAILURES", 4)
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
    monkeypatch.setattr(client, "FAILURES", 1)
    monkeypatch.setattr(client, "OPEN_SECONDS", 0.0)
    caller = Caller(name, 0, sleep=waits.append)
    with pytest.raises(TransientBackendError):
        caller(Flaky(busy()))
    assert caller(Flaky(), 1) == (1,)


def test_an_answer_of_any_kind_ends_the_row_of_failures(name, waits, monkeypatch):
    monkeypatch.setattr(client, "FAILURES", 2)
    caller = Caller(name, 0, sleep=waits.append)
    for _ in range(3):
        with pytest.raises(TransientBackendError):
            caller(Flaky(busy()))
        with pytest.raises(JobError):
            caller(Flaky(JobError("no")))
