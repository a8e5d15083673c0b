"""What an estimator would be asked for, counted without running anything."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.primitives import BaseEstimatorV2, BasePrimitiveJob, DataBin, PrimitiveJob, PrimitiveResult, PubResult
from qiskit.primitives.containers.estimator_pub import EstimatorPub, EstimatorPubLike

from qiskit_qattn.backends.jobs.device import Cost, Device
from qiskit_qattn.backends.measurement import Plan, shots_of


class CountingEstimator(BaseEstimatorV2):
    """Counts the jobs it is given, and returns zeros.

    Args:
        device: Estimates each job; None for a simulator in this process, where a circuit is a set of parameters in one
            measurement basis, or exact values of a set of parameters.

    Attributes:
        total: What all jobs would take.
        first: What the first would take, or None before it came.
        circuits: The circuits that came, each once.
    """

    def __init__(self, device: Device | None = None) -> None:
        self.device = device
        self.total = Cost()
        self.first: Cost | None = None
        self.circuits: dict[int, QuantumCircuit] = {}
        self._known: dict[tuple[Any, ...], Cost] = {}

    def run(self, pubs: Iterable[EstimatorPubLike], *, precision: float | None = None) -> BasePrimitiveJob[Any, Any]:
        """Count a job. Jobs of the same circuits and shapes take the same.

        Args:
            pubs: As for any estimator.
            precision: Target standard error; 0 asks for exact values.
        """
        target = precision or 0.0
        coerced = [EstimatorPub.coerce(pub, target) for pub in pubs]
        self.circuits |= {id(pub.circuit): pub.circuit for pub in coerced}
        key = (target, *((id(pub.circuit), pub.shape, pub.parameter_values.shape) for pub in coerced))
        if key not in self._known:
            self._known[key] = self._cost(coerced, target)
        cost = self._known[key]
        self.total += cost
        if self.first is None:
            self.first = cost
        data = [DataBin(evs=np.zeros(pub.shape), stds=np.zeros(pub.shape), shape=pub.shape) for pub in coerced]
        job: PrimitiveJob[Any] = PrimitiveJob(PrimitiveResult, [PubResult(item) for item in data])
        job._submit()
        return job

    def _cost(self, pubs: Sequence[EstimatorPub], precision: float) -> Cost:
        if self.device is not None:
            return self.device.estimate(pubs, precision)
        if not precision:
            return Cost(jobs=1, circuits=sum(pub.parameter_values.size for pub in pubs))
        circuits = sum(Plan(pub).size for pub in pubs)
        return Cost(jobs=1, circuits=circuits, shots=circuits * shots_of(precision))
