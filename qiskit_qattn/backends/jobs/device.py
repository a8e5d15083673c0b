"""The interface of a queued, perhaps paid, device, so that no job is paid for twice and none is lost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from qiskit.primitives import BitArray
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.primitives.containers.sampler_pub import SamplerPub

from qiskit_qattn.backends.values import LEAST_SHOTS, bounds, check_shots, check_values, real
from qiskit_qattn.errors import BackendError

#: A job's PUBs are all of one kind.
Pub: TypeAlias = EstimatorPub | SamplerPub
State = Literal["queued", "running", "done", "failed", "cancelled", "lost"]
RETRIES = 5  # default number of times that a call is repeated after a transient error


@dataclass(frozen=True)
class JobStatus:
    """The status of a job.

    Attributes:
        state: One of the six states; the last four are final. A ``lost`` job ran inside a process that has ended:
            there is nothing to wait for, and nothing was paid.
        position: Position in the device's queue, where the device reports it.
        message: Why it failed, in the provider's words.
    """

    state: State
    position: int | None = None
    message: str = ""


@dataclass(frozen=True)
class Cost:
    """What jobs cost, estimated before or billed after.

    Attributes:
        jobs: Jobs, or on Amazon Braket tasks.
        circuits: Circuit executions of one set of parameters in one measurement basis.
        shots: Samples over all circuits.
        seconds: Time on the quantum processor, in seconds.
        usd: Price in US dollars, or None where none is published.
    """

    jobs: int = 0
    circuits: int = 0
    shots: int = 0
    seconds: float = 0.0
    usd: float | None = None

    @property
    def is_valid(self) -> bool:
        """Whether every number is finite and not negative."""
        numbers = [self.jobs, self.circuits, self.shots, self.seconds, 0.0 if self.usd is None else self.usd]
        return all(0 <= number < math.inf for number in numbers)

    def __mul__(self, count: int) -> Cost:
        usd = None if self.usd is None else count * self.usd
        return Cost(count * self.jobs, count * self.circuits, count * self.shots, count * self.seconds, usd)

    def __add__(self, other: Cost) -> Cost:
        usd = None if self.usd is None and other.usd is None else (self.usd or 0.0) + (other.usd or 0.0)
        return Cost(
            self.jobs + other.jobs,
            self.circuits + other.circuits,
            self.shots + other.shots,
            self.seconds + other.seconds,
            usd,
        )


@dataclass(frozen=True)
class Calibration:
    """What a device says of the qubits and gates of some circuits.

    Attributes:
        date: When it last measured that, in ISO 8601, or None where it does not say.
        qubits: The qubits in use, each with ``t1`` and ``t2`` in seconds and its ``readout`` error; None where unknown.
        gates: The gates on two qubits in use, each with its ``name``, ``qubits`` and ``error``.
    """

    date: str | None
    qubits: dict[int, dict[str, float | None]]
    gates: list[dict[str, Any]]


@dataclass(frozen=True)
class Values:
    """What a job measured of one PUB.

    Attributes:
        evs: Expectations, of the PUB's shape.
        stds: Their standard errors, of the PUB's shape.
        shots: How many samples they come from, where the device reports it.
        mitigated: Whether errors were mitigated; then values may lie outside their observables' bounds.
    """

    evs: np.ndarray
    stds: np.ndarray
    shots: int | None = None
    mitigated: bool = False


@dataclass(frozen=True)
class Bits:
    """What a job measured of one PUB of a Sampler.

    Attributes:
        registers: The outcomes of each classical register of its circuit, in their order, of the PUB's shape.
    """

    registers: dict[str, BitArray]


def check_job(values: Sequence[Values | Bits], pubs: Sequence[Pub], where: str) -> None:
    """Check that what a job returned can be the values of its PUBs.

    Args:
        values: What it returned.
        pubs: What it was sent with.
        where: Its name, for the error.

    Raises:
        BackendError: For other numbers of values than the PUBs', values that no state gives, negative errors, or values
            from too few shots.
    """
    if any(isinstance(item, Bits) for item in values) or any(isinstance(pub, SamplerPub) for pub in pubs):
        _check_bits(values, pubs, where)
        return
    _check_values(values, pubs, where)  # type: ignore[arg-type]


def _check_bits(values: Sequence[Any], pubs: Sequence[Any], where: str) -> None:
    """Check that what a job returned are samples of its PUBs' classical registers."""
    found = [[(name, bits.num_bits, bits.shape) for name, bits in item.registers.items()] for item in values]
    expected = [[(each.name, each.size, pub.shape) for each in pub.circuit.cregs] for pub in pubs]
    if found != expected:
        raise BackendError(f"{where} returned registers {found}, expected (name, bits, shape) {expected}.")
    for item, pub in zip(values, pubs, strict=True):
        for name, bits in item.registers.items():
            if not LEAST_SHOTS * pub.shots <= bits.num_shots <= pub.shots:
                raise BackendError(f"{where} returned {bits.num_shots:,} samples of {name}, expected {pub.shots:,}.")


