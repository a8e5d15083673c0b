"""Where several small circuits fit side by side on one chip: sets of neighbouring qubits, with idle ones between."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rustworkx as rx
from qiskit.transpiler import Target
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_matrix

from qiskit_qattn.backends.folders import read_entry, write_entry
from qiskit_qattn.backends.tile_options import Tiles
from qiskit_qattn.backends.tiling import Tile

_FORMAT = 1  # of the entries: raise it when tiles are placed in another way
_WORST = 5.0  # medians from which on a qubit or coupling is left out
_USES = 4  # gates per coupling that a tile's error is estimated for
_MOST = 20_000  # candidates; more are grown one from each qubit
_SECONDS = 10.0  # for each of the two searches, which end far sooner on chips of today


@dataclass(frozen=True)
class Chip:
    """The couplings of a device and their errors.

    Attributes:
        graph: A node per qubit; an edge per coupled pair, with the least error of its two-qubit gates.
        readout: Readout error of each qubit, 0 where it is not known.
        gates: Names of the two-qubit gates of each ordered pair.
    """

    graph: rx.PyGraph
    readout: np.ndarray
    gates: Mapping[tuple[int, int], frozenset[str]]

    @classmethod
    def of(cls, target: Target) -> Chip:
        """Return the chip that a target describes."""
        gates: dict[tuple[int, int], set[str]] = {}
        errors: dict[tuple[int, int], float] = {}
        for name in sorted(target.operation_names):
            for where, about in target[name].items():
                if where is None or len(where) != 2:
                    continue
                gates.setdefault(where, set()).add(name)
                error, pair = _error(about), (min(where), max(where))
                errors[pair] = min(error, errors.get(pair, math.inf))
        measured = target["measure"] if "measure" in target.operation_names else {}
        readout = [_error(measured.get((qubit,))) for qubit in range(target.num_qubits)]
        return cls.with_errors(errors, readout, {pair: frozenset(names) for pair, names in gates.items()})

    @classmethod
    def with_errors(
        cls,
        errors: Mapping[tuple[int, int], float],
        readout: Sequence[float],
        gates: Mapping[tuple[int, int], frozenset[str]],
    ) -> Chip:
        """Return a chip with the error of each coupled pair and the readout error of each qubit."""
        graph: rx.PyGraph = rx.PyGraph(multigraph=False)
        graph.add_nodes_from(range(len(readout)))
        graph.add_edges_from([(*pair, error) for pair, error in errors.items()])
        return cls(graph, np.array(readout), gates)

    def without_worst(self) -> Chip:
        """Return the chip without couplings and qubits whose errors are more than five times the median."""
        graph = self.graph.copy()
        worst = _limit(graph.edges())
        graph.remove_edges_from([(u, v) for u, v, error in graph.weighted_edge_list() if error > worst])
        for qubit in np.flatnonzero(self.readout > _limit(self.readout)):
            graph.remove_edges_from([(int(qubit), other) for other in graph.neighbors(int(qubit))])
        return Chip(graph, self.readout, self.gates)

    def error(self, tile: Tile) -> float:
        r"""Return :math:`-\log` of the estimated fidelity of a circuit with four gates on each coupling of a tile."""
        couplings = (error for _, _, error in self.graph.subgraph(list(tile)).weighted_edge_list())
        return -sum(math.log1p(-min(each, 0.999)) for each in (*self.readout[list(tile)], *_USES * [*couplings]))


def placed(chip: Chip, size: int, count: int | None = None, spacing: int = 1) -> list[Tile]:
    r"""Return disjoint connected sets of qubits, those with the least estimated error first.

    With :math:`x_S` for each candidate S it is the integer program

    .. math:: \max \sum_S x_S, \qquad \sum_{S \cap \{u, v\} \ne \emptyset} x_S \le 1 \text{ for each coupling } (u, v)

    and then, with that number of tiles or the one asked for, the least sum of errors. Without spacing, the constraint
    is one of each qubit. Qubits and couplings with more than five times the median error are left out, unless nothing
    fits on the others.

    Args:
        chip: The chip.
        size: Qubits of a tile.
        count: How many tiles; None for as many as fit.
        spacing: 1 for at least one idle qubit between any two tiles, 0 for none.

    Returns:
        The tiles, fewer than ``count`` where no more fit.
    """
    for part in (chip.without_worst(), chip):
        candidates = list(_candidates(part, size))
        if candidates:
            chosen = _packing(chip, candidates, count, spacing)
            return sorted((candidates[index] for index in chosen), key=lambda tile: (chip.error(tile), tile))
    return []


def placed_once(chip: Chip, asked: Tiles, folder: Path, name: str) -> Callable[[int], list[Tile]]:
    """Return what finds a device's tiles of some size, those of one shape with their qubits in the same order.

    As with transpiled circuits, tiles are placed once and then read from disk, so that a run that is resumed after the
    next calibration finds the jobs that it sent.

    Args:
        chip: The chip.
        asked: What the backend string asks for.
        folder: The cache folder.
        name: The device's.
    """
    about = [_FORMAT, name, len(chip.readout), sorted((pair, sorted(names)) for pair, names in chip.gates.items())]

    def tiles(size: int) -> list[Tile]:
        key = json.dumps([*about, size, asked.count, asked.spacing])
        entry = folder / "tiles" / f"{hashlib.sha256(key.encode()).hexdigest()}.json"
        if (stored := read_entry(entry)) is None:
            stored = json.dumps(alike(chip, placed(chip, size, asked.count, asked.spacing))).encode()
            write_entry(entry, stored)
        return [tuple(tile) for tile in json.loads(stored)]

    return tiles


def ordered_like(chip: Chip, first: Tile, tile: Tile) -> Tile | None:
    """Return a tile's qubits in the order in which their couplings are those of ``first``, or None for other shapes."""
    one, other = (_couplings(chip, each) for each in (first, tile))
    mapping = next(rx.vf2_mapping(one, other, edge_matcher=lambda a, b: a == b, subgraph=False), None)
    return None if mapping is None else tuple(tile[mapping[index]] for index in range(len(first)))


