"""The formulas of costs are those of what is built, and exponents are found where they are known."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch

from benchmarks import costs
from benchmarks.cost_formulas import FORMULAS, HEAD_SIZE, SAMPLED, formulas_sheet, value
from benchmarks.costs import QUICK, SAMPLED_ROW, growth, layer, measure, sent_circuits, slope
from benchmarks.machine import describe
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
    assert len(rows) == len(FORMULAS) + len(SAMPLED)
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


def test_sampled_attention_takes_a_circuit_for_each_row_and_head():
    """Rows that see one key are equal, so that one circuit is that of all heads."""
    formula = SAMPLED["amplitude?qubits=n"]
    for T, n in ((4, 2), (7, 3)):
        found, depth = sent_circuits("classical", T, 16, 4, sampling=f"amplitude?qubits={n}")
        assert found == value(formula.circuits, d=16, n=n, T=T) - 1
        assert depth == value(formula.depth, d=16, n=n)


def test_what_was_measured_at_other_sizes_is_measured_again(tmp_path: Path):
    kept, seen = tmp_path / "costs.part.json", []
    for sizes in (QUICK, QUICK, dataclasses.replace(QUICK, samples=(2, 4))):
        measure([], sizes, kept, seen.append)
    assert seen == [SAMPLED_ROW] * 2
    kept.write_text("{")
    measure([], QUICK, kept, seen.append)
    assert len(seen) == 3 and json.loads(kept.read_text())["found"]


def test_an_interrupted_run_goes_on_and_the_page_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Kinds that were measured are not measured again, unless at other sizes; the page names the machine."""
    monkeypatch.setattr(costs.qa, "list_heads", lambda: ["classical", "qisa-v3"])
    page, seen = tmp_path / "costs.md", []
    kept = tmp_path / "costs.part.json"

    def stop(kind: str) -> None:
        seen.append(kind)
        if kind == "qisa-v3":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(["classical", "qisa-v3"], QUICK, kept, stop)
    before = json.loads(kept.read_text())
    assert list(before["found"]) == ["classical"]
    costs.main(["--quick", "--out", str(page)])
    text = page.read_text()
    assert not kept.exists() and seen == ["classical", "qisa-v3"]
    assert f"| `classical` | {' | '.join(before['found']['classical'].values())} |" in text
    assert describe() in text and "## Formulas" in text and "could not be measured" not in text
    lines = text.split("## Fitted exponents")[1].splitlines()
    assert [line.split(" | ")[0][3:-1] for line in lines if line.startswith("| `")] == [
        "classical",
        "qisa-v3",
        SAMPLED_ROW,
    ]


@pytest.mark.more
def test_the_page_is_written_with_every_kind(tmp_path: Path):
    costs.main(["--quick", "--out", str(tmp_path / "costs.md")])
    text = (tmp_path / "costs.md").read_text()
    measured = text.split("## Fitted exponents")[1]
    assert "could not be measured" not in text
    for kind in (*costs.qa.list_heads(), SAMPLED_ROW):
        assert f"| `{kind}` |" in measured
