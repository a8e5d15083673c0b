"""What a report says of mitigation: which points it compares, and when it claims a gain."""

from __future__ import annotations

from typing import Any

import pytest

from qiskit_qattn.evaluation.noise_sweep.mitigated import interval, mitigation_parts, rows_of, verdict


def point(losses: list[float], *, on: str = "", strength: float | None = None, mitigation: str = "") -> dict[str, Any]:
    return {
        "model": "trained",
        "strength": strength,
        "shots": None,
        "on": on,
        "mitigation": mitigation,
        "loss": sum(losses) / len(losses),
        "losses": losses,
        "change": 0.1,
        "change_interval": [0.05, 0.15],
        "gain": -0.01,
        "gain_interval": [-0.02, 0.01],
    }


def test_each_mitigation_stands_below_what_it_mitigates():
    raw, other, exact = point([1.0, 2.0], on="A"), point([1.0, 2.0], on="B"), point([1.0, 2.0])
    sampled = exact | {"shots": 10}
    trex, zne = point([1.0, 2.0], on="B", mitigation="trex"), point([1.0, 2.0], strength=0.1, mitigation="zne")
    plain = point([1.0, 2.0], strength=0.1)
    alone = point([1.0, 2.0], strength=0.2)
    record = {"points": [exact, plain, alone, sampled, raw, other, zne, trex]}
    assert rows_of(record) == [plain, zne, raw, other, trex]
    assert mitigation_parts({"points": [exact, alone, sampled]}) == []


def test_backends_are_compared_with_the_first_window_by_window():
    record = {"points": [point([1.0, 5.0, 3.0], on="A"), point([1.5, 5.5, 3.5], on="B")]}
    assert mitigation_parts(record)[-1] == "- `B` minus `A`: +0.5000, 95 % interval +0.5000 to +0.5000"


def test_a_gain_is_claimed_only_where_its_interval_excludes_zero(rng):
    assert [verdict(ends) for ends in ([-0.2, -0.1], [-0.1, 0.1], [0.1, 0.2])] == [
        "lower loss",
        "no gain shown",
        "higher loss",
    ]
    low, high = interval(list(rng.normal(0.5, 1.0, 60)), 0)
    assert low < 0.5 < high and high - low == pytest.approx(4 / 60**0.5, rel=0.3)
