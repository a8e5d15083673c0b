"""Sessions on devices: who holds them open, and that they are closed when nobody does, or the program ends."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

from qiskit_qattn.backends.registry import Backend, get_backend
from qiskit_qattn.errors import BackendError

_log = logging.getLogger(__name__)
_Close = tuple[str, Callable[[], None]]


class Opened:
    """Backends that somebody opened and has to close.

    Whoever runs on them keeps this object. When the last of them lets go of it, and when the program ends, what the
    backends hold open on their devices, such as sessions, is closed; jobs that wait then still run. Ctrl-C ends a
    program so; SIGTERM does too once a backend was opened, unless the program has a handler of its own. In a ``with``
    statement they are closed at the end of the block.

    Copies of what runs on them share it. A process that was forked closes nothing of its parent's.

    Args:
        backends: The backends; those with nothing to close are fine.

    Attributes:
        backends: As given.
    """

    def __init__(self, backends: Iterable[Backend]) -> None:
        self.backends = tuple(backends)
        self._closes = [(each.name, close) for each in self.backends if (close := _close_of(each)) is not None]
        if self._closes:
            _exit_on_sigterm()
            weakref.finalize(self, _close_quietly, self._closes, os.getpid())

    def close(self) -> None:
        """Close what the backends hold open; their next job opens it again.

        Raises:
            BackendError: If that fails; the others were closed all the same.
        """
        failed = _close(self._closes)
        if failed:
            raise failed[0][1]

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> Any:
        return type(self), (self.backends,)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close; an error of the block is the one raised, whatever becomes of closing."""
        if error is None:
            self.close()
        else:
            _close_quietly(self._closes, os.getpid())


@contextmanager
def session(backend: Backend | str) -> Iterator[Backend]:
    """Yield a backend, and close what it holds open on its device, such as a session, when the block ends.

    Jobs that wait then still run. A backend with nothing to close is yielded all the same. If the block fails, its
    error is the one raised, whatever becomes of closing.

    Args:
        backend: A backend string, such as ``ibm:least_busy?mode=session``, or a backend.

    Raises:
        UnknownNameError, ConfigError: For a string that names no backend.
        BackendError: If the block ends well and closing fails.
    """
    found = get_backend(backend) if isinstance(backend, str) else backend
    with Opened([found]):
        yield found


def _close_of(backend: Backend) -> Callable[[], None] | None:
    return getattr(getattr(backend.estimator, "device", None), "close", None)


def _close(closes: Iterable[_Close]) -> list[tuple[str, BackendError]]:
    """Close each, and return those that failed."""
    failed = []
    for name, close in closes:
        try:
            close()
        except BackendError as error:
            failed.append((name, error))
    return failed


def _close_quietly(closes: Iterable[_Close], process: int) -> None:
    if os.getpid() == process:
        for name, error in _close(closes):
            _log.warning("%s could not be closed: %s", name, error)


def _exit_on_sigterm() -> None:
    """Let SIGTERM end the program as ``sys.exit`` does, if it would end it without a word now."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        return
    process = os.getpid()

    def leave(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:  # a child has nothing to close
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, leave)
