"""Errors of IBM's client, converted to ours without credentials in them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

from qiskit_qattn.backends.ibm.answers import Unexpected
from qiskit_qattn.errors import BackendError, JobError, QattnError, TransientBackendError
from qiskit_qattn.untrusted import printable

_T = TypeVar("_T")
_TIMEOUT = 408  # the one 4xx that proves nothing
_LENGTH = 500
_HIDDEN = "***"
_CREDENTIALS = re.compile(
    r"((?:apikey|bearer)[\"']?[\s:=]+[\"']?|(?:token|api[_-]?key|authorization)[\"']?\s*[:=]\s*[\"']?)[^\s\"',;&)]+",
    re.IGNORECASE,
)
_WEB_TOKEN = re.compile(r"eyJ[\w-]+\.[\w-]+(\.[\w-]*)?")
_NO_ACCOUNT = (
    "No IBM Quantum account was found. Save one once with qiskit_ibm_runtime.QiskitRuntimeService.save_account("
    "token=…, instance=…), or set the environment variables QISKIT_IBM_TOKEN and QISKIT_IBM_INSTANCE."
)
_REFUSED = (
    "Check the API key and the instance: save them again with qiskit_ibm_runtime.QiskitRuntimeService.save_account("
    "token=…, instance=…, overwrite=True), or set QISKIT_IBM_TOKEN and QISKIT_IBM_INSTANCE."
)
_OTHER_ACCOUNT = "If the account or instance has changed since it was sent, go back to that one."


@dataclass
class Traffic:
    """The HTTP requests of a call.

    Attributes:
        requests: How many there were.
        jobs: The HTTP status of the answer to each job that was posted, or None where no answer came.
    """

    requests: int = 0
    jobs: list[int | None] = field(default_factory=list)

    @property
    def unsent(self) -> bool:
        """Whether no job was taken: none was posted, or each was refused."""
        return all(status is not None and 400 <= status < 500 and status != _TIMEOUT for status in self.jobs)


TRAFFIC: ContextVar[Traffic | None] = ContextVar("traffic", default=None)


@contextmanager
def watched() -> Iterator[Traffic]:
    """Count the requests of a block, if the service's connections were set up by ``transport.set_up``."""
    traffic = Traffic()
    token = TRAFFIC.set(traffic)
    try:
        yield traffic
    finally:
        TRAFFIC.reset(token)


