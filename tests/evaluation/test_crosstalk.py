"""The crosstalk check: it finds an interaction between neighbouring tiles, and nothing where there is none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from qiskit import QuantumCircuit
from qiskit.primitives import BaseEstimatorV2
from qiskit.primitives.containers.estimator_pub import EstimatorPub

import qiskit_qattn as qa
from qiskit_qattn.backends.registry import Backend
from qiskit_qattn.backends.tile_options import Tiles
from qiskit_qattn.backends.tile_placement import blocks
from qiskit_qattn.backends.tiling import TILES, Tiling
from qiskit_qattn.errors import ConfigError
from qiskit_qattn.evaluation.crosstalk import crosstalk

SHOTS = 4000


class Leaky(BaseEstimatorV2):
    """A device on which the ends of neighbouring tiles interact, exp(-iθ ZZ / 2), simulated by Aer as one circuit."""

    def __init__(self, angle: float, estimator: BaseEstimatorV2) -> None:
        self._angle, self._estimator = angle, estimator

    def run(self, pubs: Any, *, precision: float | None = None) -> Any:
        leaking = [self._leaking(EstimatorPub.coerce(pub, precision)) for pub in pubs]
        return self._estimator.run(leaking, precision=precision)

    def _leaking(self, pub: EstimatorPub) -> EstimatorPub:
        ends = {tile[-1] + 1: tile[-1] for tile in pub.circuit.metadata[TILES]}
        circuit: QuantumCircuit = pub.circuit.copy_empty_like()
        circuit.compose(pub.circuit, inplace=True)
        for first, *_ in pub.circuit.metadata[TILES]:
            if first in ends:
                circuit.rzz(self._angle, ends[first], first)
        return EstimatorPub(circuit, pub.observables, pub.parameter_values, pub.precision)


def backend(angle: float, count: int, shots: int | None = SHOTS) -> Backend:
    tiling = Tiling("leaky", 2 * count, Tiles(None, 0), lambda size: blocks(2 * count, size, None, 0))
    aer = qa.get_backend("aer" if shots is None else f"aer?shots={shots}&seed=7")
    return replace(aer, name="leaky", estimator=Leaky(angle, aer.estimator), tiling=tiling)


@pytest.fixture(scope="module")
def head() -> Any:
    return qa.attention_circuit("angle", 2, observables=["XI", "IX", "YY"])


@pytest.mark.parametrize(("angle", "count", "disturbed"), [(0.0, 3, 0), (0.6, 2, 2), (0.6, 3, 3)])
def test_an_interaction_of_neighbours_is_found(head: Any, angle: float, count: int, disturbed: int) -> None:
    found = crosstalk(head, backend(angle, count))
    assert len(found.tiles) == count and found.rows == 4 and found.shots == SHOTS
    assert len(found.disturbed) == disturbed
    assert [tile.qubits for tile in found.tiles] == blocks(2 * count, 2, None, 0)
    for tile in found.tiles:
        assert tile.z == pytest.approx(tile.difference / tile.error)


def test_exact_values_are_compared_too(head: Any) -> None:
    assert not crosstalk(head, backend(0.0, 2, shots=None)).disturbed
    assert len(crosstalk(head, backend(0.6, 2, shots=None)).disturbed) == 2


def test_a_backend_that_runs_one_circuit_at_a_time_is_refused(head: Any) -> None:
    with pytest.raises(ConfigError, match="leaky runs 2-qubit circuits one at a time; give tiles=auto"):
        crosstalk(head, replace(backend(0.0, 2), tiling=None))
    with pytest.raises(ConfigError, match="statevector runs 2-qubit circuits one at a time"):
        crosstalk(head, qa.get_backend("statevector"))


def test_a_snapshot_has_none() -> None:
    found = crosstalk(
        qa.attention_circuit("qisa", 2), qa.get_backend("ibm:fake_torino?tiles=3&seed=2&shots=500"), rows=2
    )
    assert len(found.tiles) == 3 and not found.disturbed
