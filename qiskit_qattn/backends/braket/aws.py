"""Quantum tasks on AWS: created once each, found by tag, read from S3."""

from __future__ import annotations

import hashlib
import re
import weakref
from collections.abc import Collection
from typing import Any, TypedDict

from qiskit_qattn.backends.braket.errors import pages
from qiskit_qattn.backends.values import LEAST_SHOTS
from qiskit_qattn.errors import BackendError, JobError, TransientBackendError
from qiskit_qattn.forks import in_forked_process
from qiskit_qattn.untrusted import as_type, one_line, shown

TAG, PART = "qiskit-qattn", "qiskit-qattn-part"
STATES = {"CREATED", "QUEUED", "RUNNING", "CANCELLING", "CANCELLED", "COMPLETED", "FAILED"}
_ARN = re.compile(r"arn:[\w-]+:braket:[\w-]+:\d*:quantum-task/[\w-]+")
_MOST_BYTES = 2**30  # of a result


def one_attempt() -> Any:
    """Return the configuration of a client that leaves retries to its caller."""
    from botocore.config import Config

    return Config(retries={"total_max_attempts": 1}, connect_timeout=10, read_timeout=20)


class _Task(TypedDict):
    quantumTaskArn: str
    status: str
    shots: int
    outputS3Bucket: str
    outputS3Directory: str


class Task(_Task, total=False):
    """What this package reads of AWS's description of a task."""

    deviceArn: str
    numSuccessfulShots: int
    failureReason: str
    queueInfo: dict[str, Any]
    actionMetadata: dict[str, Any]
    tags: dict[str, str]


class Listed(TypedDict):
    """What this package reads of a task in a list."""

    quantumTaskArn: str
    status: str
    createdAt: Any
    tags: dict[str, str]


_OPEN: weakref.WeakSet[Tasks] = weakref.WeakSet()


@in_forked_process
def _leave_to_parent() -> None:
    for tasks in list(_OPEN):
        tasks.connect_anew()