def _check_values(values: Sequence[Values], pubs: Sequence[EstimatorPub], where: str) -> None:
    found = [(np.shape(item.evs), np.shape(item.stds)) for item in values]
    expected = [(pub.shape, pub.shape) for pub in pubs]
    if found != expected:
        raise BackendError(f"{where} returned values and errors of shapes {found}, expected {expected}.")
    for item, pub in zip(values, pubs, strict=True):
        evs, stds = real(item.evs, where), real(item.stds, where)
        check_values(evs, bounds(pub.observables), pub.precision or 0.0, where, mitigated=item.mitigated)
        if (stds < 0).any():  # NaN is an error that is not known
            raise BackendError(f"{where} returned standard errors below 0, such as {np.nanmin(stds):.4g}.")
        if item.shots is not None and pub.precision:
            check_shots(item.shots, pub.precision, where)


class Device(Protocol):
    """A device of a provider. One call is one attempt; retries and bookkeeping are the caller's.

    Two members are optional: ``is_simulator``, whether it is a simulator, and ``calibration(circuits, before)``, which
    returns the :class:`Calibration` of transpiled circuits as it was at a time, or the nearest there is.

    All methods raise :class:`TransientBackendError` for what may pass (a dropped connection, a busy service) and
    another :class:`BackendError` for what will not. A device that takes no PUBs of a Sampler says so in the latter.

    Attributes:
        name: Provider and device, such as ``ibm:ibm_fez``; the key of its circuit breaker.
        settings: Everything besides the PUBs that changes what a job returns, such as mitigation; part of its key.
        paid: Whether jobs cost money or metered time.
    """

    name: str
    settings: str
    paid: bool

    def submit(self, pubs: Sequence[Pub], precision: float, tag: str) -> str:
        r"""Send one job, marked with a tag, and return its id.

        The precision of a Sampler's PUBs is that of their shots N, :math:`1 / \sqrt N`.

        Raises:
            TransientBackendError: If the device may have the job, or, with ``unsent``, has not but may take it later.
            BackendError: If the device has refused it.
        """

    def find(self, tag: str) -> list[str]:
        """Return the ids of the jobs that carry a tag, those cancelled or failed left out, oldest first."""

    def status(self, job_id: str) -> JobStatus:
        """Return the status of a job."""

    def result(self, job_id: str, pubs: Sequence[Pub]) -> Sequence[Values | Bits]:
        """Return the values of a finished job, one entry per PUB that it was sent with.

        Raises:
            TransientBackendError: If what came is not a result of these PUBs.
            JobError: If the device says that the job has failed.
        """

    def usage(self, job_id: str) -> Cost:
        """Return the cost of a finished job."""

    def cancel(self, job_id: str) -> None:
        """Cancel a job that has not finished."""

    def abandon(self, tag: str) -> None:
        """Cancel the parts of an incomplete job with a tag, where a job has parts."""

    def estimate(self, pubs: Sequence[Pub], precision: float) -> Cost:
        """Return the estimated cost of a job; nothing is sent."""
