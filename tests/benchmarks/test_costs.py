"""The formulas of costs are those of what is built, and exponents are found where they are known."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.costs import FORMULAS, HEAD_SIZE, formulas_sheet, growth, layer, slope, value
from qiskit_qattn.evaluation.device_cost import estimate
from qiskit_qattn.nn.kinds import head_kind


@pytest.mark.parametrize("kind", FORMULAS)
def test_the_number_of_parameters_is_that_of_the_formula(kind: str):
    for d, n, reps in ((16, 5, 1), (32, 6, 2)):
        built = sum(weight.numel() for weight in layer(kind, T=3, d=d, n=n, L=reps).parameters())
        assert value(FORMULAS[kind].parameters, d=d, n=n, L=reps) == built


@pytest.mark.parametrize("kind", [kind for kind, formula in FORMULAS.items() if formula.circuits])
def test_circuits_and_depth_are_those_of_the_formula(kind: str):
    formula = FORMULAS[kind]
    assert head_kind(kind).circuit is not None
    for T, n, reps in ((3, 4, 1), (5, 5, 2)):
        module = layer(kind, T=T, d=16, n=n, L=reps)
        found = estimate(module, torch.randn(1, T, 16), "aer?shots=100")
        bases = range(1, math.ceil(HEAD_SIZE / n) + 2)
        assert found.total.circuits in [value(formula.circuits, d=16, n=n, T=T, b=b) for b in bases]
        assert found.depth == value(formula.depth, d=16, n=n, L=reps)


def test_every_row_has_a_formula_and_every_power_law_its_exponent():
    assert slope((1, 2, 4, 8), [3 * x**1.5 for x in (1, 2, 4, 8)]) == pytest.approx(1.5)
    assert growth((4, 5, 6), [3 * n**2 for n in (4, 5, 6)]) == "n^2.00"
    assert growth((4, 5, 6), [3 * 2**n for n in (4, 5, 6)]) == "2.00ⁿ"
    rows = formulas_sheet(list(FORMULAS)).rows
    assert len(rows) == len(FORMULAS)
    assert all("**" not in cell for row in rows for cell in row)
