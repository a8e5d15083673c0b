"""The boundary to AWS's clients: whatever they raise, and other answers, as errors of ours; lists that end."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from qiskit_qattn.errors import BackendError, QattnError, TransientBackendError
from qiskit_qattn.untrusted import one_line

CREDENTIALS = (
    "Amazon Braket needs AWS credentials from AWS's own chain: run `aws configure`, or set AWS_PROFILE, or set "
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
)
REGION = "Give a region: region=us-east-1 in the backend string, or set AWS_REGION."
_BUSY = {"ThrottlingException", "TooManyRequestsException", "InternalServiceException", "ServiceQuotaExceededException"}
_BUSY_S3 = {"SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout"}
# Their messages may quote what was signed.
_IDENTITY = {
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationTokenException",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
_MOST_PAGES = 1000  # of a list: 100,000 tasks, where AWS keeps them for 90 days
_LENGTH = 300  # of a text of AWS's within a message
_SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_SIGNED = re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}|(?<=Credential=)[^\s,/]+|(?<=Signature=)\w+|(?<=Token=)[^\s&]+")


@contextmanager
def aws_errors(doing: str) -> Iterator[None]:
    """Turn whatever AWS's clients raise into errors of ours, which pass unchanged.

    Args:
        doing: What was tried, such as ``sending a task to SV1``.

    Raises:
        TransientBackendError: For throttling, a full queue, an error of the service, a connection that failed, and an
            answer that is not what the service gives: an error without its code, no JSON, another shape or word.
        BackendError: For missing or refused credentials, missing permissions, and requests that are not valid: those
            that the service refused by a code of its own, or that were not sent.
    """
    from botocore import exceptions

    # Transient errors of a connection; their texts contain no secret.
    connection = (
        exceptions.ConnectionError,
        exceptions.HTTPClientError,
        exceptions.ResponseStreamingError,
        exceptions.IncompleteReadError,
    )
    try:
        yield
    except QattnError:
        raise
    except exceptions.ClientError as error:
        raise _of_service(doing, error.response) from error
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
        raise BackendError(f"No usable AWS credentials while {doing}. {CREDENTIALS}") from error
    except exceptions.NoRegionError as error:
        raise BackendError(f"AWS has no region while {doing}. {REGION}") from error
    except connection as error:
        raise TransientBackendError(f"The connection to AWS failed while {doing} ({type(error).__name__}).") from error
    except exceptions.BotoCoreError as error:  # a profile that is not there, an expired login, a bad address
        raise BackendError(f"AWS's SDK failed while {doing}: {_scrubbed(error)}. {CREDENTIALS}") from error
    except Exception as error:  # of the SDK's parsers, of pydantic and json, or of ours at an answer of another shape
        raise TransientBackendError(
            f"AWS's answer could not be used while {doing} ({type(error).__name__}: {_scrubbed(error)})."
        ) from error


def _of_service(doing: str, response: dict[str, Any]) -> BackendError:
    """Return our error for an answer that says that the service failed or refused."""
    detail, metadata = response.get("Error") or {}, response.get("ResponseMetadata") or {}
    code, status = str(detail.get("Code") or "unknown"), metadata.get("HTTPStatusCode") or 0
    wait = seconds((metadata.get("HTTPHeaders") or {}).get("retry-after"))
    if code.isdecimal() or code == "unknown":  # the status: what answered is perhaps not the service
        return TransientBackendError(f"AWS gave no answer of its own while {doing}: HTTP {status or code}", wait)
    message = f"AWS refused while {doing}: {one_line(code)[:_LENGTH]}"
    if code in _IDENTITY:
        return BackendError(f"{message}. {CREDENTIALS}")
    message += f": {_scrubbed(detail['Message'])}" if detail.get("Message") else ""
    if code in _BUSY | _BUSY_S3 or status in (408, 425, 429) or not 400 <= status < 500:
        return TransientBackendError(message, wait, unsent=400 <= status < 500 and status != 408)
    if code in ("AccessDeniedException", "AccessDenied"):
        return BackendError(
            f"{message}. The account needs the policy AmazonBraketFullAccess, or its actions on tasks, tags and the "
            f"S3 location of results. If only some regions are allowed, name one with region=…."
        )
    if code in ("NoSuchBucket", "NoSuchKey"):
        kind = TransientBackendError if code == "NoSuchKey" else BackendError  # it may not be written yet
        return kind(f"{message}. Results are read from the S3 location they were written to; was it removed?")
    return BackendError(message)


def _scrubbed(text: Any) -> str:
    """Return a text of AWS's as one short line without credentials."""
    found = str(text)
    for secret in filter(None, map(os.environ.get, _SECRETS)):
        found = found.replace(secret, "***")
    found = one_line(_SIGNED.sub("***", found)).rstrip(".")
    return found if len(found) <= _LENGTH else f"{found[:_LENGTH]}…"


def seconds(text: Any) -> float | None:
    """Return the seconds of a Retry-After header, or None for one that is no finite number of at least 0."""
    try:
        found = float(text)
    except (TypeError, ValueError):  # none, or a date
        return None
    return found if 0 <= found < math.inf else None


def pages(call: Callable[..., dict[str, Any]], key: str, **parameters: Any) -> Iterator[Any]:
    """Yield the items of all pages of a list.

    Args:
        call: Returns a page; it takes ``nextToken``.
        key: The key of a page's items.
        parameters: The parameters of every call.

    Raises:
        TransientBackendError: For a list that does not end: a page that is given again, or too many.
        KeyError: For a page without items.
    """
    seen = set()
    for _ in range(_MOST_PAGES):
        page = call(**parameters)
        yield from page[key]
        token = page.get("nextToken")
        if not token:
            return
        if token in seen:
            break
        seen.add(token)
        parameters["nextToken"] = token
    raise TransientBackendError(f"AWS's list of {key} does not end: after {len(seen):,} pages it goes on.")
