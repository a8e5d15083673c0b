"""Errors of AWS and of its SDK, told as ours. No credential is part of any message."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from qiskit_qattn.errors import BackendError, TransientBackendError

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


def one_attempt() -> Any:
    """Return the configuration of a client that leaves retries to its caller."""
    from botocore.config import Config

    return Config(retries={"total_max_attempts": 1}, connect_timeout=10, read_timeout=60)


@contextmanager
def aws_errors(doing: str) -> Iterator[None]:
    """Turn errors of AWS into ours.

    Args:
        doing: What was tried, such as ``sending a task to SV1``.

    Raises:
        TransientBackendError: For throttling, a full queue, an error of the service, or a connection that failed.
        BackendError: For missing or refused credentials, missing permissions, and requests that are not valid.
    """
    from botocore import exceptions
    from botocore.parsers import ResponseParserError

    # Errors of a connection that hold no secret and may pass.
    connection = (
        exceptions.ConnectionError,
        exceptions.HTTPClientError,
        exceptions.ResponseStreamingError,
        exceptions.IncompleteReadError,
    )
    try:
        yield
    except exceptions.ClientError as error:
        raise _of_service(doing, error.response) from error
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
        raise BackendError(f"No usable AWS credentials while {doing}. {CREDENTIALS}") from error
    except exceptions.NoRegionError as error:
        raise BackendError(f"AWS has no region while {doing}. {REGION}") from error
    except connection as error:
        raise TransientBackendError(f"The connection to AWS failed while {doing} ({type(error).__name__}).") from error
    except exceptions.BotoCoreError as error:  # a profile that is not there, an expired login, a bad address
        raise BackendError(f"AWS's SDK failed while {doing}: {error}. {CREDENTIALS}") from error
    except ResponseParserError as error:
        raise TransientBackendError(f"AWS's answer could not be read while {doing}.") from error


def _of_service(doing: str, response: dict[str, Any]) -> BackendError:
    """Return our error for an answer of a service."""
    detail, metadata = response.get("Error", {}), response.get("ResponseMetadata", {})
    code, status = detail.get("Code", "unknown"), metadata.get("HTTPStatusCode", 0)
    message = f"AWS refused while {doing}: {code}"
    if code in _IDENTITY:
        return BackendError(f"{message}. {CREDENTIALS}")
    message += f": {detail['Message']}" if detail.get("Message") else ""
    if code in _BUSY | _BUSY_S3 or status == 429 or status >= 500:
        return TransientBackendError(message, _seconds(metadata.get("HTTPHeaders", {}).get("retry-after")))
    if code in ("AccessDeniedException", "AccessDenied"):
        return BackendError(
            f"{message}. The account needs the policy AmazonBraketFullAccess, or its actions on tasks, tags and the "
            f"S3 location of results. If only some regions are allowed, name one with region=…."
        )
    if code in ("NoSuchBucket", "NoSuchKey"):
        return BackendError(f"{message}. Results are read from the S3 location they were written to; was it removed?")
    return BackendError(message)


def _seconds(text: str | None) -> float | None:
    """Return the seconds of a Retry-After header that holds a number."""
    try:
        return float(text) if text else None
    except ValueError:
        return None
