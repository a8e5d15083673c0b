"""What all estimators of this process share: precision, coercion, and a job that runs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

import numpy as np
from qiskit.primitives import BaseEstimatorV2, PrimitiveJob, PrimitiveResult, PubResult
from qiskit.primitives.containers.estimator_pub import EstimatorPub, EstimatorPubLike

from qiskit_qattn.errors import ConfigError


class LocalEstimator(BaseEstimatorV2):
    """A ``BaseEstimatorV2`` whose jobs run in this process.

    Args:
        default_precision: Precision where a run gives none; 0 asks for exact values.
        seed: Seed of the sampling. Successive runs continue one stream of random numbers, so noise is never repeated.
    """

    def __init__(self, *, default_precision: float = 0.0, seed: int | None = None) -> None:
        self._default_precision = default_precision
        self._rng = np.random.default_rng(seed)

    @property
    def default_precision(self) -> float:
        """Precision where a run gives none."""
        return self._default_precision

    def run(self, pubs: Iterable[EstimatorPubLike], *, precision: float | None = None) -> PrimitiveJob[Any]:
        """Evaluate PUBs.

        Args:
            pubs: Tuples of circuit, observables, parameter values and, optionally, precision.
            precision: Precision of the PUBs that bring none of their own.

        Raises:
            ConfigError: For a negative precision.
            QattnError: (from the job) for what the estimator's class cannot evaluate.
        """
        default = self._default_precision if precision is None else precision
        if not default >= 0:  # NaN included
            raise ConfigError(f"precision must be 0 (exact) or positive, got {default}.")
        coerced = [EstimatorPub.coerce(pub, default) for pub in pubs]
        job: PrimitiveJob[Any] = PrimitiveJob(self._run, coerced)
        job._submit()
        return job

    def _run(self, pubs: list[EstimatorPub]) -> PrimitiveResult[PubResult]:
        return PrimitiveResult(self._evaluate(pubs), metadata={"version": 2})

    @abstractmethod
    def _evaluate(self, pubs: list[EstimatorPub]) -> list[PubResult]:
        """Return the result of each PUB."""
