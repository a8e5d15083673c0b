"""An AWS device as a :class:`Device`: a job is one task, or several where it does not fit into one."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from qiskit.primitives.containers.estimator_pub import EstimatorPub

from qiskit_qattn.backends.braket.aws import Tasks, aws_errors
from qiskit_qattn.backends.braket.circuits import BraketProgram, program_sets, samples_of
from qiskit_qattn.backends.jobs.device import Cost, JobStatus, Values
from qiskit_qattn.backends.measurement import Plan, Samples, shots_of
from qiskit_qattn.errors import BackendError, ConfigError, TransientBackendError

_log = logging.getLogger(__name__)
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
    """

    paid = True

    def __init__(
        self,
        device: Any,
        *,
        s3: tuple[str, str] | None = None,
        reservation: str | None = None,
        price: tuple[float, float] | None = None,
    ) -> None:
        from braket.device_schema import DeviceActionType
        from qiskit_braket_provider.providers.adapter import gateset_from_properties

        actions = device.properties.action
        if DeviceActionType.OPENQASM not in actions:
            raise BackendError(f"{device.name} runs no circuits of gates. Choose a gate-based device.")
        self.name, self.settings = f"braket:{device.name}", f"device={device.arn}"
        self._device, self._reservation, self._price = device, reservation, price
        self._gates = gateset_from_properties(actions[DeviceActionType.OPENQASM])
        self._sets = actions.get(DeviceActionType.OPENQASM_PROGRAM_SET)
        self._tasks = Tasks(device.aws_session, device.arn, s3)
        self._known: dict[str, dict[str, Any]] = {}  # metadata of tasks that have ended

    def submit(self, pubs: Sequence[EstimatorPub], precision: float, tag: str) -> str:
        """Send the tasks of a job and return its id; those sent in an earlier attempt are not sent again."""
        shots = self._shots(precision)
        self._check(pubs)
        self._online()
        specifications = list(self._specifications([BraketProgram(pub, self._gates) for pub in pubs], shots))
        if not specifications:
            raise BackendError("The PUBs have no Pauli string to measure; nothing was sent.")
        arns: list[str] = []
        try:
            for index, specification in enumerate(specifications):
                with aws_errors(f"sending task {index + 1} of {len(specifications)} to {self._device.name}"):
                    arns.append(
                        self._tasks.create(
                            specification,
                            tag=tag,
                            part=(index, len(specifications)),
                            shots=shots if self._sets is None else specification.total_shots,
                            reservation=self._reservation,
                        )
                    )
        except TransientBackendError:
            raise  # the next try sends the rest
        except BackendError:
            try:
                self.abandon(tag)  # they are useless without the others
            except BackendError as other:
                _log.warning("%s: tasks sent before a refusal could not be cancelled: %s", self.name, other)
            raise
        self._tasks.forget(tag)
        return _DIVIDER.join(arns)

    def find(self, tag: str) -> list[str]:
        """Return the ids of the jobs that carry a tag; incomplete ones are left out."""
        with aws_errors(f"looking for tasks on {self._device.name}"):
            return [_DIVIDER.join(arns) for arns in self._tasks.find(tag, _DEAD)]

    def status(self, job_id: str) -> JobStatus:
        """Return the status of a job; failed if any of its tasks has failed."""
        found = [self._metadata(arn) for arn in job_id.split(_DIVIDER)]
        states = [metadata["status"] for metadata in found]
        for metadata in found:
            if metadata["status"] == "FAILED":
                return JobStatus("failed", message=metadata.get("failureReason", "no reason given"))
        if "CANCELLED" in states:
            return JobStatus("cancelled", message="a task was cancelled")
        if all(state == "COMPLETED" for state in states):
            return JobStatus("done")
        if set(states) <= {"CREATED", "QUEUED"}:
            positions = [_position(metadata) for metadata in found]
            return JobStatus("queued", max((place for place in positions if place is not None), default=None))
        return JobStatus("running")

    def result(self, job_id: str, pubs: Sequence[EstimatorPub]) -> list[Values]:
        """Return the values of a finished job, from its tasks' results in S3."""
        plans = [Plan(pub) for pub in pubs]
        samples = self._samples(job_id, [plan for plan in plans for _ in range(plan.size)])
        values = [plan.from_samples(samples) for plan in plans]
        if next(samples, None) is not None:
            raise BackendError(f"Job {job_id} measured more circuits than its PUBs have; it belongs to other PUBs.")
        return values

    def usage(self, job_id: str) -> Cost:
        """Return the tasks, shots and price of a job; only simulators report seconds."""
        cost = Cost(usd=None)
        for arn in job_id.split(_DIVIDER):
            metadata = self._metadata(arn)
            if metadata["status"] in ("FAILED", "CANCELLED"):  # not billed
                continue
            circuits = metadata.get("actionMetadata", {}).get("executableCount", 1)
            shots = metadata.get("numSuccessfulShots", metadata["shots"])
            seconds = self._seconds(metadata) if metadata["status"] == "COMPLETED" else 0.0
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
                if self._metadata(arn)["status"] not in _FINAL:
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

    def estimate(self, pubs: Sequence[EstimatorPub], precision: float) -> Cost:
        """Return the estimated cost of a job; for a simulator the minimum, as its time is only known afterwards."""
        shots = self._shots(precision)
        self._check(pubs)
        circuits = sum(Plan(pub).size for pub in pubs)
        jobs = -(-circuits // self._most(shots))
        return self._cost(jobs, circuits, circuits * shots, jobs * _LEAST_SECONDS if self._simulator else 0.0)

    @property
    def price(self) -> tuple[float, float] | None:
        """US dollars per task and per shot, where they are known."""
        if self._price is not None:
            return self._price
        cost = self._device.properties.service.deviceCost
        return (_TASK_USD, cost.price) if cost is not None and cost.unit == "shot" else None

    @property
    def _simulator(self) -> bool:
        return "/quantum-simulator/" in self._device.arn

    def _specifications(self, programs: list[BraketProgram], shots: int) -> Iterator[Any]:
        """Yield the tasks of a job: program sets, or circuits with their parameters bound."""
        if self._sets is not None:
            yield from program_sets(programs, self._most(shots), shots)
            return
        for program in programs:
            for basis in program.plan.bases:
                circuit = program.measured(basis)
                for row in basis.rows:
                    yield circuit.make_bound_circuit(program.inputs(int(row)))

    def _samples(self, job_id: str, plans: list[Plan]) -> Iterator[Samples]:
        """Yield what each circuit of a job measured, task by task; ``plans`` has the plan of each circuit."""
        which = iter(plans)
        for arn in job_id.split(_DIVIDER):
            with aws_errors(f"reading the result of a task on {self._device.name}"):
                entries = self._tasks.result(self._metadata(arn))
            for entry in entries:
                plan = next(which, None)
                if plan is None:
                    raise BackendError(f"Job {job_id} measured more circuits than its PUBs have.")
                yield samples_of(entry, plan.pub.circuit.num_qubits)
        if next(which, None) is not None:
            raise BackendError(f"Job {job_id} measured fewer circuits than its PUBs have; it belongs to other PUBs.")

    def _metadata(self, arn: str) -> dict[str, Any]:
        if arn not in self._known:
            with aws_errors(f"asking for a task on {self._device.name}"):
                metadata = self._tasks.metadata(arn)
            if metadata["status"] not in _FINAL:
                return metadata
            self._known[arn] = metadata
        return self._known[arn]

    def _seconds(self, metadata: dict[str, Any]) -> float:
        if not self._simulator:
            return 0.0
        with aws_errors(f"reading the duration of a task on {self._device.name}"):
            return max(_LEAST_SECONDS, self._tasks.seconds(metadata))

    def _cost(self, jobs: int, circuits: int, shots: int, seconds: float) -> Cost:
        usd, listed = None, self._device.properties.service.deviceCost
        if self.price is not None:
            usd = jobs * self.price[0] + shots * self.price[1]
        elif self._simulator and listed is not None and listed.unit == "minute":
            usd = seconds / 60 * listed.price
        return Cost(jobs, circuits, shots, seconds, usd)

    def _most(self, shots: int) -> int:
        """Return how many circuits fit into a task."""
        if self._sets is None:
            return 1
        return max(1, min(self._sets.maximumExecutables, self._sets.maximumTotalShots // shots))

    def _shots(self, precision: float) -> int:
        shots, (least, most) = shots_of(precision), self._device.properties.service.shotsRange
        if not max(1, least) <= shots <= most:
            raise ConfigError(f"{self._device.name} takes {max(1, least)} to {most} shots per circuit, got {shots}.")
        return shots

    def _check(self, pubs: Sequence[EstimatorPub]) -> None:
        most = self._device.properties.paradigm.qubitCount
        for pub in pubs:
            if pub.circuit.num_qubits > most:
                raise BackendError(
                    f"A circuit has {pub.circuit.num_qubits} qubits, but {self._device.name} has {most}."
                )

    def _online(self) -> None:
        if self._device.status == "ONLINE":
            return
        with aws_errors(f"asking for the state of {self._device.name}"):
            self._device.refresh_metadata()
        if self._device.status != "ONLINE":
            windows = "; ".join(
                f"{getattr(window.executionDay, 'value', window.executionDay)} {window.windowStartHour:%H:%M} to "
                f"{window.windowEndHour:%H:%M} UTC"
                for window in self._device.properties.service.executionWindows
            )
            when = f" Its hours: {windows}." if windows else ""
            raise BackendError(f"{self._device.name} is {self._device.status}; nothing was sent.{when}")


def _position(metadata: dict[str, Any]) -> int | None:
    """Return the position in the queue, given as ``3`` or ``>2000``, if AWS reports one."""
    digits = str(metadata.get("queueInfo", {}).get("position", "")).lstrip(">")
    return int(digits) if digits.isdigit() else None
