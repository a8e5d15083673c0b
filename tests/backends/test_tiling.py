"""Circuits side by side: what is sent, what comes back, and how many executions that takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.primitives import StatevectorEstimator
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.quantum_info import SparsePauliOp
from qiskit_mitigation.utils import get_measurement_bases

import qiskit_qattn as qa
from qiskit_qattn.backends.jobs.request import SOURCE, Request
from qiskit_qattn.backends.measurement import Plan
from qiskit_qattn.backends.noise import fake_device
from qiskit_qattn.backends.pub import attention_program
from qiskit_qattn.backends.tile_options import Tiles, TilesWarning
from qiskit_qattn.backends.tile_parts import joined, parts_of
from qiskit_qattn.backends.tile_placement import blocks
from qiskit_qattn.backends.tiling import TILES, Tiling, shared_rows
from qiskit_qattn.errors import ConfigError

PRECISION = 0.1


def tiling(num_qubits: int = 11, count: int | None = None, spacing: int = 1) -> Tiling:
    asked = Tiles(count, spacing)
    return Tiling("chain", num_qubits, asked, lambda size: blocks(num_qubits, size, count, spacing))


def pub_of(rng: np.random.Generator, num_qubits: int, rows: int, angles: int = 3) -> EstimatorPub:
    """Return a random circuit of some angles with three random observables, and random rows."""
    circuit, params = QuantumCircuit(num_qubits), ParameterVector("x", angles)
    for index, param in enumerate(params):
        circuit.ry(param, index % num_qubits)
        circuit.cx(index % num_qubits, (index + 1) % num_qubits)
        circuit.rx(rng.uniform(0, 3), (index + 1) % num_qubits)
    labels = ["".join(rng.choice(list("IXYZ"), num_qubits)) for _ in range(4)]
    observables = [[SparsePauliOp(labels[0])], [SparsePauliOp(labels[1:3], [0.5, -2])], [SparsePauliOp(labels[3])]]
    points = rng.uniform(-3, 3, (rows, angles)) if angles else None
    return EstimatorPub.coerce((circuit, observables, points), PRECISION)


def exact(pubs: list[EstimatorPub]) -> list[Any]:
    return list(StatevectorEstimator().run([EstimatorPub(*_fields(pub), 0.0) for pub in pubs]).result())


def _fields(pub: EstimatorPub) -> tuple[Any, ...]:
    return pub.circuit, pub.observables, pub.parameter_values


@pytest.mark.parametrize("rows", [[1], [5], [3, 7], [2, 1, 9, 4]])
def test_split_results_are_those_of_each_pub_alone(rng: np.random.Generator, rows: list[int]) -> None:
    pubs = [pub_of(rng, 3, count) for count in rows]
    tiled = tiling().tiled(pubs)
    assert len(tiled.pubs) == -(-len(rows) // 3)
    for found, alone, count in zip(tiled.split(exact(tiled.pubs)), exact(pubs), rows, strict=True):
        np.testing.assert_allclose(found.data.evs, alone.data.evs, atol=1e-12)
        assert len(found.metadata[TILES]) == count
        assert all(tuple(tile) in blocks(11, 3) for tile in found.metadata[TILES])


def test_circuits_of_several_sizes_do_not_share_a_circuit(rng: np.random.Generator) -> None:
    pubs = [pub_of(rng, 3, 4), pub_of(rng, 2, 4), pub_of(rng, 3, 2), pub_of(rng, 2, 0, angles=0)]
    tiled = tiling().tiled(pubs)
    assert len(tiled.pubs) == 2
    for found, alone in zip(tiled.split(exact(tiled.pubs)), exact(pubs), strict=True):
        np.testing.assert_allclose(found.data.evs, alone.data.evs.reshape(found.data.evs.shape), atol=1e-12)


def test_circuits_without_parameters_run_side_by_side(rng: np.random.Generator) -> None:
    pubs = [pub_of(rng, 2, 0, angles=0) for _ in range(5)]
    tiled = tiling().tiled(pubs)
    assert [pub.parameter_values.size for pub in tiled.pubs] == [1, 1]
    for found, alone in zip(tiled.split(exact(tiled.pubs)), exact(pubs), strict=True):
        np.testing.assert_allclose(found.data.evs, alone.data.evs, atol=1e-12)


def test_rows_are_shared_evenly(rng: np.random.Generator) -> None:
    for _ in range(200):
        counts = list(rng.integers(1, 40, rng.integers(1, 6)))
        most = int(rng.integers(len(counts), 20))
        shares = shared_rows(counts, most)
        for count, parts in zip(counts, shares, strict=True):
            np.testing.assert_array_equal(np.concatenate(parts), np.arange(count))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1
        longest = max(len(part) for parts in shares for part in parts)
        assert sum(map(len, shares)) <= most
        shorter = longest - 1
        assert longest == 1 or sum(-(-count // shorter) for count in counts) > most


@pytest.mark.parametrize("observables", ["grouped", "random"])
@pytest.mark.parametrize("seed", range(4))
def test_a_shot_serves_all_tiles(observables: Any, seed: int) -> None:
    head = qa.attention_circuit("qisa", num_qubits=3, num_observables=6, observables=observables, seed=seed)
    rows = np.zeros((12, len(head.circuit.parameters)))
    pub = EstimatorPub.coerce((head.circuit, [[each] for each in head.observables], rows), PRECISION)
    [wide] = tiling(23).tiled([pub]).pubs  # six tiles
    assert Plan(wide).size * 6 == Plan(pub).size

    def ibm_bases(pub: EstimatorPub) -> int:
        operators = [
            SparsePauliOp.from_sparse_observable(each) for each in pub.observables.sparse_observables_array().flat
        ]
        return len(get_measurement_bases(operators)[0])

    assert ibm_bases(wide) == ibm_bases(pub)


def test_unequal_rows_cost_no_execution_more(rng: np.random.Generator) -> None:
    pub = pub_of(rng, 3, 7)
    [wide] = tiling().tiled([pub]).pubs
    assert wide.parameter_values.size == 3 and len(wide.circuit.metadata[TILES]) == 3


def test_the_same_circuits_give_the_same_key_again_and_other_tiles_another(rng: np.random.Generator) -> None:
    pub = pub_of(rng, 3, 7)

    def request(where: Tiling) -> Request:
        return Request.of(where.tiled([pub]).pubs, PRECISION, "chain", "")

    tiles, again = tiling(), tiling()
    assert request(tiles).key == request(tiles).key == request(again).key
    assert len({request(tiling(count=count, spacing=gap)).key for count in (2, 3) for gap in (0, 1)}) == 4
    stored = Request.unpack(request(tiles).pack())
    assert stored.key == request(tiles).key
    assert stored.pubs[0].circuit.metadata[TILES] == [[0, 1, 2], [4, 5, 6], [8, 9, 10]]


def test_the_work_is_the_same_however_many_run_side_by_side(rng: np.random.Generator) -> None:
    pubs = [pub_of(rng, 3, 7), pub_of(rng, 3, 2)]
    for number, pub in enumerate(pubs):
        pub.circuit.metadata = {SOURCE: f"head {number}"}
    alone = Request.of(pubs, PRECISION, "one", "")
    works = {
        Request.of(tiling(count=count).tiled(pubs, ["head 0", "head 1"]).pubs, PRECISION, "other", "").work
        for count in (1, 2, 3)
    }
    assert works == {alone.work}
    other = tiling().tiled(pubs, ["head 0", "head 2"])
    assert Request.of(other.pubs, PRECISION, "other", "").work != alone.work


@pytest.mark.parametrize("count", [1, 3])
def test_parts_are_simulated_alone(rng: np.random.Generator, count: int) -> None:
    [wide] = tiling().tiled([pub_of(rng, 3, count)]).pubs
    parts = parts_of(wide)
    assert sorted(part.qubits for part in parts) == blocks(11, 3)[:count]
    whole = joined(wide, parts, exact([part.pub for part in parts]), {})
    np.testing.assert_allclose(whole.data.evs, exact([wide])[0].data.evs, atol=1e-12)


def test_what_a_gate_or_an_observable_connects_is_one_part(rng: np.random.Generator) -> None:
    circuit = QuantumCircuit(6, metadata={TILES: [[0, 1], [2, 3], [4, 5]]})
    circuit.h(range(6))
    circuit.cz([0, 2, 4], [1, 3, 5])
    for changed, expected in ((circuit, [(0, 1), (2, 3, 4, 5)]), (circuit.copy(), [(0, 1, 2, 3, 4, 5)])):
        if len(expected) == 1:
            changed.rzz(0.3, 1, 2)
        pub = EstimatorPub.coerce((changed, [["ZIIIII"], ["IIXXII"], ["IZZIII"], ["IIIIIZ"], ["IIIIII"]]), 0.0)
        if changed is circuit:
            pub = EstimatorPub.coerce((changed, [["IZZIII"], ["IIIIIZ"], ["IIIIXI"], ["IIIIII"], ["ZIIIII"]]), 0.0)
        parts = parts_of(pub)
        assert [part.qubits for part in parts] == expected
        whole = joined(pub, parts, exact([part.pub for part in parts]), {})
        np.testing.assert_allclose(whole.data.evs, exact([pub])[0].data.evs, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("tiles=0", "whole number of at least 1, got '0'"),
        ("tiles=-2", "whole number of at least 1, got '-2'"),
        ("tiles=2.5", "whole number of at least 1, got '2.5'"),
        ("tiles=many", "must be auto or a whole number"),
        ("tile_spacing=0", "tile_spacing is for tiles=auto"),
        ("tiles=1&tile_spacing=0", "runs one circuit at a time"),
        ("tiles=auto&tile_spacing=2", "at most 1, got '2'"),
    ],
)
@pytest.mark.parametrize("where", ["ibm:fake_manila", "braket:local"])
def test_bad_options_are_refused(where: str, options: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        qa.get_backend(f"{where}?{options}")


def test_tiles_that_do_not_fit_say_what_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QATTN_CACHE_DIR", str(tmp_path))
    with pytest.raises(
        ConfigError, match=r"tiles=50: \d\d circuits of 4 qubits fit on fake_tori.*at most tiles=\d\d, "
    ):
        qa.get_backend("ibm:fake_torino?tiles=50").tiling.tiles(4)  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match="tiles=6: 5 circuits of 4 qubits fit on local"):
        qa.get_backend("braket:local?tiles=6").tiling.tiles(4)  # type: ignore[union-attr]


def test_one_tile_is_noticed_once_and_runs_as_without() -> None:
    backend = qa.get_backend("ibm:fake_manila?tiles=auto&seed=1&shots=100&noise=off&optimization=0")
    head = qa.attention_circuit("qisa", num_qubits=3)
    with pytest.warns(TilesWarning, match="fake_manila has room for one circuit of 3 qubits at a time"):
        program = attention_program(head, backend)
    assert program.tiling is None and program.circuit.num_qubits == fake_device("fake_manila").num_qubits
    attention_program(head, backend)  # a second warning would be an error
