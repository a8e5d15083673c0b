"""Where jobs of IBM Quantum are sent: to the device itself, or to a session or a batch on it."""

from __future__ import annotations

import logging
import warnings
from threading import RLock
from typing import Any, Literal

from qiskit_qattn.backends.ibm.errors import service_code

Kind = Literal["batch", "job", "session"]
MODES: dict[Kind, str] = {
    "batch": "jobs are charged for their own time; every plan has it",
    "job": "each job waits in the queue for itself",
    "session": "the device is held between jobs, and charged while it is held, which a budget does not see; not on the "
    "open plan",
}
_NO_SESSIONS = 1352  # the service's code where the plan has none
_CLOSED = 1217
_log = logging.getLogger(__name__)


class Mode:
    """A session or a batch that is opened when the first job is sent, or neither.

    Args:
        kind: One of ``MODES``.
        max_time: Seconds after which the service closes it, or None for the service's own limit.
    """

    def __init__(self, kind: Kind, max_time: int | None = None) -> None:
        self.kind, self._max_time = kind, max_time
        self._opened: Any = None
        self._device: Any = None  # of what is open
        self._lock = RLock()

    def target(self, device: Any) -> Any:
        """Return what an estimator of Qiskit Runtime takes as its mode to send a job to a device.

        What is open on another device is closed.
        """
        if self.kind == "job":
            return device
        with self._lock:
            if self._device is not device:
                self.close()
            if self._opened is None:
                self._opened, self._device = self._open(device), device
            return self._opened

    def renew(self, closed: Any) -> None:
        """Open another session or batch the next time, in place of one that closed under us."""
        with self._lock:
            if self._opened is closed:
                self._opened = None

    def close(self) -> None:
        """Accept no more jobs in what is open; those that wait still run."""
        with self._lock:
            opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    def _open(self, device: Any) -> Any:
        from qiskit_ibm_runtime import Batch, Session
        from qiskit_ibm_runtime.api.exceptions import RequestsApiError

        if self.kind == "session":
            try:
                return Session(device, max_time=self._max_time)
            except RequestsApiError as error:
                if service_code(error) != _NO_SESSIONS:
                    raise
            notice = f"The open plan of IBM Quantum has no sessions; jobs for {device.name} run in a batch."
            _log.warning(notice)
            warnings.warn(notice, stacklevel=2)
            self.kind = "batch"
        return Batch(device, max_time=self._max_time)


def is_closed(error: BaseException) -> bool:
    """Tell whether a job was refused because its session or batch is closed."""
    return service_code(error) == _CLOSED or "The session is closed" in str(error)
