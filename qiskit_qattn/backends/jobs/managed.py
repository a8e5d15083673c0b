"""An Estimator over a queued, perhaps paid, device: one job a run, none lost, none sent twice, none past the budget."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

from qiskit.primitives import BaseEstimatorV2, BasePrimitiveJob, PrimitiveJob, PrimitiveResult
from qiskit.primitives.containers.estimator_pub import EstimatorPubLike

from qiskit_qattn.backends.jobs.budget import Budget, no_budget
from qiskit_qattn.backends.jobs.device import RETRIES, Cost, Device
from qiskit_qattn.backends.jobs.request import Request
from qiskit_qattn.backends.spec import BackendSpec
from qiskit_qattn.errors import BudgetError, ConfigError

if TYPE_CHECKING:
    from qiskit_qattn.backends.jobs.ledger import Ledger
    from qiskit_qattn.backends.jobs.ledger_rows import Row

DEVICE_OPTIONS = {
    "budget": "what all jobs may take: seconds on the processor (60s), US dollars (5usd), or unlimited",
    "cache": "on, the default: a request that was answered before takes the stored answer; off: it is sent again",
    "timeout": "seconds to wait for a job before giving up, without cancelling it; no limit by default",
    "retries": f"how often a call that failed for a while is repeated; {RETRIES} by default",
}
DEVICE_MODULES = (
    "platformdirs",
    "psutil",
    "pybreaker",
    "tenacity",
)  # what a provider of a device needs besides its SDK


class ManagedEstimator(BaseEstimatorV2):
    """A ``BaseEstimatorV2`` over a :class:`Device`. A run is one job, written to the ledger before it is sent.

    A request that was answered before takes the stored result. One whose job is on its way, sent by this process or by
    another that lives or was killed, waits for that job.

    Args:
        device: Where jobs run.
        ledger: Where they are written down.
        budget: What this estimator's jobs together may take; needed where the device is paid.
        cache: Whether stored results will do. Without, each run is a new job, except that a job which nobody waits for
            any more is picked up.
        precision: Target standard error where a run gives none.
        timeout: Seconds to wait for a job, or None for no limit.
        retries: How often a call to the device that failed for a while is repeated.

    Attributes:
        jobs_sent: Jobs that were sent.
        jobs_cached: Requests that stored results answered.
        jobs_attached: Requests that a job on its way answered.
    """

    def __init__(
        self,
        device: Device,
        *,
        ledger: Ledger,
        budget: Budget | None = None,
        cache: bool = True,
        precision: float = 0.015625,
        timeout: float | None = None,
        retries: int = RETRIES,
    ) -> None:
        from qiskit_qattn.backends.jobs.courier import Courier

        self.device, self.ledger, self.budget = device, ledger, budget
        self.cache, self.precision, self.timeout = cache, precision, timeout
        self.courier = Courier(ledger, device, retries)
        self.jobs_sent = self.jobs_cached = self.jobs_attached = 0
        self._charges: dict[int, Cost] = {}  # of rows of the ledger: estimated, then actual
        self._lock = threading.Lock()

    @property
    def spent(self) -> Cost:
        """What this estimator's jobs took, those on their way as estimated. Stored results cost nothing."""
        with self._lock:
            return self._total()

    def run(self, pubs: Iterable[EstimatorPubLike], *, precision: float | None = None) -> BasePrimitiveJob[Any, Any]:
        """Send PUBs as one job, unless they were sent before.

        Args:
            pubs: Tuples of circuit, observables, parameter values and, optionally, precision, the same for all.
            precision: Target standard error, above 0.

        Raises:
            ConfigError: For a precision of 0, or several.
            BudgetError: If the job would pass the budget, or the device is paid and there is none; nothing was sent.
            JobError: (from ``result``) if the job failed or was cancelled.
            BackendError: If the device refuses the job or does not answer.
        """
        from qiskit_qattn.backends.jobs.managed_job import ManagedJob

        target = self.precision if precision is None else precision
        request = Request.of(pubs, target, self.device.name, self.device.settings)
        if request.pubs:
            return ManagedJob(self, request)
        empty: PrimitiveJob[Any] = PrimitiveJob(PrimitiveResult, [])
        empty._submit()
        return empty

    def __deepcopy__(self, memo: dict[int, Any]) -> ManagedEstimator:
        """Return this estimator: a copy of what runs on a device has the same session, budget and ledger."""
        return self

    def open(self, request: Request, owner: str, estimate: Cost) -> Row | None:
        """Write a request down as about to be sent, if the budget allows; None if another process has just done so."""
        with self._lock:  # no other job of this estimator may come between the check and the charge
            self._check(estimate, self._total())
            row = self.ledger.open(request, owner, estimate, cached=self.cache)
            if row is not None:
                self._charges[row.id] = estimate
            return row

    def reserve(self, row: Row) -> None:
        """Charge for a row that is to be sent after all, if the budget allows."""
        with self._lock:
            self._charges.pop(row.id, None)
            try:
                self._check(row.estimate, self._total())
            except BudgetError as error:
                self.ledger.close(row.id, "failed", str(error), Cost())
                raise
            self._charges[row.id] = row.estimate

    def charge(self, row: Row) -> None:
        """Charge for a row what is known of its cost."""
        with self._lock:
            self._charges[row.id] = row.cost

    def settle(self, row: Row) -> None:
        """Replace what was charged for a row, if anything was, by what its job took."""
        with self._lock:
            if row.id in self._charges:
                self._charges[row.id] = row.cost

    def _total(self) -> Cost:
        return reduce(add, self._charges.values(), Cost())

    def _check(self, estimate: Cost, spent: Cost) -> None:
        if self.budget is not None:
            self.budget.check(self.device.name, estimate, spent)
        elif self.device.paid:
            raise no_budget(self.device.name, estimate)


def managed_estimator(spec: BackendSpec, device: Device, *, precision: float) -> ManagedEstimator:
    """Return the estimator of a backend string, with ``DEVICE_OPTIONS`` read and the user's ledger.

    Args:
        spec: The parsed string.
        device: The device it names.
        precision: Target standard error, above 0.

    Raises:
        ConfigError: For a bad value of an option.
    """
    from qiskit_qattn.backends.jobs.ledger import Ledger

    cache = spec.options.get("cache", "on")
    if cache not in ("on", "off"):
        raise ConfigError(f"Backend option cache must be on or off, got {cache!r}.")
    budget, retries = spec.options.get("budget"), spec.integer("retries", minimum=0, maximum=100)
    return ManagedEstimator(
        device,
        ledger=Ledger(),
        budget=None if budget is None else Budget.parse(budget),
        cache=cache == "on",
        precision=precision,
        timeout=spec.integer("timeout", minimum=1),
        retries=RETRIES if retries is None else retries,
    )
