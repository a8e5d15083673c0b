"""Calls to a device that fails for a while: which are repeated, when, and when the device is left alone."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pybreaker
import tenacity

from qiskit_qattn.errors import BackendError, TransientBackendError
from qiskit_qattn.forks import ForkLock, in_forked_process

T = TypeVar("T")
BACKOFF = 1.0  # seconds: the first wait is at most this, each later one at most twice the one before
LONGEST_BACKOFF = 60.0  # also where the service asks for more
FAILURES = 10  # consecutive ones, after which the circuit breaker opens
OPEN_SECONDS = 60.0  # how long it stays open

_LOG = logging.getLogger("qiskit_qattn.backends")
_BREAKERS: dict[str, tuple[pybreaker.CircuitBreaker, pybreaker.CircuitMemoryStorage]] = {}
_BREAKERS_LOCK = ForkLock()
in_forked_process(_BREAKERS.clear)  # they have locks


class OutOfTime(BackendError):
    """A wait that would have passed the deadline of a run."""


class Caller:
    r"""Calls functions of one device, and repeats calls that raise :class:`TransientBackendError`.

    The wait before attempt n is uniform between 0 and :math:`\min(2^{n-1}, 60)` seconds, or, where the service
    asked for a delay, that delay, at most 60 seconds, and up to a second more. After ten consecutive failures, of all
    callers in this process together, calls to the device fail at once for a minute; then one is tried.

    Args:
        device: Name of the device.
        retries: How often a call is repeated.
        sleep: Waits a number of seconds.
        limit: Seconds after the first failure that no wait passes, or None.
        deadline: In place of that, a time on the monotonic clock.
    """

    def __init__(
        self,
        device: str,
        retries: int,
        sleep: Callable[[float], None] = time.sleep,
        limit: float | None = None,
        deadline: float | None = None,
    ) -> None:
        self.device, self.retries, self._sleep = device, retries, sleep
        self._limit, self._deadline = limit, deadline
        self._retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(retries + 1),
            wait=_wait,
            retry=tenacity.retry_if_exception_type(TransientBackendError),
            before_sleep=self._before_sleep,
            sleep=sleep,
            reraise=True,
        )

    def __call__(self, function: Callable[..., T], *args: Any) -> T:
        """Return what ``function(*args)`` returns.

        Raises:
            TransientBackendError: Of the last attempt.
            OutOfTime: If the next attempt would come after the deadline.
            BackendError: The first that is not transient, or if the circuit breaker is open.
        """
        return self._retrying(self._once, function, *args)

    def here(self, function: Callable[..., T], *args: Any) -> T:
        """Return what ``function(*args)`` returns, where it need not ask the device for anything.

        So a failure counts against the device, and success does not count for it.

        Raises:
            BackendError: As a call does.
        """
        return self._retrying(self._here, function, *args)

    def pause(self, seconds: float, why: object = "") -> None:
        """Wait, or raise :class:`OutOfTime` if that would pass the deadline."""
        self._check(seconds, why)
        if seconds > 0:
            self._sleep(seconds)

    def _check(self, seconds: float, why: object) -> None:
        now = time.monotonic()
        if self._deadline is None and self._limit is not None:
            self._deadline = now + self._limit
        if self._deadline is not None and now + seconds > self._deadline:
            raise OutOfTime(f"There was no time for another call after {seconds:.1f} s. {why}".rstrip())

    def _once(self, function: Callable[..., T], *args: Any) -> T:
        breaker, memory = _breaker(self.device)
        try:
            return breaker.call(function, *args)
        except pybreaker.CircuitBreakerError as error:
            until = (memory.opened_at or datetime.now(UTC)) + timedelta(seconds=breaker.reset_timeout)
            raise BackendError(
                f"{self.device} failed {breaker.fail_max} times in a row and is left alone until "
                f"{until.astimezone():%H:%M:%S}. Try again then."
            ) from error

    def _here(self, function: Callable[..., T], *args: Any) -> T:
        if breaker_state(self.device) == pybreaker.STATE_OPEN:
            return self._once(function, *args)  # which is not called
        try:
            return function(*args)
        except TransientBackendError as error:
            failure = error
        return self._once(_raise, failure)

    def _before_sleep(self, state: tenacity.RetryCallState) -> None:
        wait = state.next_action.sleep if state.next_action else 0.0
        self._check(wait, _error(state))
        _LOG.warning("%s: %s Trying again in %.1f s.", self.device, _error(state), wait)


def breaker_state(device: str) -> str:
    """Return ``closed``, or ``open`` while a device is left alone, or ``half-open`` when it is tried again."""
    breaker, memory = _breaker(device)
    over = memory.opened_at is None or memory.opened_at + timedelta(seconds=breaker.reset_timeout) <= datetime.now(UTC)
    if memory.state == pybreaker.STATE_OPEN and over:
        return str(pybreaker.STATE_HALF_OPEN)  # which it says itself only when it is called
    return str(memory.state)


def _breaker(device: str) -> tuple[pybreaker.CircuitBreaker, pybreaker.CircuitMemoryStorage]:
    """Return the circuit breaker of a device, one per process, and the storage with the time at which it opened."""
    with _BREAKERS_LOCK:
        if device not in _BREAKERS:
            memory = pybreaker.CircuitMemoryStorage(pybreaker.STATE_CLOSED)
            breaker = pybreaker.CircuitBreaker(
                fail_max=FAILURES,
                reset_timeout=OPEN_SECONDS,
                exclude=[lambda error: not isinstance(error, TransientBackendError)],
                state_storage=memory,
                throw_new_error_on_trip=False,
            )
            _BREAKERS[device] = breaker, memory
        return _BREAKERS[device]


def _raise(error: BackendError) -> Any:
    raise error


def _wait(state: tenacity.RetryCallState) -> float:
    error = _error(state)
    if isinstance(error, TransientBackendError) and error.retry_after is not None:
        return min(error.retry_after, LONGEST_BACKOFF) + random.uniform(0, BACKOFF)
    return random.uniform(0, min(BACKOFF * 2 ** (state.attempt_number - 1), LONGEST_BACKOFF))


def _error(state: tenacity.RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None
