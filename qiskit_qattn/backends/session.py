"""One session over several models."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from qiskit_qattn.backends.registry import Backend, get_backend
from qiskit_qattn.errors import BackendError

_log = logging.getLogger(__name__)


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
    ended_well = False
    try:
        yield found
        ended_well = True
    finally:
        close = getattr(getattr(found.estimator, "device", None), "close", None)
        try:
            if close is not None:
                close()
        except BackendError as error:
            if ended_well:
                raise
            _log.warning("%s could not be closed: %s", found.name, error)
