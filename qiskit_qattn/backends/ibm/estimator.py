"""Qiskit Runtime's Estimator and what it does besides running circuits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class EstimatorSettings:
    """What Qiskit Runtime's Estimator does besides running circuits.

    Attributes:
        resilience: 0 for raw values; 1 mitigates readout errors; 2 also extrapolates to zero gate noise.
        twirling: Whether two-qubit gates are twirled; None leaves it to the resilience level.
        decoupling: The dynamical decoupling sequence of idle qubits, or None.
        seed: Seed of the simulation of a snapshot; each job draws its own from it.
        noise: Whether a snapshot's noise is simulated.
    """

    resilience: Literal[0, 1, 2] = 1
    twirling: bool | None = None
    decoupling: Literal["XX", "XpXm", "XY4"] | None = None
    seed: int | None = None
    noise: bool = True

    def options(self, tag: str, limit: int | None, seed: int | None) -> dict[str, Any]:
        """Return the Estimator's options for one job, of at most ``limit`` seconds."""
        options: dict[str, Any] = {"resilience_level": self.resilience, "environment": {"job_tags": [tag]}}
        if self.twirling is not None:
            options["twirling"] = {"enable_gates": self.twirling}
        if self.decoupling is not None:
            options["dynamical_decoupling"] = {"enable": True, "sequence_type": self.decoupling}
        if limit is not None:
            options["max_execution_time"] = limit
        if seed is not None:
            options["simulator"] = {"seed_simulator": seed}
        return options


def runtime_estimator(mode: Any, options: dict[str, Any]) -> Any:
    """Return Qiskit Runtime's Estimator: the one of 0.50 and later, or the older one."""
    try:
        from qiskit_ibm_runtime.executor_estimator import Estimator
    except ImportError:
        from qiskit_ibm_runtime import EstimatorV2 as Estimator
    return Estimator(mode=mode, options=options)
