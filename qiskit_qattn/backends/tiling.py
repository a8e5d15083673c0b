"""Several small circuits side by side on one chip: PUBs composed into wider ones, and their results split again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.primitives import DataBin, PubResult
from qiskit.primitives.containers.bindings_array import BindingsArray
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.primitives.containers.observables_array import ObservablesArray

from qiskit_qattn.backends.jobs.request import SOURCE
from qiskit_qattn.backends.tile_options import Tiles, check_tiles

Tile = tuple[int, ...]
#: Where the metadata of a circuit and of a result say which qubits of the device each tile is on.
TILES = "qiskit-qattn tiles"
Composed = tuple[QuantumCircuit, ObservablesArray, list[tuple[list[Any], list[int], tuple[Any, ...]]]]
_KEPT = 64  # composed circuits, and circuits in the gates of each shape of a tile


@dataclass(frozen=True)
class Placed:
    """A circuit on one tile.

    Attributes:
        circuit: The circuit in the device's gates, on as many qubits as the tile has.
        tile: The device's qubit of each of these.
        where: The device's qubit on which each qubit of the original circuit is measured.
    """

    circuit: QuantumCircuit
    tile: Tile
    where: Tile


@dataclass(frozen=True)
class Column:
    """What one tile of a PUB computes.

    Attributes:
        pub: Number of the PUB that it belongs to.
        rows: Which of that PUB's parameter sets, in order.
        placed: Where.
    """

    pub: int
    rows: np.ndarray
    placed: Placed


class Tiling:
    """The tiles of a device.

    Args:
        name: The device's, for errors.
        num_qubits: Qubits of the device.
        asked: Which tiles the backend string asks for.
        tiles: Returns the tiles for circuits of some size, best first, no more than were asked for.
        transpile: Returns a circuit in the gates of a tile; None where any circuit will do.
    """

    def __init__(
        self,
        name: str,
        num_qubits: int,
        asked: Tiles,
        tiles: Callable[[int], Sequence[Tile]],
        transpile: Callable[[QuantumCircuit, Tile], QuantumCircuit] | None = None,
    ) -> None:
        self.name, self.num_qubits, self.asked = name, num_qubits, asked
        self._find, self._transpile = tiles, transpile
        self._tiles: dict[int, list[Tile]] = {}
        self._placed: OrderedDict[int, tuple[QuantumCircuit, list[Placed]]] = OrderedDict()
        self._composed: OrderedDict[Any, tuple[Any, Composed]] = OrderedDict()

    def tiles(self, size: int) -> list[Tile]:
        """Return the tiles for circuits of ``size`` qubits, best first.

        Raises:
            ConfigError: If those that were asked for do not fit.

        Warns:
            TilesWarning: If only one fits, where as many as fit were asked for.
        """
        if size not in self._tiles:
            found = list(self._find(size))
            check_tiles(len(found), size, self.asked, self.name)
            self._tiles[size] = found
        return self._tiles[size]

    def has_several(self, size: int) -> bool:
        """Tell whether two or more circuits of ``size`` qubits fit.

        Raises:
            ConfigError: If the tiles that were asked for do not fit.
        """
        return len(self.tiles(size)) > 1

    def places(self, circuit: QuantumCircuit) -> list[Placed]:
        """Return a circuit on each tile of its size.

        Raises:
            BackendError, CircuitError: If it cannot be transpiled.
        """
        found = self._placed.get(id(circuit))
        if found is None:
            found = circuit, [self._place(circuit, tile) for tile in self.tiles(circuit.num_qubits)]
            _keep(self._placed, id(circuit), found)  # with the circuit, so that no other gets its id
        return found[1]

    def _place(self, circuit: QuantumCircuit, tile: Tile) -> Placed:
        if self._transpile is None:
            return Placed(circuit, tile, tile)
        isa = self._transpile(circuit, tile)
        final = range(len(tile)) if isa.layout is None else isa.layout.final_index_layout()
        return Placed(isa, tile, tuple(tile[qubit] for qubit in final))

    def tiled(self, pubs: Sequence[EstimatorPub], sources: Sequence[str | None] | None = None) -> Tiled:
        """Return PUBs side by side.

        PUBs whose circuits have the same number of qubits share wider ones; each has as few rows as the tiles allow,
        and then as few tiles, the best ones.

        Args:
            pubs: PUBs of observables in a column, shape ``(M, 1)``, and N parameter sets, shape ``(N,)`` or ``()``.
            sources: What each computes, the same on every device, where that is known.
        """
        by_size: dict[int, list[int]] = {}
        groups: list[list[Column]] = []
        for index, pub in enumerate(pubs):
            by_size.setdefault(pub.circuit.num_qubits, []).append(index)
        for members in by_size.values():
            most = len(self.places(pubs[members[0]].circuit))
            for start in range(0, len(members), most):
                some = members[start : start + most]
                shares = shared_rows([pubs[index].parameter_values.size for index in some], most)
                groups.append(list(self._columns(pubs, some, shares)))
        known = None if sources is None or None in sources else [str(source) for source in sources]
        return Tiled([self._composed_pub(pubs, group, known) for group in groups], groups, list(pubs))

    def alone(self, pubs: Sequence[EstimatorPub]) -> Tiled:
        """Return PUBs one at a time, the k-th on the k-th tile, while the others are idle."""
        groups = [
            [Column(index, np.arange(pub.parameter_values.size), self.places(pub.circuit)[index])]
            for index, pub in enumerate(pubs)
        ]
        return Tiled([self._composed_pub(pubs, group, None) for group in groups], groups, list(pubs))

    def __deepcopy__(self, memo: dict[int, Any]) -> Tiling:
        """Return these tiles: copies are on the same device."""
        return self

    def _columns(
        self, pubs: Sequence[EstimatorPub], members: Sequence[int], shares: Sequence[list[np.ndarray]]
    ) -> Iterator[Column]:
        number = 0
        for index, parts in zip(members, shares, strict=True):
            for rows in parts:
                yield Column(index, rows, self.places(pubs[index].circuit)[number])
                number += 1

    def _composed_pub(
        self, pubs: Sequence[EstimatorPub], columns: Sequence[Column], sources: list[str] | None
    ) -> EstimatorPub:
        parts = [pubs[column.pub] for column in columns]
        key = tuple(
            (id(part.circuit), id(part.observables), column.placed.where)
            for part, column in zip(parts, columns, strict=True)
        )
        found = self._composed.get(key)
        if found is None:
            made = composed(self.num_qubits, parts, [column.placed for column in columns])
            found = [(part.circuit, part.observables) for part in parts], made
            _keep(self._composed, key, found)
        circuit, observables, vectors = found[1]
        if sources is not None:
            circuit = circuit.copy()
            circuit.metadata = circuit.metadata | {SOURCE: sources}
        length = max(len(column.rows) for column in columns)
        values = {}
        for column, pub, (order, own, vector) in zip(columns, parts, vectors, strict=True):
            if not vector:
                continue
            table = pub.parameter_values.as_array(order).reshape(-1, len(order))  # (N, K)
            rows = np.resize(column.rows, length)  # shorter ones repeat their first rows
            values[vector] = table[np.ix_(rows, np.array(own))]
        shape = (length,) if values else ()
        return EstimatorPub(circuit, observables, BindingsArray(values, shape=shape), parts[0].precision)


def is_tiled(pub: EstimatorPub) -> bool:
    """Tell whether a PUB was composed by :class:`Tiling`."""
    return TILES in (pub.circuit.metadata or {})


def _keep(cache: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    """Store a value, and forget the oldest."""
    cache[key] = value
    while len(cache) > _KEPT:
        cache.popitem(last=False)


def shared_rows(counts: Sequence[int], most: int) -> list[list[np.ndarray]]:
    """Return the rows of each PUB in parts for one tile each: at most ``most`` in all, the longest as short as can be.

    Args:
        counts: Number of rows of each PUB.
        most: Number of tiles, at least one for each PUB.
    """
    length = max(1, -(-sum(counts) // most))
    while sum(-(-count // length) for count in counts) > most:
        length += 1
    return [np.array_split(np.arange(count), -(-count // length)) for count in counts]


def composed(num_qubits: int, pubs: Sequence[EstimatorPub], places: Sequence[Placed]) -> Composed:
    """Return circuits side by side and their observables in one column.

    For each tile there are the parameters of its PUB, the numbers of those that its circuit has, and the new ones in
    their place.

    Args:
        num_qubits: Qubits of the device.
        pubs: The PUB on each tile.
        places: Where its circuit is.
    """
    circuit = QuantumCircuit(num_qubits, metadata={TILES: [list(placed.where) for placed in places]})
    vectors, moved = [], []
    for number, (pub, placed) in enumerate(zip(pubs, places, strict=True)):
        part = placed.circuit.copy()
        part.global_phase = 0  # the sum of many tiles' phases is an expression that takes minutes to rewrite
        order, own = list(pub.circuit.parameters), list(part.parameters)
        vector = tuple(ParameterVector(f"t{number:03d}", len(own)))
        part = part.assign_parameters(dict(zip(own, vector, strict=True)))
        circuit.compose(part, placed.tile, inplace=True)
        vectors.append((order, [order.index(each) for each in own], vector))
        moved += [
            observable.apply_layout(list(placed.where), num_qubits)
            for observable in pub.observables.sparse_observables_array().ravel()
        ]
    column = np.empty((len(moved), 1), dtype=object)
    column[:, 0] = moved
    return circuit, ObservablesArray(column), vectors


@dataclass(frozen=True)
class Tiled:
    """PUBs side by side.

    Attributes:
        pubs: What is sent.
        columns: What each tile of each of these computes.
        parts: The PUBs that they are made of.
    """

    pubs: list[EstimatorPub]
    columns: list[list[Column]]
    parts: list[EstimatorPub]

    def split(self, results: Sequence[Any]) -> list[PubResult]:
        """Return the result of each part, labelled with the qubits of the device that each of its rows was measured on.

        Args:
            results: The results of :attr:`pubs`, with ``data.evs`` and perhaps ``data.stds`` of shape ``(M, R)``.
        """
        shapes = [(pub.observables.size, pub.parameter_values.size) for pub in self.parts]
        evs, stds = ([np.full(shape, np.nan) for shape in shapes] for _ in range(2))
        metadata: list[dict[str, Any]] = [{} for _ in self.parts]
        tiles: list[list[list[int]]] = [[[]] * count for _, count in shapes]
        for result, columns in zip(results, self.columns, strict=True):
            start = 0
            for column in columns:
                index, count = column.pub, len(column.rows)
                lines = slice(start, start + shapes[index][0])
                start = lines.stop
                evs[index][:, column.rows] = np.asarray(result.data.evs)[lines, :count]
                stds[index][:, column.rows] = np.asarray(result.data.stds)[lines, :count]
                for row in column.rows:
                    tiles[index][row] = list(column.placed.where)
                metadata[index] |= result.metadata
        return [
            PubResult(DataBin(evs=values, stds=errors, shape=values.shape), metadata=about | {TILES: where})
            for values, errors, about, where in zip(evs, stds, metadata, tiles, strict=True)
        ]