class Guard:
    """Calls the client, and raises our errors in place of whatever it raises.

    The client's error is not the ``__cause__`` of ours: its text, or that of its cause, may contain a credential.

    Args:
        secrets: Texts that no message may contain, besides ``$QISKIT_IBM_TOKEN`` and what looks like a credential.
    """

    def __init__(self, *secrets: str) -> None:
        self._secrets = tuple(filter(None, secrets))

    def __call__(self, what: str, call: Callable[..., _T], *args: Any, **options: Any) -> _T:
        """Return ``call(*args, **options)``.

        Args:
            what: What the call does, for the message, such as "sending a job".
            call: The client's function, or ours around it, which also reads the answer.
            args: Its arguments.
            options: Its keyword arguments.

        Raises:
            QattnError: As raised in the call.
            TransientBackendError: For what may pass: a dropped connection, a busy service, an answer that cannot be
                read; and for any error after a job was posted, unless the service refused it.
            JobError: For a job that failed or was cancelled.
            BackendError: For anything else that goes wrong in the client.
        """
        with watched() as traffic:
            try:
                return call(*args, **options)
            except QattnError:
                raise
            except Exception as error:  # of IBM's client, or of what it calls
                ours = self._translated(error, what, traffic)
        if isinstance(ours, TransientBackendError):
            ours.unsent = traffic.unsent
        elif not traffic.unsent:
            ours = TransientBackendError(str(ours))
        raise ours

    def scrubbed(self, text: str) -> str:
        """Return a text of the service as one line of bounded length, without credentials."""
        for secret in {*self._secrets, os.environ.get("QISKIT_IBM_TOKEN", "")} - {""}:
            text = text.replace(secret, _HIDDEN)
        text = _CREDENTIALS.sub(rf"\g<1>{_HIDDEN}", _WEB_TOKEN.sub(_HIDDEN, text))
        text = printable(" ".join(text.strip("'\"").split()))
        return text if len(text) <= _LENGTH else f"{text[:_LENGTH]}…"

    def _translated(self, error: Exception, what: str, traffic: Traffic) -> BackendError:
        from ibm_cloud_sdk_core import ApiException
        from qiskit.exceptions import QiskitError
        from qiskit_ibm_runtime import exceptions
        from qiskit_ibm_runtime.accounts.exceptions import AccountNotFoundError, AccountsError
        from requests import RequestException
        from requests.exceptions import InvalidJSONError

        text = self.scrubbed(str(error))
        message = f"IBM Quantum: {what} failed: {text}"
        if isinstance(error, Unexpected):
            return TransientBackendError(message)
        if isinstance(error, InvalidJSONError):
            return TransientBackendError(f"IBM Quantum: {what} failed: the answer is no JSON: {text}")
        if not isinstance(error, QiskitError | RequestException | ApiException):
            kind = type(error).__name__
            if traffic.requests:
                return TransientBackendError(
                    f"IBM Quantum: {what} failed: the answer has another form than expected ({kind}: {text})"
                )
            return BackendError(f"IBM Quantum: {what} failed in its client: {kind}: {text}")
        if isinstance(error, exceptions.RuntimeJobNotFound):
            return TransientBackendError(f"{message.rstrip('.')}. {_OTHER_ACCOUNT}")
        if isinstance(error, _job_errors()):
            return JobError(message)
        if isinstance(error, exceptions.RuntimeJobTimeoutError):
            return TransientBackendError(message)
        if isinstance(error, AccountNotFoundError):
            return BackendError(_NO_ACCOUNT)
        status = http_status(error)
        if status in (408, 429) or (status or 0) >= 500 or (status is None and _connection_failed(error)):
            return TransientBackendError(message, _retry_after(error))
        if status in (401, 403) or isinstance(error, exceptions.IBMNotAuthorizedError | AccountsError):
            return BackendError(f"{message} {_REFUSED}")
        return BackendError(message)


def _job_errors() -> tuple[type[Exception], ...]:
    """Return the client's errors for a job that has ended without a result, or cannot be cancelled any more."""
    from qiskit_ibm_runtime import exceptions

    return (
        exceptions.RuntimeJobFailureError,
        exceptions.RuntimeJobMaxTimeoutError,
        exceptions.RuntimeInvalidStateError,
    )


def service_code(error: BaseException) -> int | None:
    """Return the service's own code in an error's text, such as 1217, or None."""
    found = re.search(r'"code":\s*(\d+)', str(error))
    return int(found[1]) if found else None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes; the client hides them, but they have the HTTP status."""
    seen: list[BaseException] = []
    now: BaseException | None = error
    while now is not None and now not in seen:
        yield now
        seen.append(now)
        now = now.__cause__ or now.__context__


def _responses(error: BaseException) -> Iterator[Any]:
    """Yield the HTTP responses that caused an error."""
    from ibm_cloud_sdk_core import ApiException
    from requests import RequestException

    for link in _chain(error):
        if isinstance(link, RequestException) and link.response is not None:
            yield link.response
        elif isinstance(link, ApiException) and link.http_response is not None:
            yield link.http_response


def http_status(error: BaseException) -> int | None:
    """Return the HTTP status that an error came from, or None where there was none."""
    return next((response.status_code for response in _responses(error)), None)


def _connection_failed(error: BaseException) -> bool:
    """Tell whether no answer came."""
    from qiskit_ibm_runtime.api.exceptions import RequestsApiError
    from requests import RequestException

    return any(isinstance(link, RequestsApiError | RequestException) for link in _chain(error))


def _retry_after(error: BaseException) -> float | None:
    """Return the seconds that the service asked to wait, given as a number or as a date to come, or None."""
    from urllib3.exceptions import InvalidHeader
    from urllib3.util import Retry

    for response in _responses(error):
        if "Retry-After" in response.headers:
            text = response.headers["Retry-After"]
            try:
                seconds = float(Retry().parse_retry_after(text))
            except (InvalidHeader, ValueError, OverflowError):
                return None
            return seconds if seconds > 0 or text.strip().isdecimal() else None
    return None
