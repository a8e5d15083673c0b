"""A Sampler over a queued, perhaps paid, device, beside its Estimator: the same ledger, budget and session."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from qiskit.primitives import BasePrimitiveJob, BaseSamplerV2, DataBin, SamplerPubResult
from qiskit.primitives.containers.sampler_pub import SamplerPubLike

from qiskit_qattn.backends.jobs.device import Bits
from qiskit_qattn.backends.jobs.request import Request
from qiskit_qattn.backends.jobs.runner import JobRunner
from qiskit_qattn.backends.measurement import shots_of
from qiskit_qattn.backends.options import without_sampler
from qiskit_qattn.backends.registry import precision_of
from qiskit_qattn.backends.spec import BackendSpec
from qiskit_qattn.simulation.sampler import MergedPubs, coerced


def managed_sampler(spec: BackendSpec, runner: JobRunner, *, precision: float, dedupe: bool) -> BaseSamplerV2:
    """Return the sampler of a backend string, on the device of its estimator.

    Args:
        spec: The parsed string.
        runner: The estimator.
        precision: Its precision, whose shots a run takes if it gives none.
        dedupe: Whether equal circuits with equal parameters share samples.
    """
    return without_sampler(spec) or ManagedSampler(runner, shots=shots_of(precision), dedupe=dedupe)


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
            ConfigError: For PUBs of several numbers of shots; for a job that another device has than the one chosen.
            BudgetError: If the job would pass the budget, or the device is paid and there is none; nothing was sent.
            JobError: (from ``result``) if the job failed or was cancelled.
            BackendError: If the device refuses the job or does not answer.
        """
        merged = MergedPubs(coerced(pubs, self.default_shots if shots is None else shots), dedupe=self.dedupe)
        device = self.runner.device
        settings = getattr(device, "sampler_settings", device.settings)
        precision = precision_of(merged.pubs[0].shots if merged.pubs else 1)
        request = Request.of_samples(merged.pubs, precision, device.name, settings)

        def results(_: Request, values: Sequence[Bits], about: Mapping[str, Any]) -> list[SamplerPubResult]:
            found = [
                SamplerPubResult(DataBin(**item.registers, shape=pub.shape), metadata=dict(about))
                for pub, item in zip(merged.pubs, values, strict=True)
            ]
            return merged.split(found)

        return self.runner.start(request, results)

    def __deepcopy__(self, memo: dict[int, Any]) -> ManagedSampler:
        """Return this sampler: copies share the session, budget and ledger."""
        return self
