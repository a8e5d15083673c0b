"""Options that backend strings of several providers share: sampling, and what jobs on a device may do."""

from __future__ import annotations

import logging
import re
import warnings
from dataclasses import dataclass

from qiskit_qattn.backends.gradients import GRADIENT_OPTIONS
from qiskit_qattn.backends.jobs.device import RETRIES
from qiskit_qattn.backends.registry import precision_of
from qiskit_qattn.backends.spec import BackendSpec
from qiskit_qattn.errors import ConfigError, unknown_name

_LOG = logging.getLogger("qiskit_qattn.backends")
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
TILE_OPTIONS = {
    "tiles": "auto, or a number: circuits that run side by side on the device's qubits; 1 by default",
    "tile_spacing": "idle qubits between circuits side by side: 1, the default, or 0",
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


class TilesWarning(UserWarning):
    """Only one circuit fits on a device that was to run several side by side."""


@dataclass(frozen=True)
class Tiles:
    """Which circuits run side by side.

    Attributes:
        count: How many, or None for as many as fit.
        spacing: Idle qubits between any two, 0 or 1.
    """

    count: int | None = None
    spacing: int = 1


def tiles_option(spec: BackendSpec) -> Tiles | None:
    """Return which circuits a backend string wants to run side by side, or None if each runs alone.

    Raises:
        ConfigError: For a number below 1 or no whole number, and for ``tile_spacing`` without tiles or above 1.
    """
    spacing = spec.integer("tile_spacing", minimum=0, maximum=1)
    value = spec.options.get("tiles")
    if spacing is not None and value in (None, "1"):
        raise ConfigError(
            f"tile_spacing is for tiles=auto or several tiles, but {str(spec)!r} runs one circuit at a time."
        )
    if value is None:
        return None
    if value != "auto" and not (re.fullmatch(r"\d{1,6}", value) and int(value)):
        raise ConfigError(f"Backend option tiles must be auto or a whole number of at least 1, got {value!r}.")
    if value == "1":
        return None
    return Tiles(None if value == "auto" else int(value), 1 if spacing is None else spacing)


def check_tiles(found: int, size: int, asked: Tiles, name: str) -> None:
    """Check that the tiles that were asked for fit on a device.

    Args:
        found: How many fit, at most as many as were asked for.
        size: Qubits of a tile.
        asked: What was asked for.
        name: The device.

    Raises:
        ConfigError: If fewer fit than were asked for.

    Warns:
        TilesWarning: If only one fits, where as many as fit were asked for.
    """
    if asked.count is not None and found < asked.count:
        closer = ", tile_spacing=0 to leave no qubit idle between them" if asked.spacing else ""
        between = f" with {asked.spacing} idle between them" if asked.spacing else ""
        raise ConfigError(
            f"tiles={asked.count}: {found} circuits of {size} qubits fit on {name}{between}, its worst qubits left out. "
            f"Give tiles=auto, at most tiles={max(1, found)}{closer}, or a head with fewer qubits."
        )
    if asked.count is None and found < 2:
        notice = f"tiles=auto: {name} has room for one circuit of {size} qubits at a time, so each runs alone."
        _LOG.warning("%s", notice)
        warnings.warn(TilesWarning(notice), stacklevel=2)


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