def _couplings(chip: Chip, tile: Tile) -> rx.PyDiGraph:
    graph: rx.PyDiGraph = rx.PyDiGraph()
    graph.add_nodes_from(tile)
    place = {qubit: index for index, qubit in enumerate(tile)}
    graph.add_edges_from([(place[u], place[v], chip.gates[u, v]) for u in tile for v in tile if (u, v) in chip.gates])
    return graph


def _candidates(chip: Chip, size: int) -> Iterator[Tile]:
    """Yield connected sets of qubits: all of them, or one that is grown from each qubit where there are too many."""
    graph, good = chip.graph, chip.readout <= _limit(chip.readout)
    if size == 1:
        yield from ((int(qubit),) for qubit in np.flatnonzero(good))
        return
    if size >= len(graph):
        yield from [tuple(range(size))] if size == len(graph) and rx.is_connected(graph) else []
        return
    degree = max((graph.degree(node) for node in graph.node_indices()), default=0)
    if len(graph) * max(1, degree - 1) ** (size - 1) <= _MOST:
        yield from sorted({tuple(sorted(map(int, each))) for each in rx.connected_subgraphs(graph, size)})
        return
    yield from sorted(set(filter(None, (_grown(chip, node, size) for node in graph.node_indices()))))


def _grown(chip: Chip, start: int, size: int) -> Tile | None:
    """Return the set that grows from a qubit by its best coupling each time, or None where too few are connected."""
    tile = {start}
    while len(tile) < size:
        edges = ((chip.graph.get_edge_data(u, v) + chip.readout[v], v) for u in tile for v in chip.graph.neighbors(u))
        best = min(((error, v) for error, v in edges if v not in tile), default=None)
        if best is None:
            return None
        tile.add(best[1])
    return tuple(sorted(tile))


def _packing(chip: Chip, candidates: Sequence[Tile], count: int | None, spacing: int) -> np.ndarray:
    """Return the indices of the tiles that are chosen."""
    groups = [*chip.graph.edge_list()] if spacing else []
    groups += [(qubit,) for qubit in chip.graph.node_indices()]
    touching: dict[int, list[int]] = {qubit: [] for qubit in chip.graph.node_indices()}
    for index, tile in enumerate(candidates):
        for qubit in tile:
            touching[qubit].append(index)
    rows = [sorted({index for qubit in group for index in touching[qubit]}) for group in groups]
    starts = np.cumsum([0, *map(len, rows)])
    table = csr_matrix((np.ones(starts[-1]), np.concatenate(rows), starts), shape=(len(rows), len(candidates)))
    apart = LinearConstraint(table, -np.inf, 1)
    ones, errors = np.ones(len(candidates)), np.array([chip.error(tile) for tile in candidates])
    options: dict[str, Any] = {
        "integrality": ones,
        "bounds": Bounds(0, 1),
        "options": {"time_limit": _SECONDS, "mip_rel_gap": 1e-3},
    }
    most = milp(-ones, constraints=[apart], **options)
    number = round(-most.fun) if count is None else min(count, round(-most.fun))
    best = milp(errors, constraints=[apart, LinearConstraint(ones[None], number, number)], **options)
    found = best.x if best.x is not None else most.x  # where time was up
    return np.flatnonzero(found > 0.5)[:number]


def _limit(errors: Sequence[float] | np.ndarray) -> float:
    return _WORST * float(np.median(errors)) if len(errors) and np.median(errors) > 0 else 0.5


def _error(about: Any) -> float:
    """Return the error of an operation; 0 where none is known."""
    error = getattr(about, "error", None)
    return 0.0 if error is None else float(error)


def alike(chip: Chip, found: Sequence[Tile]) -> list[Tile]:
    """Return tiles with the qubits of those of one shape in the same order, so that one circuit serves them all."""
    shapes: list[Tile] = []
    tiles = []
    for tile in found:
        same = next((other for first in shapes if (other := ordered_like(chip, first, tile))), None)
        if same is None:
            shapes.append(tile)
        tiles.append(same or tile)
    return tiles


def blocks(num_qubits: int, size: int, count: int | None = None, spacing: int = 1) -> list[Tile]:
    """Return tiles on a device whose qubits are all connected: neighbours by their numbers, as ions in a chain."""
    starts = range(0, num_qubits - size + 1, size + spacing)
    return [tuple(range(start, start + size)) for start in starts][:count]
