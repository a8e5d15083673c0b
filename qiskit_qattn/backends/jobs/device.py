"""What a queued, perhaps paid, device offers, so that no job is paid for twice and none is lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from qiskit.primitives.containers.estimator_pub import EstimatorPub

State = Literal["queued", "running", "done", "failed", "cancelled", "lost"]
RETRIES = 5  # how often a call that failed for a while is repeated, unless told otherwise


@dataclass(frozen=True)
class JobStatus:
    """Where a job stands.

    Attributes:
        state: One of the six states; the last four are final. A ``lost`` job ran in a process that has ended: there is
            nothing to wait for, and nothing was paid.
        position: Place in the device's queue, where it tells.
        message: Why it failed, in the provider's words.
    """

    state: State
    position: int | None = None
    message: str = ""


@dataclass(frozen=True)
class Cost:
    """What jobs take, estimated before or billed after.

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

    All methods raise :class:`TransientBackendError` for what may pass by itself (a dropped connection, a busy service)
    and another :class:`BackendError` for what will not.

    Attributes:
        name: Provider and device, such as ``ibm:ibm_fez``; what a circuit breaker and the audit trail go by.
        settings: All that changes what a job returns besides its PUBs, such as mitigation; part of a job's key.
        paid: Whether jobs cost money or metered time.
    """

    name: str
    settings: str
    paid: bool

    def submit(self, pubs: Sequence[EstimatorPub], precision: float, tag: str) -> str:
        """Send one job, marked with a tag, and return its id."""

    def find(self, tag: str) -> list[str]:
        """Return the ids of the jobs that carry a tag, those cancelled or failed left out, oldest first."""

    def status(self, job_id: str) -> JobStatus:
        """Return where a job stands."""

    def result(self, job_id: str, pubs: Sequence[EstimatorPub]) -> list[Values]:
        """Return what a finished job measured, one entry a PUB of those it was sent with."""

    def usage(self, job_id: str) -> Cost:
        """Return what a finished job took."""

    def cancel(self, job_id: str) -> None:
        """Cancel a job that has not finished."""

    def abandon(self, tag: str) -> None:
        """Cancel the parts of a job that carry a tag but never became a whole job, where jobs have parts."""

    def estimate(self, pubs: Sequence[EstimatorPub], precision: float) -> Cost:
        """Return what a job would take; nothing is sent."""
