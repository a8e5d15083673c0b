"""Quantum tasks on AWS: created once each, found by tag, read from S3; and AWS's errors as ours."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from qiskit_qattn.errors import BackendError, JobError, TransientBackendError

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
TAG, PART = "qiskit-qattn", "qiskit-qattn-part"


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

    # Transient errors of a connection; their texts contain no secret.
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
    """Return the seconds of a numeric Retry-After header."""
    try:
        return float(text) if text else None
    except ValueError:
        return None


class Tasks:
    """A client of AWS for the tasks of one device.

    Args:
        session: Braket's ``AwsSession`` in the device's region.
        device_arn: The device.
        s3: Bucket and prefix for results, or None for Braket's default bucket.
    """

    def __init__(self, session: Any, device_arn: str, s3: tuple[str, str] | None) -> None:
        self._session, self._client, self._arn, self._s3 = session, session.braket_client, device_arn, s3
        self._store: Any = None  # a client of S3, made when it is first needed
        self._incomplete: dict[tuple[str, int], str] = {}  # tasks of incomplete jobs, by tag and part
        self._failures: dict[tuple[str, int], int] = {}  # how often they failed
        self._client.meta.events.register("provide-client-params.braket.CreateQuantumTask", self._add_token)
        self._token = ""

    def create(
        self, specification: Any, *, tag: str, part: tuple[int, int], shots: int, reservation: str | None
    ) -> str:
        """Create a task, unless it was created or found before, and return its ARN.

        Args:
            specification: A Braket circuit or program set.
            tag: Tag of the job.
            part: Which of how many tasks of the job it is.
            shots: Samples of the task, over all circuits.
            reservation: ARN of a reservation.
        """
        from braket.aws import AwsQuantumTask

        key = (tag, part[0])
        if key in self._incomplete:
            return self._incomplete[key]
        self._token = hashlib.sha256(f"{tag}/{part[0]}/{self._failures.get(key, 0)}".encode()).hexdigest()
        task = AwsQuantumTask.create(
            self._session,
            self._arn,
            specification,
            self._s3 or (self._session.default_bucket(), "tasks"),
            shots,
            tags={TAG: tag, PART: f"{part[0]}/{part[1]}"},
            reservation_arn=reservation,
        )
        self._incomplete[key] = task.id
        return task.id

    def parts(self, tag: str) -> list[str]:
        """Return the ARNs of the known tasks with a tag that belong to no complete job."""
        return [arn for key, arn in self._incomplete.items() if key[0] == tag]

    def forget(self, tag: str) -> None:
        """Forget the tasks of a tag, so that they can be created again."""
        self._incomplete = {key: arn for key, arn in self._incomplete.items() if key[0] != tag}

    def find(self, tag: str, dead: Collection[str]) -> list[list[str]]:
        """Return the ARNs of each complete job with a tag, oldest first; remember tasks that belong to none.

        Args:
            tag: Tag of the job.
            dead: States of tasks that will have no result.
        """
        filters = [{"name": "deviceArn", "operator": "EQUAL", "values": [self._arn]}]
        pages = self._client.get_paginator("search_quantum_tasks").paginate(
            filters=filters, PaginationConfig={"PageSize": 100}
        )
        found = [task for page in pages for task in page["quantumTasks"] if task.get("tags", {}).get(TAG) == tag]
        found.sort(key=lambda task: task["createdAt"])
        parts: dict[int, list[str]] = {}
        failed: dict[int, list[str]] = {}
        size = 0
        for task in found:
            part, size = (int(number) for number in task["tags"][PART].split("/"))
            if task["status"] in dead:
                failed.setdefault(part, []).append(task["quantumTaskArn"])
            else:
                parts.setdefault(part, []).append(task["quantumTaskArn"])
        complete = min((len(parts.get(part, [])) for part in range(size)), default=0)
        gone = {arn for arns in failed.values() for arn in arns}
        # The search may be behind: what this process sent stays known.
        self._incomplete = {key: arn for key, arn in self._incomplete.items() if arn not in gone}
        self._incomplete |= {(tag, part): arns[complete] for part, arns in parts.items() if len(arns) > complete}
        self._failures |= {(tag, part): len(arns) for part, arns in failed.items()}
        return [[parts[part][index] for part in range(size)] for index in range(complete)]

    def metadata(self, arn: str) -> dict[str, Any]:
        """Return AWS's metadata of a task."""
        return self._client.get_quantum_task(quantumTaskArn=arn, additionalAttributeNames=["QueueInfo"])

    def cancel(self, arn: str) -> None:
        """Cancel a task, unless it has just ended."""
        try:
            self._client.cancel_quantum_task(quantumTaskArn=arn)
        except self._client.exceptions.ConflictException:
            return

    def result(self, metadata: dict[str, Any]) -> list[Any]:
        """Return what each circuit of a finished task measured.

        Raises:
            JobError: If the task, or one of its circuits, has failed.
        """
        from braket.task_result import ProgramSetTaskResult
        from braket.tasks import GateModelQuantumTaskResult, ProgramSetQuantumTaskResult

        if metadata["status"] != "COMPLETED":
            raise JobError(f"Task {metadata['quantumTaskArn']} is {metadata['status']} and has no result.")
        schema = self._schema(metadata)
        if not isinstance(schema, ProgramSetTaskResult):
            return [GateModelQuantumTaskResult.from_object(schema)]
        entries = [entry for program in ProgramSetQuantumTaskResult.from_object(schema) for entry in program]
        for entry in entries:
            if not hasattr(entry, "measurements"):
                reason = getattr(entry, "failureMetadata", None)
                raise JobError(f"A circuit of task {metadata['quantumTaskArn']} failed: {reason}")
        return entries

    def seconds(self, metadata: dict[str, Any]) -> float:
        """Return how long a simulator worked on a task, in seconds, or 0 if it does not report it."""
        found = getattr(self._schema(metadata), "additionalMetadata", None)
        duration = getattr(getattr(found, "simulatorMetadata", None), "executionDuration", None)
        return (duration or 0) / 1000

    def _schema(self, metadata: dict[str, Any]) -> Any:
        from braket.schema_common import BraketSchemaBase

        if self._store is None:
            self._store = self._session.boto_session.client(
                "s3", region_name=self._session.region, config=one_attempt()
            )
        key = f"{metadata['outputS3Directory']}/results.json"
        body = self._store.get_object(Bucket=metadata["outputS3Bucket"], Key=key)["Body"].read()
        return BraketSchemaBase.parse_raw_schema(body.decode())

    def _add_token(self, params: dict[str, Any], **_: Any) -> None:
        """Add a token with which AWS returns the existing task if a request is sent again after a lost answer."""
        params["clientToken"] = self._token
