"""The options ``shots`` and ``seed`` of backend strings."""

from __future__ import annotations

from dataclasses import dataclass

from qiskit_qattn.backends.gradients import GRADIENT_OPTIONS
from qiskit_qattn.backends.registry import precision_of
from qiskit_qattn.backends.spec import BackendSpec

SAMPLING_OPTIONS = {
    "shots": "samples a measurement basis; exact values without it",
    "seed": "seed of the sampling",
    **GRADIENT_OPTIONS,
}


@dataclass(frozen=True)
class Sampling:
    """How expectations are sampled.

    Attributes:
        shots: Samples a measurement basis, or None for exact values.
        precision: The standard error that they give; 0 for exact values.
        seed: Seed of the sampling, or None.
    """

    shots: int | None
    precision: float
    seed: int | None


def sampling_option(spec: BackendSpec) -> Sampling:
    """Return how a backend string asks to sample.

    Raises:
        ConfigError: For ``shots`` below 1 or ``seed`` below 0.
    """
    shots, seed = spec.integer("shots", minimum=1), spec.integer("seed", minimum=0)
    return Sampling(shots, 0.0 if shots is None else precision_of(shots), seed)
