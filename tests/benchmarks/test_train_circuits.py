"""Starts of circuit weights are what they are called, and each tool is compared with training without it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from qiskit.quantum_info import Operator

import qiskit_qattn as qa
from qiskit_qattn.evaluation.circuit_measures import gradient_variance

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def study(monkeypatch, own_kinds):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from circuit_training import starts, tools

    return starts, tools


@pytest.mark.parametrize("name", ["qisa-v3", "zz", "angle", "qsann", "orthogonal"])
def test_identity_blocks_are_the_identity_and_others_are_not(study, name):
    starts, _ = study
    ansatz = starts.circuit_of(name, 3, 4, True).ansatz
    generator = torch.Generator().manual_seed(3)
    empty = torch.empty(ansatz.num_parameters, dtype=torch.float64)
    for start in ("identity", "uniform"):
        angles = starts.draw(start, empty, 4, generator)
        distance = abs(Operator(ansatz.assign_parameters(angles.tolist())).data - torch.eye(8).numpy()).max()
        assert (distance < 1e-12) == (start == "identity")
        assert len(set(angles.tolist())) == len(angles) // (2 if start == "identity" else 1)


def test_small_angles_shrink_with_the_number_of_layers(study):
    starts, _ = study
    generator = torch.Generator().manual_seed(5)
    for reps, spread in ((2, 0.25), (14, 0.125)):
        angles = starts.draw("small", torch.empty(20_000), reps, generator)
        assert float(angles.std()) == pytest.approx(spread, rel=0.02)


def test_squared_slopes_at_uniform_angles_are_the_variance_of_gradients(study):
    starts, _ = study
    circuit = qa.attention_circuit("angle", 3, reps=2)
    found = starts.squared_slopes(circuit, "uniform", 2, torch.Generator().manual_seed(7))
    generator = torch.Generator().manual_seed(7)
    x = 0.25 * torch.randn(512, 3, generator=generator, dtype=torch.float64)
    assert found == pytest.approx(gradient_variance(circuit, x, generator), rel=1e-9)


@pytest.mark.more
def test_a_tool_is_compared_with_training_without_it_seed_by_seed(study, monkeypatch):
    _, tools = study
    monkeypatch.setattr(tools, "_WINDOWS", 8)
    rows = list(tools.rows(["zz-noise"], seeds=2, steps=8))
    assert [row[1:3] for row in rows] == [
        (tool.name, where) for tool in tools.UNDER_NOISE for where in ("noise", "exact")
    ]
    assert all(float(row[6]) >= 0.5 for row in rows)  # two seeds show nothing
    assert len({row[3] for row in rows}) == 2  # without the tool, under noise and exact
    assert any(float(row[4]) for row in rows)


def test_angles_are_shifted_for_one_step_only(study):
    _, tools = study
    heads = [qa.QuantumHead(qa.attention_circuit("angle", 2))]
    before = heads[0].weight.detach().clone()
    with tools._shifted(heads, 0.1, torch.Generator().manual_seed(1)):
        assert not torch.equal(heads[0].weight, before)
    assert torch.equal(heads[0].weight, before)
