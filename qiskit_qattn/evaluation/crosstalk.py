"""Whether circuits side by side disturb each other: values of each alone and of all together, on the same qubits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from qiskit.primitives.containers.estimator_pub import EstimatorPub

from qiskit_qattn.backends.pub import PubProgram, attention_program
from qiskit_qattn.backends.registry import Backend
from qiskit_qattn.backends.tiling import Tile
from qiskit_qattn.errors import ConfigError
from qiskit_qattn.library.attention_circuit import AttentionCircuit
from qiskit_qattn.training.progress import Progress

_ROWS = 4
_LEVEL = 0.01
_SECONDS = 0.05  # that a snapshot takes per parameter set on a tile, with 4 qubits on one core of an AMD EPYC server


@dataclass(frozen=True)
class TileDifference:
    r"""How much the values of one tile change when the other tiles run too.

    Attributes:
        qubits: The device's qubits.
        difference: The largest :math:`|\langle O \rangle_{together} - \langle O \rangle_{alone}|`.
        error: The standard error of that difference.
        z: The largest ratio of a difference and its standard error.
        p: The probability of a ratio as large by shot noise alone, corrected for the number of values (Bonferroni).
    """

    qubits: Tile
    difference: float
    error: float
    z: float
    p: float


@dataclass(frozen=True)
class Crosstalk:
    """What a crosstalk check found.

    Attributes:
        tiles: Each tile.
        rows: Number of parameter sets that were compared on each.
        shots: Samples per measurement basis, or None where values are exact.
    """

    tiles: tuple[TileDifference, ...]
    rows: int
    shots: int | None

    @property
    def disturbed(self) -> tuple[TileDifference, ...]:
        """The tiles whose difference shot noise does not explain, at a level of one percent for all tiles together."""
        return tuple(tile for tile in self.tiles if tile.p * len(self.tiles) < _LEVEL)


def crosstalk(
    circuit: AttentionCircuit,
    backend: Backend,
    *,
    rows: int = _ROWS,
    seed: int = 0,
    progress: Progress | None = None,
) -> Crosstalk:
    r"""Compare a circuit's values on each tile of a device, alone and while all tiles run, at random parameters.

    For tile k, observable m and parameter set r it is

    .. math:: z_{kmr} = \frac{\langle O_m \rangle_{together} - \langle O_m \rangle_{alone}}
        {\sqrt{\sigma_{together}^2 + \sigma_{alone}^2}}

    with the standard errors that the device reports, and at least that of one sample in all. Both are in one job, so
    that the device is in one state for both. It costs as much as ``rows`` parameter sets for each tile, and ``rows``
    more.

    Args:
        circuit: The circuit.
        backend: The device, with the option ``tiles``.
        rows: Parameter sets on each tile.
        seed: Seed of the parameters.
        progress: Receives how long it will take.

    Raises:
        ConfigError: For a backend that runs one circuit at a time, and if no two circuits fit.
        BackendError: If the job fails.

    Source: Niu and Todri-Sanial, Quantum 7, 925 (2023), arXiv 2102.05321, and Ohkura et al., IEEE TQE 3 (2022),
        arXiv 2112.07091, compare benchmarks alone and together; here it is the circuit in question.
    """
    program = attention_program(circuit, backend)
    if not isinstance(program, PubProgram) or (tiling := program.tiling) is None:
        raise ConfigError(
            f"Crosstalk is between circuits side by side, but {backend.name} runs {circuit.num_qubits}-qubit circuits "
            f"one at a time; give tiles=auto, and a device with room for two."
        )
    count, rng = len(tiling.places(program.circuit)), np.random.default_rng(seed)
    points = rng.uniform(-np.pi, np.pi, (count, rows, len(program.params)))
    column = tuple(program.params)
    pubs = [
        EstimatorPub.coerce(
            (program.circuit, program.observables, {column: point} if column else None), backend.precision
        )
        for point in points
    ]
    together, alone = tiling.tiled(pubs), tiling.alone(pubs)
    paid = getattr(getattr(backend.estimator, "device", None), "paid", False)
    (progress or Progress()).forecast(lambda: None if paid else [2 * count * rows * _SECONDS])
    found = list(backend.estimator.run([*together.pubs, *alone.pubs], precision=backend.precision).result())
    split = len(together.pubs)
    pairs = zip(together.split(found[:split]), alone.split(found[split:]), tiling.places(program.circuit), strict=True)
    least = backend.precision**2
    tiles = [_compared(one.data, other.data, placed.where, least) for one, other, placed in pairs]
    return Crosstalk(tuple(tiles), rows, backend.shots)


def _compared(together: object, alone: object, qubits: Sequence[int], least: float) -> TileDifference:
    """Return the difference of two results on a tile."""
    values, errors = ([np.asarray(getattr(data, name)) for data in (together, alone)] for name in ("evs", "stds"))
    difference = np.abs(values[0] - values[1]).ravel()
    error = np.hypot(*(np.maximum(each, least) for each in errors)).ravel()
    ratios = difference / np.maximum(error, 1e-9)
    at = int(ratios.argmax())
    z = float(ratios[at])
    p = min(1.0, len(ratios) * math.erfc(z / math.sqrt(2)))
    return TileDifference(tuple(qubits), float(difference[at]), float(error[at]), z, p)
