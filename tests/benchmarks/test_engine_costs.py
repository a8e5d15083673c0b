"""The table that the command measures is one that the engine takes."""

from __future__ import annotations

from benchmarks import engine_costs
from qiskit_qattn.simulation import cost


def test_a_table_is_measured():
    before = cost.COSTS
    found = engine_costs.measure(rows=4, turns=1)
    assert isinstance(found, cost.Costs) and found.dense_qubits in engine_costs._DENSE
    assert cost.COSTS is before
