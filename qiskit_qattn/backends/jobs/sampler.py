"""A Sampler over a queued, perhaps paid, device, beside its Estimator: the same ledger, budget and session."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from qiskit.primitives import (
    BasePrimitiveJob,
    BaseSamplerV2,
    DataBin,
    PrimitiveJob,
    PrimitiveResult,
    SamplerPubResult,
)
from qiskit.primitives.containers.sampler_pub import SamplerPub, SamplerPubLike

from qiskit_qattn.backends.jobs.device import Bits
from qiskit_qattn.backends.jobs.request import Request
from qiskit_qattn.backends.jobs.runner import JobRunner
from qiskit_qattn.errors import ConfigError
from qiskit_qattn.simulation.sampler import MergedPubs


class ManagedSampler(BaseSamplerV2):
    """A ``BaseSamplerV2`` over a :class:`Device`. A run is one job, recorded in the ledger before it is sent.

    Args:
        runner: The Estimator of the device, whose ledger and budget it shares.
        shots: Samples of each circuit where a run gives none.
        dedupe: Whether equal circuits with equal parameters are measured once, and so share their samples.
    """

    def __init__(self, runner: JobRunner, *, shots: int, dedupe: bool = True) -> None:
        self.runner, self.default_shots, self.dedupe = runner, shots, dedupe

    def run(self, pubs: Iterable[SamplerPubLike], *, shots: int | None = None) -> BasePrimitiveJob[Any, Any]:
        """Send PUBs as one job, unless they were sent before.

        Args:
            pubs: Circuits in the gates of the device, or tuples of one, its parameter values and shots, the same for
                all.
            shots: Samples of each circuit and set of parameters where a PUB gives none.

        Raises:
            ConfigError: For PUBs of several numbers of shots, or a circuit without classical registers; for a job that
                another device has than the one chosen.
            CircuitError: For parameter values that are not finite.
            BudgetError: If the job would pass the budget, or the device is paid and there is none; nothing was sent.
            JobError: (from ``result``) if the job failed or was cancelled.
            BackendError: If the device refuses the job or does not answer.
        """
        merged = self._merged(pubs, shots)

        def results(_: Request, values: Sequence[Bits], about: Mapping[str, Any]) -> list[SamplerPubResult]:
            found = [
                SamplerPubResult(DataBin(**item.registers, shape=pub.shape), metadata=dict(about))
                for pub, item in zip(merged.pubs, values, strict=True)
            ]
            return merged.split(found)

        if not merged.pubs:  # of no parameter sets
            nothing: PrimitiveJob[Any] = PrimitiveJob(lambda: PrimitiveResult(merged.split([]), {"version": 2}))
            nothing._submit()
            return nothing
        return self.runner.start(self._request(merged), results)

    def request(self, pubs: Iterable[SamplerPubLike], *, shots: int | None = None) -> Request:
        """Return what a run of PUBs sends, whose key the ledger has."""
        return self._request(self._merged(pubs, shots))

    def _merged(self, pubs: Iterable[SamplerPubLike], shots: int | None) -> MergedPubs:
        given = [SamplerPub.coerce(pub, self.default_shots if shots is None else shots) for pub in pubs]
        if any(not pub.circuit.cregs for pub in given):
            raise ConfigError(
                f"A circuit has no classical register, so that a job on {self.runner.device.name} would be paid for "
                f"nothing: add measurements, such as those of measure_all()."
            )
        return MergedPubs(given, dedupe=self.dedupe)

    def _request(self, merged: MergedPubs) -> Request:
        device = self.runner.device
        settings = getattr(device, "sampler_settings", device.settings)
        return Request.of_samples(merged.pubs, device.name, settings)

    def __deepcopy__(self, memo: dict[int, Any]) -> ManagedSampler:
        """Return this sampler: copies share the session, budget and ledger."""
        return self
