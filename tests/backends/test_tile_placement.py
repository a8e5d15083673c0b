"""Where circuits are placed on a chip: connected, apart, with small errors, and as many as fit."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import rustworkx as rx

from qiskit_qattn.backends.noise import fake_device
from qiskit_qattn.backends.tile_placement import Chip, Tile, alike, blocks, ordered_like, placed


def check(chip: Chip, tiles: list[Tile], size: int, spacing: int) -> None:
    """Check that tiles are connected, of the right size, and apart."""
    for tile in tiles:
        assert len(set(tile)) == size and rx.is_connected(chip.graph.subgraph(list(tile)))
    for one, other in combinations(tiles, 2):
        assert not set(one) & set(other)
        if spacing:
            assert not any(chip.graph.has_edge(u, v) for u in one for v in other)


def chip_of(edges: list[tuple[int, int, float]], readout: list[float]) -> Chip:
    gates = {pair: frozenset({"cz"}) for u, v, _ in edges for pair in ((u, v), (v, u))}
    return Chip.with_errors({(u, v): error for u, v, error in edges}, readout, gates)


@pytest.fixture(scope="module", params=["fake_torino", pytest.param("fake_sherbrooke", marks=pytest.mark.more)])
def chip(request: pytest.FixtureRequest) -> Chip:
    return Chip.of(fake_device(request.param).target)


@pytest.mark.parametrize("size", [2, 5, 8])
@pytest.mark.parametrize("spacing", [0, 1])
def test_tiles_are_connected_and_apart(chip: Chip, size: int, spacing: int) -> None:
    tiles = placed(chip, size, None, spacing)
    assert len(tiles) >= 8
    check(chip, tiles, size, spacing)
    errors = [chip.error(tile) for tile in tiles]
    assert errors == sorted(errors)


@pytest.mark.parametrize(
    ("name", "spacing", "least"),
    [("fake_torino", 1, 8), ("fake_torino", 0, 16), ("fake_fez", 1, 11), ("fake_fez", 0, 16)],
)
def test_many_heads_of_five_qubits_fit_on_a_chip(name: str, spacing: int, least: int) -> None:
    assert len(placed(Chip.of(fake_device(name).target), 5, None, spacing)) >= least


@pytest.mark.parametrize(
    ("name", "spacing", "most"), [("fake_torino", 0, 26), pytest.param("fake_fez", 0, 31, marks=pytest.mark.more)]
)
def test_without_errors_the_packing_is_exact(name: str, spacing: int, most: int) -> None:
    chip = Chip.of(fake_device(name).target)
    even = chip_of([(u, v, 1e-3) for u, v in chip.graph.edge_list()], [1e-2] * len(chip.graph))
    assert len(placed(even, 5, None, spacing)) == most


@pytest.mark.parametrize("spacing", [0, 1])
def test_no_choice_of_tiles_is_better(rng: np.random.Generator, spacing: int) -> None:
    for _ in range(5):
        graph = rx.undirected_gnp_random_graph(9, 0.35, seed=int(rng.integers(2**31)))
        edges = [(u, v, float(rng.uniform(0.01, 0.02))) for u, v in graph.edge_list()]
        chip = chip_of(edges, list(rng.uniform(0.01, 0.02, 9)))
        possible = [each for each in combinations(range(9), 3) if rx.is_connected(chip.graph.subgraph(list(each)))]
        best: dict[int, float] = {0: 0.0}
        for count in (1, 2, 3):
            for some in combinations(possible, count):
                try:
                    check(chip, list(some), 3, spacing)
                except AssertionError:
                    continue
                best[count] = min(best.get(count, np.inf), sum(map(chip.error, some)))
        tiles = placed(chip, 3, None, spacing)
        assert len(tiles) == max(best)
        assert sum(map(chip.error, tiles)) == pytest.approx(best[len(tiles)], rel=2e-3)
        for count in range(1, len(tiles)):
            fewer = placed(chip, 3, count, spacing)
            assert sum(map(chip.error, fewer)) == pytest.approx(best[count], rel=2e-3)


def test_the_worst_qubits_are_left_out(chip: Chip) -> None:
    used = [qubit for tile in placed(chip, 4) for qubit in tile]
    assert chip.readout[used].max() <= 5 * np.median(chip.readout)
    couplings = chip.graph.edges()
    for tile in placed(chip, 4):
        good = [(u, v, e) for u, v, e in chip.graph.weighted_edge_list() if e <= 5 * np.median(couplings)]
        graph = chip_of(good, list(chip.readout)).graph
        assert rx.is_connected(graph.subgraph(list(tile)))


def test_a_chip_with_no_others_uses_its_worst_qubits() -> None:
    line = chip_of([(0, 1, 0.01), (1, 2, 0.01), (2, 3, 0.9)], [0.01, 0.01, 0.01, 0.4])
    assert placed(line, 4) == [(0, 1, 2, 3)]
    assert placed(line, 2) == [(0, 1)]
    assert placed(line, 5) == []


@pytest.mark.parametrize("size", [9, 12])
def test_large_tiles_are_grown_where_there_are_too_many(chip: Chip, size: int) -> None:
    tiles = placed(chip, size)
    assert len(tiles) >= 3
    check(chip, tiles, size, 1)


def test_one_circuit_serves_all_tiles_of_a_shape(chip: Chip) -> None:
    tiles = alike(chip, placed(chip, 4))

    def couplings(tile: Tile) -> set[tuple[Any, ...]]:
        places = [(i, j, chip.gates.get((u, v))) for i, u in enumerate(tile) for j, v in enumerate(tile)]
        return {place for place in places if place[2]}

    shapes = {frozenset(couplings(tile)) for tile in tiles}
    assert len(shapes) <= len(tiles) / 3
    for one, other in combinations(tiles, 2):
        same = ordered_like(chip, one, other) is not None
        assert same == (couplings(one) == couplings(other))


def test_qubits_that_are_all_connected_are_taken_in_their_order() -> None:
    assert blocks(11, 3) == [(0, 1, 2), (4, 5, 6), (8, 9, 10)]
    assert blocks(11, 3, spacing=0) == [(0, 1, 2), (3, 4, 5), (6, 7, 8)]
    assert blocks(11, 3, 2) == [(0, 1, 2), (4, 5, 6)]
    assert blocks(2, 3) == []
