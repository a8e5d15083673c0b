"""Options that backend strings of several providers share: sampling, and what jobs on a device may do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from qiskit_qattn.backends.gradients import GRADIENT_OPTIONS
from qiskit_qattn.backends.jobs.device import RETRIES
from qiskit_qattn.backends.registry import NoSampler, precision_of
from qiskit_qattn.backends.spec import BackendSpec
from qiskit_qattn.errors import ConfigError, unknown_name
from qiskit_qattn.simulation.sampler import SHOTS

DEDUPE_OPTION = {
    "dedupe": "on: equal rows of a batch share their samples, the default; off: each row is sampled and paid for"
}
PRECISION_OPTION = {
    "precision": "in place of shots: the largest standard error of an expectation, such as 0.02; each circuit gets the "
    "samples per measurement basis that its observables take"
}
SAMPLING_OPTIONS = {
    "shots": "samples per measurement basis; exact values without it and without precision",
    **PRECISION_OPTION,
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
#: Why a backend string has no sampler.
_MITIGATED = "Mitigation corrects expectations, not samples: for a sampler leave mitigation out of the backend string."
_TILED = "A sampler's circuits are where their layout puts them: for one leave tiles out of the backend string."
DEVICE_MODULES = ("platformdirs", "pybreaker", "tenacity")  # what devices need besides an SDK


@dataclass(frozen=True)
class Sampling:
    """How expectations and outcomes are sampled.

    Attributes:
        shots: Samples per measurement basis; None for exact values, or where they follow from a precision.
        precision: The standard error of an expectation; 0 for exact values.
        seed: Seed of the sampling, or None.
        dedupe: Whether equal rows share their samples.
    """

    shots: int | None
    precision: float
    seed: int | None
    dedupe: bool

    @property
    def of_samplers(self) -> dict[str, Any]:
        """The options of a :class:`LocalSampler`; a precision is met by the outcomes of any Pauli string."""
        shots = self.shots or (math.ceil(1 / self.precision**2) if self.precision else SHOTS)
        return {"default_shots": shots, "seed": self.seed, "dedupe": self.dedupe}


def sampling_option(spec: BackendSpec) -> Sampling:
    """Return how a backend string asks to sample.

    Raises:
        ConfigError: For ``shots`` below 1 or ``seed`` below 0, a ``precision`` as :func:`shots_option` says, or
            ``dedupe`` for exact values.
        UnknownNameError: For another value of ``dedupe`` than on and off.
    """
    (shots, precision), seed = shots_option(spec), spec.integer("seed", minimum=0)
    return Sampling(shots, precision, seed, dedupe_option(spec, sampled=precision > 0))


def shots_option(spec: BackendSpec, default: int | None = None, most: int = 2**31 - 1) -> tuple[int | None, float]:
    """Return the shots that a backend string asks for, None where they follow from its precision, and the precision.

    Args:
        spec: The parsed string.
        default: Shots where it asks for neither; None for exact values, of precision 0.
        most: Largest number of shots.

    Raises:
        ConfigError: For shots and precision together, shots out of range, or a precision above 1 or for more shots.
    """
    shots, text = spec.integer("shots", minimum=1, maximum=most), spec.options.get("precision")
    if text is None:
        shots = shots or default
        return shots, 0.0 if shots is None else precision_of(shots)
    if shots is not None:
        raise ConfigError(f"Shots follow from a precision, but {str(spec)!r} has both: leave shots or precision out.")
    try:
        precision = float(text)
    except ValueError:
        precision = math.nan
    if not most**-0.5 <= precision <= 1:
        raise ConfigError(
            f"Backend option precision is a standard error, a number from {most**-0.5:.1e} to 1 such as 0.02, got "
            f"{text!r}."
        )
    return None, precision


def dedupe_option(spec: BackendSpec, *, sampled: bool) -> bool:
    """Return whether equal rows share their samples.

    Args:
        spec: The parsed string.
        sampled: Whether values are sampled.

    Raises:
        UnknownNameError: For another value than on and off.
        ConfigError: For exact values, which are equal for equal rows.
    """
    value = spec.options.get("dedupe")
    if value is None:
        return True
    if value not in ("on", "off"):
        raise unknown_name("dedupe", value, ("on", "off"))
    if not sampled:
        raise ConfigError(
            f"dedupe is for sampled values, but {str(spec)!r} is exact, so that equal rows have equal values: give "
            f"shots, or leave dedupe out."
        )
    return value == "on"


def without_sampler(spec: BackendSpec) -> NoSampler | None:
    """Return what takes the place of a sampler where a backend string asks for what none does; None where none does."""
    if "mitigation" in spec.options:
        return NoSampler(_MITIGATED)
    return NoSampler(_TILED) if "tiles" in spec.options else None
