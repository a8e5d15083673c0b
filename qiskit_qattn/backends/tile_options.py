"""The options of backend strings that run several circuits side by side."""

from __future__ import annotations

import logging
import re
import warnings
from dataclasses import dataclass

from qiskit_qattn.backends.spec import BackendSpec
from qiskit_qattn.errors import ConfigError

TILE_OPTIONS = {
    "tiles": "auto, or a number: circuits that run side by side on the device's qubits; 1 by default",
    "tile_spacing": "idle qubits between circuits side by side: 1, the default, or 0",
}
_LOG = logging.getLogger("qiskit_qattn.backends")


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
            f"tiles={asked.count}: {found} circuits of {size} qubits fit on {name}{between}, without its worst qubits. "
            f"Give tiles=auto{'' if found < 2 else f', at most tiles={found}'}{closer}, or a head with fewer qubits."
        )
    if asked.count is None and found == 1:
        notice = f"tiles=auto: {name} has room for one circuit of {size} qubits at a time, so each runs alone."
        _LOG.warning("%s", notice)
        warnings.warn(TilesWarning(notice), stacklevel=2)
