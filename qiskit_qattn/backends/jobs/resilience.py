"""Calls to a device that may fail for a while: retries, and a circuit breaker a device."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pybreaker
import tenacity

from qiskit_qattn.errors import BackendError, TransientBackendError

T = TypeVar("T")
BACKOFF = 1.0  # seconds: the first wait is at most this, each later one at most twice the one before
LONGEST_BACKOFF = 60.0
FAILURES = 10  # in a row, after which a device is left alone
OPEN_SECONDS = 60.0  # for which it is left alone

_LOG = logging.getLogger("qiskit_qattn.backends")
_BREAKERS: dict[str, tuple[pybreaker.CircuitBreaker, pybreaker.CircuitMemoryStorage]] = {}
_BREAKERS_LOCK = threading.Lock()


class Caller:
    r"""Calls functions of one device, again while they raise :class:`TransientBackendError`.

    The wait before try n is uniform between 0 and :math:`\min(2^{n-1}, 60)` seconds, and where the service asked for a
    time, that time and up to a second more. After ten failures in a row, of all callers of this process together,
    calls to the device fail at once for a minute; then one is let through to see.

    Args:
        device: Name of the device.
        retries: How often a call is repeated.
        sleep: Waits a number of seconds.
    """

    def __init__(self, device: str, retries: int, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self.device = device
        self._retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(retries + 1),
            wait=_wait,
            retry=tenacity.retry_if_exception_type(TransientBackendError),
            before_sleep=self._log,
            sleep=sleep,
            reraise=True,
        )

    def __call__(self, function: Callable[..., T], *args: Any) -> T:
        """Return what ``function(*args)`` returns.

        Raises:
            TransientBackendError: Of the last try.
            BackendError: Of the first that is not transient, or if the device is left alone for now.
        """
        return self._retrying(self._once, function, *args)

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

    def _log(self, state: tenacity.RetryCallState) -> None:
        wait = state.next_action.sleep if state.next_action else 0.0
        _LOG.warning("%s: %s Trying again in %.1f s.", self.device, _error(state), wait)


def _breaker(device: str) -> tuple[pybreaker.CircuitBreaker, pybreaker.CircuitMemoryStorage]:
    """Return the breaker of a device, one in the process, and where it keeps the time at which it opened."""
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


def _wait(state: tenacity.RetryCallState) -> float:
    error = _error(state)
    if isinstance(error, TransientBackendError) and error.retry_after is not None:
        return error.retry_after + random.uniform(0, BACKOFF)
    return random.uniform(0, min(BACKOFF * 2 ** (state.attempt_number - 1), LONGEST_BACKOFF))


def _error(state: tenacity.RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None
