"""An estimator that counts what it is asked for: circuits, PUBs, jobs and shots."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.primitives import BaseEstimatorV2, BasePrimitiveJob, DataBin, PrimitiveJob, PrimitiveResult, PubResult
from qiskit.primitives.containers.estimator_pub import EstimatorPub, EstimatorPubLike

from qiskit_qattn.backends.jobs.device import Cost, Device
from qiskit_qattn.backends.measurement import Plan, shots_of
from qiskit_qattn.backends.mitigation import Mitigation
from qiskit_qattn.backends.values import bounds


class CountingEstimator(BaseEstimatorV2):
    """Counts what it is asked for, and returns arbitrary values or what another estimator returns.

    Args:
        device: Estimates each job; None for a simulator in this process, where a circuit is a set of parameters in one
            measurement basis, or exact values of a set of parameters.
        estimator: Evaluates the jobs; None to run nothing and return arbitrary values, since gradients of
            zeros would need no circuits.
        default_precision: Precision where a run gives none.
        mitigation: How a simulator in this process mitigates errors, or None.

    Attributes:
        jobs: The cost of each job.
        pubs: For each job, the number of parameter sets of each of its PUBs.
        circuits: The circuits that came, each once.
    """

    def __init__(
        self,
        device: Device | None = None,
        *,
        estimator: BaseEstimatorV2 | None = None,
        default_precision: float = 0.0,
        mitigation: Mitigation | None = None,
    ) -> None:
        self.mitigation = mitigation or Mitigation(methods=())
        self.device, self.estimator, self.default_precision = device, estimator, default_precision
        self.jobs: list[Cost] = []
        self.pubs: list[list[int]] = []
        self.circuits: dict[int, QuantumCircuit] = {}
        self._known: dict[Hashable, Cost] = {}
        self._rng = np.random.default_rng(0)

    @property
    def total(self) -> Cost:
        """The cost of all jobs."""
        return sum(self.jobs, Cost())

    @property
    def first(self) -> Cost | None:
        """The cost of the first job, or None before it came."""
        return self.jobs[0] if self.jobs else None

    def run(self, pubs: Iterable[EstimatorPubLike], *, precision: float | None = None) -> BasePrimitiveJob[Any, Any]:
        """Count a job. Jobs with the same circuits, observables and shapes cost the same.

        Args:
            pubs: As for any estimator.
            precision: Target standard error; 0 asks for exact values.
        """
        target = self.default_precision if precision is None else precision
        coerced = [EstimatorPub.coerce(pub, target) for pub in pubs]
        self.circuits |= {id(pub.circuit): pub.circuit for pub in coerced}
        keys = [_key(pub) for pub in coerced]
        known = (target, *keys)
        if known not in self._known:
            self._known[known] = self._cost(coerced, keys, target)
        self.jobs.append(self._known[known])
        self.pubs.append([pub.parameter_values.size for pub in coerced])
        if self.estimator is not None:
            return self.estimator.run(coerced, precision=target)
        values = [self._rng.uniform(-1, 1, pub.shape) * bounds(pub.observables) for pub in coerced]
        data = [DataBin(evs=evs, stds=np.zeros_like(evs), shape=evs.shape) for evs in values]
        job: PrimitiveJob[Any] = PrimitiveJob(PrimitiveResult, [PubResult(item) for item in data])
        job._submit()
        return job

    def _cost(self, pubs: Sequence[EstimatorPub], keys: Sequence[Hashable], precision: float) -> Cost:
        if self.device is not None:
            return self.device.estimate(pubs, precision)
        one_each = dict(zip(keys, pubs, strict=True))
        sizes = {key: Plan(pub).size if precision else pub.parameter_values.size for key, pub in one_each.items()}
        circuits = self.mitigation.circuits(sum(sizes[key] for key in keys))
        shots = self.mitigation.shots(shots_of(precision)) if precision else 0
        return Cost(jobs=1, circuits=circuits, shots=circuits * shots)


def _key(pub: EstimatorPub) -> Hashable:
    """Return everything that the cost of a PUB depends on."""
    observables = tuple(tuple(sorted(terms.items())) for terms in pub.observables.ravel().tolist())
    return id(pub.circuit), observables, pub.observables.shape, pub.parameter_values.shape
