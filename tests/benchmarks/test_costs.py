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
    assert head_kind(kind).circuits
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


@pytest.mark.parametrize("kind", [kind for kind, formula in FORMULAS.items() if formula.circuits])
def test_shots_are_those_of_the_first_gains(kind: str):
    shots = formulas_sheet([kind]).rows[0][-1]
    gains = dict(layer(kind, T=1, d=16, n=5).named_parameters()).get(f"maps.{kind}.gain")
    known = {"2ⁿ s²/ε²": 2**5, "h s²/ε²": HEAD_SIZE, "q (q - 1)/2 s²/ε²": 15}
    assert shots in (*known, "1/ε²", "g²/ε²")
    if shots in known:
        assert gains is not None
        assert float(gains.detach().flatten()[0]) ** 2 == pytest.approx(known[shots] * 0.25**2)