class Tasks:
    """A client of AWS for the tasks of one device. A forked process has connections of its own.

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
        self.unsure = False  # whether a task may have been created whose ARN is not known
        _OPEN.add(self)

    def connect_anew(self) -> None:
        """Close the connections; the next calls open others."""
        for client in (self._client, self._store):
            if client is not None:
                client.close()

    def create(
        self,
        specification: Any,
        *,
        tag: str,
        part: tuple[int, int],
        shots: int,
        reservation: str | None,
        debias: bool = False,
    ) -> str:
        """Create a task, unless it was created or found before, and return its ARN.

        Args:
            specification: A Braket circuit or program set.
            tag: Tag of the job.
            part: Which of how many tasks of the job it is.
            shots: Samples of the task, over all circuits.
            reservation: ARN of a reservation.
            debias: Whether the device mitigates errors itself.
        """
        from braket.aws import AwsQuantumTask
        from braket.error_mitigation import Debias

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
            device_parameters={"errorMitigation": Debias()} if debias else None,
            tags={TAG: tag, PART: f"{part[0]}/{part[1]}"},
            reservation_arn=reservation,
        )
        self._incomplete[key], self.unsure = _arn(task.id), False
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
        every = pages(self._client.search_quantum_tasks, "quantumTasks", filters=filters, maxResults=100)
        found: list[Listed] = [
            as_type(task, Listed, "a task") for task in every if (task.get("tags") or {}).get(TAG) == tag
        ]
        found.sort(key=lambda task: task["createdAt"])
        parts: dict[int, list[str]] = {}
        failed: dict[int, list[str]] = {}
        size = 0
        for task in found:
            part, size = _part(task["tags"].get(PART, ""), size)
            if _state(task) in dead:
                failed.setdefault(part, []).append(_arn(task["quantumTaskArn"]))
            else:
                parts.setdefault(part, []).append(_arn(task["quantumTaskArn"]))
        complete = min((len(parts.get(part, [])) for part in range(size)), default=0)
        gone = {arn for arns in failed.values() for arn in arns}
        # The search may be behind: what this process sent stays known.
        self._incomplete = {key: arn for key, arn in self._incomplete.items() if arn not in gone}
        self._incomplete |= {(tag, part): arns[complete] for part, arns in parts.items() if len(arns) > complete}
        self._failures |= {(tag, part): len(arns) for part, arns in failed.items()}
        return [[parts[part][index] for part in range(size)] for index in range(complete)]

    def task(self, arn: str) -> Task:
        """Return AWS's description of a task.

        Raises:
            TransientBackendError: For the description of another task, or of a state that AWS does not document.
        """
        found = self._client.get_quantum_task(quantumTaskArn=arn, additionalAttributeNames=["QueueInfo"])
        task: Task = as_type(found, Task, "the task")
        if task["quantumTaskArn"] != arn or task.get("deviceArn", self._arn) != self._arn:
            raise TransientBackendError(
                f"AWS was asked for task {arn} on {self._arn} and described {one_line(task['quantumTaskArn'])} on "
                f"{one_line(task.get('deviceArn', 'no device'))}."
            )
        _state(task)
        return task

    def cancel(self, arn: str) -> None:
        """Cancel a task, unless it has just ended.

        Raises:
            TransientBackendError: If AWS does not say that it does so.
        """
        try:
            answer = self._client.cancel_quantum_task(quantumTaskArn=arn)
        except self._client.exceptions.ConflictException:
            return
        if answer["cancellationStatus"] not in ("CANCELLING", "CANCELLED"):
            raise TransientBackendError(f"AWS says of task {arn} that it is {shown(answer['cancellationStatus'])}.")

    def result(self, task: Task) -> list[Any]:
        """Return what each circuit of a finished task measured.

        Raises:
            JobError: If the task, or one of its circuits, has failed.
            BackendError: For a task that has not ended, or measured fewer shots than it was asked for.
        """
        from braket.task_result import ProgramSetTaskResult
        from braket.tasks import GateModelQuantumTaskResult, ProgramSetQuantumTaskResult

        arn, status, shots = task["quantumTaskArn"], task["status"], task["shots"]
        if status != "COMPLETED":
            kind = JobError if status in ("FAILED", "CANCELLED") else BackendError
            raise kind(f"Task {arn} is {status} and has no result.")
        measured = task.get("numSuccessfulShots", shots)
        if not LEAST_SHOTS * shots <= measured <= shots:
            raise BackendError(
                f"Task {arn} has {measured:,} of {shots:,} shots. It is not taken for a result; ask AWS whether it is "
                f"billed."
            )
        schema = self._schema(task)
        if not isinstance(schema, ProgramSetTaskResult):
            return [GateModelQuantumTaskResult.from_object(schema)]
        entries = [entry for program in ProgramSetQuantumTaskResult.from_object(schema) for entry in program]
        for entry in entries:
            if not hasattr(entry, "measurements"):
                reason = getattr(entry, "failureMetadata", None)
                raise JobError(f"A circuit of task {arn} failed: {one_line(str(reason))}")
        return entries

    def seconds(self, task: Task) -> float:
        """Return how long a simulator worked on a task, in seconds, or 0 if it does not report it."""
        found = getattr(self._schema(task), "additionalMetadata", None)
        duration = getattr(getattr(found, "simulatorMetadata", None), "executionDuration", None)
        return max(0, duration or 0) / 1000

    def _schema(self, task: Task) -> Any:
        """Return the result that a task left in S3.

        Raises:
            TransientBackendError: For the result of another task, or no result.
        """
        from braket.task_result import GateModelTaskResult, ProgramSetTaskResult

        schema = self._read(task["outputS3Bucket"], f"{task['outputS3Directory']}/results.json")
        if isinstance(schema, GateModelTaskResult):
            _check_origin(schema.taskMetadata, schema.taskMetadata.shots, task)
        elif isinstance(schema, ProgramSetTaskResult):
            schema = self._whole(schema)
            _check_origin(schema.taskMetadata, schema.taskMetadata.requestedShots, task)
        else:
            raise TransientBackendError(f"The result of task {task['quantumTaskArn']} is a {type(schema).__name__}.")
        return schema

    def _whole(self, schema: Any) -> Any:
        """Return the result of a program set with all parts in it; they may be objects of their own."""
        if schema.s3Location is None:
            return schema
        bucket, prefix = schema.s3Location

        def read(folder: str, part: Any) -> Any:
            return self._read(bucket, f"{folder}/{part}") if isinstance(part, str) else part

        programs = []
        for name in schema.programResults:
            folder, program = f"{prefix}/{name}".removesuffix("/results.json"), read(prefix, name)
            entries = [read(folder, entry) for entry in program.executableResults]
            programs.append(program.copy(update={"executableResults": entries, "source": read(folder, program.source)}))
        metadata = read(prefix, schema.taskMetadata)
        return schema.copy(update={"programResults": programs, "taskMetadata": metadata, "s3Location": None})

    def _read(self, bucket: str, key: str) -> Any:
        """Return an object in S3, of the schema that it names.

        Raises:
            TransientBackendError: If it is empty.
            BackendError: If it is too large to be one.
        """
        from braket.schema_common import BraketSchemaBase

        if self._store is None:
            self._store = self._session.boto_session.client(
                "s3", region_name=self._session.region, config=one_attempt()
            )
        answer = self._store.get_object(Bucket=bucket, Key=key)
        if answer["ContentLength"] > _MOST_BYTES:
            raise BackendError(f"The object {one_line(key)} in S3 has {answer['ContentLength']:,} bytes.")
        body = answer["Body"].read()
        if not body:
            raise TransientBackendError(f"The object {one_line(key)} in S3 is empty.")
        return BraketSchemaBase.parse_raw_schema(body.decode())

    def _add_token(self, params: dict[str, Any], **_: Any) -> None:
        """Add a token with which AWS returns the existing task if a request is sent again after a lost answer."""
        params["clientToken"], self.unsure = self._token, True


def _state(task: Task | Listed) -> str:
    """Return the state of a task.

    Raises:
        TransientBackendError: For one that AWS does not document.
    """
    if task["status"] not in STATES:
        raise TransientBackendError(
            f"AWS says of task {task['quantumTaskArn']} that it is {shown(task['status'])}; known: "
            f"{', '.join(sorted(STATES))}."
        )
    return task["status"]


def _arn(found: Any) -> str:
    """Return the ARN of a task; ids of jobs are made of them.

    Raises:
        TransientBackendError: For anything else.
    """
    if not (isinstance(found, str) and _ARN.fullmatch(found)):
        raise TransientBackendError(f"AWS gave a task the ARN {shown(found)}.")
    return found


def _part(text: str, size: int) -> tuple[int, int]:
    """Return which part of how many a task is, as its tag says, where the parts before said ``size``.

    Raises:
        ValueError: For a tag that this package does not write.
    """
    part, _, count = text.partition("/")
    if not (part.isdecimal() and count.isdecimal() and int(part) < int(count) and size in (0, int(count))):
        raise ValueError(f"a task's tag {PART} is {shown(text)}")
    return int(part), int(count)


def _check_origin(metadata: Any, shots: int, task: Task) -> None:
    """Raise :class:`TransientBackendError` for the result of another task than the one that was asked for."""
    arn = task["quantumTaskArn"]
    if metadata.id.startswith("arn:") and metadata.id != arn:
        raise TransientBackendError(f"The result in S3 of task {arn} is that of {one_line(metadata.id)}.")
    if shots != task["shots"]:
        raise TransientBackendError(f"The result in S3 of task {arn} has {shots:,} shots, expected {task['shots']:,}.")
