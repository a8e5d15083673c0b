"""The interface of a queued, perhaps paid, device, so that no job is paid for twice and none is lost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from qiskit.primitives.containers.estimator_pub import EstimatorPub

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
class Values:
    """What a job measured of one PUB: expectations and their standard errors, both of the PUB's shape."""

    evs: np.ndarray
    stds: np.ndarray


class Device(Protocol):
    """A device of a provider. One call is one attempt; retries and bookkeeping are the caller's.

    All methods raise :class:`TransientBackendError` for what may pass (a dropped connection, a busy service) and
    another :class:`BackendError` for what will not.

    Attributes:
        name: Provider and device, such as ``ibm:ibm_fez``; the key of its circuit breaker.
        settings: Everything besides the PUBs that changes what a job returns, such as mitigation; part of its key.
        paid: Whether jobs cost money or metered time.
    """

    name: str
    settings: str
    paid: bool

    def submit(self, pubs: Sequence[EstimatorPub], precision: float, tag: str) -> str:
        """Send one job, marked with a tag, and return its id.

        Raises:
            TransientBackendError: If the device may have the job, or, with ``unsent``, has not but may take it later.
            BackendError: If the device has refused it.
        """

    def find(self, tag: str) -> list[str]:
        """Return the ids of the jobs that carry a tag, those cancelled or failed left out, oldest first."""

    def status(self, job_id: str) -> JobStatus:
        """Return the status of a job."""

    def result(self, job_id: str, pubs: Sequence[EstimatorPub]) -> list[Values]:
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

    def estimate(self, pubs: Sequence[EstimatorPub], precision: float) -> Cost:
        """Return the estimated cost of a job; nothing is sent."""
