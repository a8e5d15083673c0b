"""An AWS device as a :class:`Device`: a job is one task, or several where it does not fit into one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar

from qiskit import QuantumCircuit
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.primitives.containers.sampler_pub import SamplerPub

from qiskit_qattn.backends.braket.aws import PART, Task, Tasks
from qiskit_qattn.backends.braket.capabilities import Capabilities
from qiskit_qattn.backends.braket.circuits import (
    BraketProgram,
    bits_of,
    check_inputs,
    in_one_basis,
    measured_qubits,
    outcomes_of,
    program_sets,
    samples_of,
)
from qiskit_qattn.backends.braket.errors import aws_errors
from qiskit_qattn.backends.braket.tiles import device_tiling
from qiskit_qattn.backends.jobs.device import Bits, Calibration, Cost, JobStatus, Pub, Values
from qiskit_qattn.backends.measurement import Plan, shots_of
from qiskit_qattn.backends.mitigation import Mitigation
from qiskit_qattn.backends.tile_options import Tiles
from qiskit_qattn.backends.tiling import Tiling
from qiskit_qattn.errors import BackendError, ConfigError, TransientBackendError
from qiskit_qattn.untrusted import one_line

T = TypeVar("T")
_DIVIDER = ";"  # between the tasks of a job, as in qiskit-braket-provider
_DEAD = {"FAILED", "CANCELLED", "CANCELLING"}
_FINAL = {"FAILED", "CANCELLED", "COMPLETED"}
_LEAST_SECONDS = 3.0  # a task on a simulator is billed for at least these
_TASK_USD = 0.30  # what a task costs on any QPU; a device reports the price of its shots only


class BraketDevice:
    r"""A QPU or simulator of Amazon Braket.

    Where the device takes program sets, a job is :math:`\lceil E / E_{max} \rceil` tasks for E circuits (one per
    measurement basis and parameter set); elsewhere it is E tasks. Its id is the ARNs of the tasks, joined by
    semicolons. Each task carries the job's tag and its part; a client token made of them makes AWS return the existing
    task if the same one is sent again. AWS keeps tasks for 90 days; :meth:`find` reads all of this device's.

    Args:
        device: Braket's ``AwsDevice``.
        s3: Bucket and prefix for results, or None for Braket's default bucket.
        reservation: ARN of a Braket Direct reservation.
        price: US dollars per task and per shot, or None for what the device reports.
        mitigation: How errors are mitigated, or None.
    """

    paid = True

    def __init__(
        self,
        device: Any,
        *,
        s3: tuple[str, str] | None = None,
        reservation: str | None = None,
        price: tuple[float, float] | None = None,
        mitigation: Mitigation | None = None,
    ) -> None:
        self._can, self._mitigation = Capabilities.of(device), mitigation or Mitigation(methods=())
        self.name, self.settings = f"braket:{device.name}", f"device={device.arn}"
        if mitigation is not None:
            self.settings += f" {mitigation!r}"
        self._debias = "debias" in self._mitigation.methods
        if self._debias:  # of circuits: the SDK sends no parameters with a program set
            least = max(self._can.shots[0], self._can.mitigation["debias"])
            self._can = replace(self._can, shots=(least, self._can.shots[1]), set=None)
        self._device, self._reservation, self._price = device, reservation, price
        self._tasks = Tasks(device.aws_session, device.arn, s3)
        self._known: dict[str, Task] = {}  # tasks that have ended

    @property
    def is_simulator(self) -> bool:
        """Whether it is one of AWS's simulators."""
        return "/quantum-simulator/" in self._device.arn

    def calibration(self, circuits: Iterable[QuantumCircuit], before: datetime) -> Calibration | None:
        """Return when AWS last updated what it says of the device; which qubits a task ran on, it does not say."""
        with aws_errors(f"reading the properties of {self._device.name}"):
            updated = self._device.properties.service.updatedAt
            return None if updated is None or self.is_simulator else Calibration(updated.isoformat(), {}, [])

    def submit(self, pubs: Sequence[Pub], precision: float, tag: str) -> str:
        """Send the tasks of a job and return its id; those sent in an earlier attempt are not sent again."""
        shots, self._tasks.unsure = self._shots(precision), False
        run = self._checked(pubs)
        gates, pairs = self._can.gates, [(pub, factor) for factor in self._mitigation.runs for pub in run]
        programs = [BraketProgram(pub, gates, fold=factor, barriers=True) for pub, factor in pairs]
        specifications = list(self._specifications(programs, shots))
        if not specifications:
            raise BackendError("The PUBs have no Pauli string to measure; nothing was sent.")
        arns: list[str] = []
        try:
            self._online()
            for index, specification in enumerate(specifications):
                with aws_errors(f"sending task {index + 1} of {len(specifications)} to {self._device.name}"):
                    arns.append(
                        self._tasks.create(
                            specification,
                            tag=tag,
                            part=(index, len(specifications)),
                            shots=shots if self._can.set is None else specification.total_shots,
                            reservation=self._reservation,
                            debias=self._debias,
                        )
                    )
        except TransientBackendError as error:  # the next try sends the rest
            error.unsent = (error.unsent or not self._tasks.unsure) and not self._tasks.parts(tag)
            raise
        except BackendError as error:
            try:
                if self._tasks.unsure or self._tasks.parts(tag):
                    self.abandon(tag)  # they are useless without the others
            except BackendError as other:
                raise TransientBackendError(
                    f"{error} The job's tasks that were sent before could not be cancelled: {other}"
                ) from error
            raise
        self._tasks.forget(tag)
        return _DIVIDER.join(arns)

    def find(self, tag: str) -> list[str]:
        """Return the ids of the jobs that carry a tag; incomplete ones are left out."""
        with aws_errors(f"looking for tasks on {self._device.name}"):
            return [_DIVIDER.join(arns) for arns in self._tasks.find(tag, _DEAD)]

    def status(self, job_id: str) -> JobStatus:
        """Return the status of a job; failed if any of its tasks has failed."""
        found = [self._task(arn) for arn in job_id.split(_DIVIDER)]
        states = [task["status"] for task in found]
        for task in found:
            if task["status"] == "FAILED":
                return JobStatus("failed", message=one_line(task.get("failureReason", "no reason given")))
        if "CANCELLED" in states:
            return JobStatus("cancelled", message="a task was cancelled")
        if all(state == "COMPLETED" for state in states):
            return JobStatus("done")
        if set(states) <= {"CREATED", "QUEUED"}:
            positions = [_position(task) for task in found]
            return JobStatus("queued", max((place for place in positions if place is not None), default=None))
        return JobStatus("running")

    def result(self, job_id: str, pubs: Sequence[Pub]) -> Sequence[Values | Bits]:
        """Return the values of a finished job, or its samples, from its tasks' results in S3."""
        plans = [Plan(in_one_basis(pub)) for pub in pubs] * len(self._mitigation.runs)
        if any(isinstance(pub, SamplerPub) for pub in pubs):
            tables = self._outcomes(job_id, plans, outcomes_of)
            return [bits_of(list(islice(tables, plan.size)), pub) for plan, pub in zip(plans, pubs, strict=True)]
        samples = self._outcomes(job_id, plans, samples_of)
        values = [plan.from_samples(samples) for plan in plans]
        if next(samples, None) is not None:
            raise BackendError(f"Job {job_id} measured more circuits than its PUBs have; it belongs to other PUBs.")
        if "zne" in self._mitigation.methods:
            return [self._mitigation.at_zero(values[index :: len(pubs)]) for index in range(len(pubs))]
        return [replace(item, mitigated=self._debias) for item in values]

    def usage(self, job_id: str) -> Cost:
        """Return the tasks, shots and price of a job; only simulators report seconds."""
        cost = Cost(usd=None)
        for arn in job_id.split(_DIVIDER):
            task = self._task(arn)
            if task["status"] in ("FAILED", "CANCELLED"):  # not billed
                continue
            with aws_errors(f"asking what a task on {self._device.name} took"):
                circuits = int(task.get("actionMetadata", {}).get("executableCount", 1))
                shots = task.get("numSuccessfulShots", task["shots"])
                if circuits < 1 or not 0 <= shots <= task["shots"]:
                    raise ValueError(f"task {arn} has {circuits} circuits and {shots} of {task['shots']} shots")
            seconds = self._seconds(task) if task["status"] == "COMPLETED" else 0.0
            cost += self._cost(1, circuits, shots, seconds)
        return cost

    def cancel(self, job_id: str) -> None:
        """Cancel the tasks of a job that have not ended, all of them even if AWS refuses for one.

        Raises:
            BackendError: The first of those that AWS refused.
        """
        refused: list[BackendError] = []
        for arn in filter(None, job_id.split(_DIVIDER)):
            try:
                if self._task(arn)["status"] not in _FINAL:
                    with aws_errors(f"cancelling a task on {self._device.name}"):
                        self._tasks.cancel(arn)
            except BackendError as error:
                refused.append(error)
        if refused:
            raise refused[0]

    def abandon(self, tag: str) -> None:
        """Cancel the tasks with a tag that belong to no complete job, of this process or another."""
        with aws_errors(f"looking for tasks on {self._device.name}"):
            self._tasks.find(tag, _DEAD)
            parts = self._tasks.parts(tag)
        self.cancel(_DIVIDER.join(parts))
        self._tasks.forget(tag)

    def estimate(self, pubs: Sequence[Pub], precision: float) -> Cost:
        """Return the estimated cost of a job; for a simulator the minimum, as its time is only known afterwards."""
        shots = self._shots(precision)
        circuits = len(self._mitigation.runs) * sum(Plan(pub).size for pub in self._checked(pubs))
        jobs = -(-circuits // self._most(shots))
        return self._cost(jobs, circuits, circuits * shots, jobs * _LEAST_SECONDS if self._simulator else 0.0)

    def tiling(self, asked: Tiles) -> Tiling:
        """Return where circuits run side by side.

        Raises:
            TransientBackendError: For a description of the device that cannot be read.
        """
        with aws_errors(f"reading which qubits of {self._device.name} are connected"):
            return device_tiling(self._device, asked)

    def queue(self) -> int | None:
        """Return how many tasks wait on the device, None where AWS does not tell."""
        with aws_errors(f"asking for the queue of {self._device.name}"):
            queues = self._device.aws_session.get_device(self._device.arn).get("deviceQueueInfo") or []
            sizes = [each.get("queueSize") for each in queues if each.get("queue") == "QUANTUM_TASKS_QUEUE"]
        counts = [_count(size) for size in sizes]
        return sum(counts) if counts and None not in counts else None  # type: ignore[arg-type]

    @property
    def price(self) -> tuple[float, float] | None:
        """US dollars per task and per shot, where they are known."""
        if self._price is not None:
            return self._price
        listed = self._can.price
        return (_TASK_USD, listed[0]) if listed is not None and listed[1] == "shot" else None

    @property
    def _simulator(self) -> bool:
        return "/quantum-simulator/" in self._device.arn

    def _specifications(self, programs: list[BraketProgram], shots: int) -> Iterator[Any]:
        """Yield the tasks of a job: program sets, or circuits with their parameters bound."""
        if self._can.set is not None:
            yield from program_sets(programs, self._most(shots), shots)
            return
        for program in programs:
            for basis in program.plan.bases:
                circuit = program.measured(basis)
                for row in basis.rows:
                    yield circuit.make_bound_circuit(program.inputs(int(row)))

    def _outcomes(self, job_id: str, plans: Sequence[Plan], read: Callable[..., T]) -> Iterator[T]:
        """Yield what each circuit of a job measured, task by task; it must be what the plans' circuits measure."""
        which = ((plan, int(row)) for plan in plans for basis in plan.bases for row in basis.rows)
        arns = job_id.split(_DIVIDER)
        for index, arn in enumerate(arns):
            with aws_errors(f"reading the result of task {arn} on {self._device.name}"):
                task = self._task(arn)
                part = task.get("tags", {}).get(PART)
                if part not in (None, f"{index}/{len(arns)}"):
                    raise BackendError(f"Task {arn} is part {part} of its job, not {index}/{len(arns)} of {job_id}.")
                entries = self._tasks.result(task)
            for entry in entries:
                plan, row = next(which, (None, 0))
                if plan is None:
                    raise BackendError(f"Job {job_id} measured more circuits than its PUBs have.")
                with aws_errors(f"reading what task {arn} on {self._device.name} measured"):
                    check_inputs(entry, plan.points[row])
                    shots, measured = shots_of(plan.pub.precision), measured_qubits(plan.pub)
                    found = read(entry, plan.pub.circuit.num_qubits, shots, measured)
                yield found
        if next(which, None) is not None:
            raise BackendError(f"Job {job_id} measured fewer circuits than its PUBs have; it belongs to other PUBs.")

    def _task(self, arn: str) -> Task:
        if arn not in self._known:
            with aws_errors(f"asking for a task on {self._device.name}"):
                task = self._tasks.task(arn)
            if task["status"] not in _FINAL:
                return task
            self._known[arn] = task
        return self._known[arn]

    def _seconds(self, task: Task) -> float:
        if not self._simulator:
            return 0.0
        with aws_errors(f"reading the duration of a task on {self._device.name}"):
            return max(_LEAST_SECONDS, self._tasks.seconds(task))

    def _cost(self, jobs: int, circuits: int, shots: int, seconds: float) -> Cost:
        usd, listed = None, self._can.price
        if self.price is not None:
            usd = jobs * self.price[0] + shots * self.price[1]
        elif self._simulator and listed is not None and listed[1] == "minute":
            usd = seconds / 60 * listed[0]
        return Cost(jobs, circuits, shots, seconds, usd)

    def _most(self, shots: int) -> int:
        """Return how many circuits fit into a task."""
        if self._can.set is None:
            return 1
        return max(1, min(self._can.set[0], self._can.set[1] // shots))

    def _shots(self, precision: float) -> int:
        shots, (least, most) = shots_of(precision), self._can.shots
        if not least <= shots <= most:
            raise ConfigError(f"{self._device.name} takes {least} to {most} shots per circuit, got {shots}.")
        return shots

    def _checked(self, pubs: Sequence[Pub]) -> list[EstimatorPub]:
        """Return the PUBs as they are run."""
        found = [in_one_basis(pub) for pub in pubs]
        for pub in found:
            count = len(measured_qubits(pub))  # of tiles, whose numbers may be larger
            if count > self._can.qubits:
                raise BackendError(f"A circuit has {count} qubits, but {self._device.name} has {self._can.qubits}.")
        return found

    def _online(self) -> None:
        if self._device.status == "ONLINE":
            return
        with aws_errors(f"asking for the state of {self._device.name}"):
            self._device.refresh_metadata()
        if self._device.status != "ONLINE":
            when = f" Its hours: {self._can.hours}." if self._can.hours else ""
            raise BackendError(f"{self._device.name} is {self._device.status}; nothing was sent.{when}")


def _position(task: Task) -> int | None:
    """Return the position in the queue, if AWS reports one."""
    return _count(task.get("queueInfo", {}).get("position", ""))


def _count(text: Any) -> int | None:
    """Return a number that AWS gives as ``3`` or ``>2000``; None for anything else."""
    digits = str(text).lstrip(">")
    return int(digits) if digits.isdecimal() and len(digits) < 10 else None
