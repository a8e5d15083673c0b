"""An Estimator over a queued, perhaps paid, device: one job per run, from the ledger or new."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from qiskit.primitives import BaseEstimatorV2, BasePrimitiveJob, DataBin, PubResult
from qiskit.primitives.containers.estimator_pub import EstimatorPubLike

from qiskit_qattn.backends.jobs.budget import Budget
from qiskit_qattn.backends.jobs.device import RETRIES, Device, Values
from qiskit_qattn.backends.jobs.ledger import Ledger
from qiskit_qattn.backends.jobs.request import Request
from qiskit_qattn.backends.jobs.runner import JobRunner
from qiskit_qattn.backends.spec import BackendSpec
from qiskit_qattn.backends.values import bounds, outside
from qiskit_qattn.errors import ConfigError


def managed_estimator(spec: BackendSpec, device: Device, *, precision: float, choice: str = "") -> ManagedEstimator:
    """Return the estimator of a backend string, with ``DEVICE_OPTIONS`` read and the user's ledger.

    Args:
        spec: The parsed string.
        device: The device it names.
        precision: Target standard error, above 0.
        choice: What the device was chosen by, such as ``ibm:least_busy``; empty if it was named.

    Raises:
        ConfigError: For a bad value of an option.
    """
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
        choice=choice,
    )


class ManagedEstimator(JobRunner, BaseEstimatorV2):
    """A ``BaseEstimatorV2`` over a :class:`Device`. A run is one job, recorded in the ledger before it is sent.

    Args:
        device: Where jobs run.
        precision: Target standard error where a run gives none.
        options: The options of :class:`JobRunner`.
    """

    def __init__(self, device: Device, *, precision: float = 0.015625, **options: Any) -> None:
        super().__init__(device, **options)
        self.precision = precision

    def run(self, pubs: Iterable[EstimatorPubLike], *, precision: float | None = None) -> BasePrimitiveJob[Any, Any]:
        """Send PUBs as one job, unless they were sent before.

        Args:
            pubs: Tuples of circuit, observables, parameter values and, optionally, precision, the same for all.
            precision: Target standard error, above 0.

        Raises:
            ConfigError: For a precision of 0, or several; for a job that another device has than the one chosen.
            BudgetError: If the job would pass the budget, or the device is paid and there is none; nothing was sent.
            JobError: (from ``result``) if the job failed or was cancelled.
            BackendError: If the device refuses the job or does not answer.
        """
        target = self.precision if precision is None else precision
        return self.start(Request.of(pubs, target, self.device.name, self.device.settings), _results)


def _results(request: Request, values: Sequence[Values], about: Mapping[str, Any]) -> list[PubResult]:
    """Return a job's stored values as an Estimator returns them."""
    results = []
    for pub, item in zip(request.pubs, values, strict=True):
        beyond = int(outside(item.evs, bounds(pub.observables), request.precision).sum())
        metadata = {**about, **({"mitigated": True, "outside_bounds": beyond} if beyond else {})}
        metadata |= {"target_precision": pub.precision, "circuit_metadata": pub.circuit.metadata}
        results.append(PubResult(DataBin(evs=item.evs, stds=item.stds, shape=pub.shape), metadata=metadata))
    return results
