"""Options that backend strings of several providers share: sampling, and what jobs on a device may do."""

from __future__ import annotations

from dataclasses import dataclass

from qiskit_qattn.backends.gradients import GRADIENT_OPTIONS
from qiskit_qattn.backends.jobs.device import RETRIES
from qiskit_qattn.backends.registry import precision_of
from qiskit_qattn.backends.spec import BackendSpec
from qiskit_qattn.errors import ConfigError, unknown_name

DEDUPE_OPTION = {
    "dedupe": "on: equal rows of a batch share their samples, the default; off: each row is sampled and paid for"
}
SAMPLING_OPTIONS = {
    "shots": "samples per measurement basis; exact values without it",
    "seed": "seed of the sampling",
    **GRADIENT_OPTIONS,
    **DEDUPE_OPTION,
}
DEVICE_OPTIONS = {
    "budget": "what all jobs may cost: seconds on the processor (60s), US dollars (5usd), or unlimited",
    "cache": "on, the default: a request that was answered before gets the stored result; off: it is sent again",
    "timeout": "seconds to wait for a job before giving up, without cancelling it; no limit by default",
    "retries": f"how often a call is repeated after a transient error; {RETRIES} by default",
}
DEVICE_MODULES = ("platformdirs", "pybreaker", "tenacity")  # what devices need besides an SDK


@dataclass(frozen=True)
class Sampling:
    """How expectations are sampled.

    Attributes:
        shots: Samples per measurement basis, or None for exact values.
        precision: Their standard error; 0 for exact values.
        seed: Seed of the sampling, or None.
        dedupe: Whether equal rows share their samples.
    """

    shots: int | None
    precision: float
    seed: int | None
    dedupe: bool


def sampling_option(spec: BackendSpec) -> Sampling:
    """Return how a backend string asks to sample.

    Raises:
        ConfigError: For ``shots`` below 1 or ``seed`` below 0, or ``dedupe`` without shots.
        UnknownNameError: For another value of ``dedupe`` than on and off.
    """
    shots, seed = spec.integer("shots", minimum=1), spec.integer("seed", minimum=0)
    return Sampling(shots, 0.0 if shots is None else precision_of(shots), seed, dedupe_option(spec, shots))


def dedupe_option(spec: BackendSpec, shots: int | None) -> bool:
    """Return whether equal rows share their samples.

    Args:
        spec: The parsed string.
        shots: Samples per measurement basis, or None for exact values.

    Raises:
        UnknownNameError: For another value than on and off.
        ConfigError: For exact values, which are equal for equal rows.
    """
    value = spec.options.get("dedupe")
    if value is None:
        return True
    if value not in ("on", "off"):
        raise unknown_name("dedupe", value, ("on", "off"))
    if shots is None:
        raise ConfigError(
            f"dedupe is for sampled values, but {str(spec)!r} is exact, so that equal rows have equal values: give "
            f"shots, or leave dedupe out."
        )
    return value == "on"
