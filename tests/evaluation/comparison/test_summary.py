from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from qiskit_qattn.evaluation.comparison.cell import causality
from qiskit_qattn.evaluation.comparison.study import Cell, Study
from qiskit_qattn.evaluation.comparison.summary import FIGURES, summarise

Plan = Callable[..., Study]
Records = dict[Cell, dict[str, Any]]
SHIFTS = {"classical": 0.0, "qisa": 0.0, "rff": -0.5}


class ReadsAhead(nn.Module):
    """A language model whose logits hold the mean of all tokens, later ones too."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 5)

    def forward(self, idx: torch.Tensor) -> torch.Tensor:
        x = self.embedding(idx)  # (B, T, V)
        return x + x.mean(1, keepdim=True)


@pytest.fixture
def study(plan: Plan) -> Study:
    return plan("qisa,rff", seeds=8)


@pytest.fixture
def cells(study: Study) -> Records:
    """Return the records of simulated cells: rff better than the others by half a nat, all causal."""
    generator = torch.Generator().manual_seed(3)
    found = {}
    for cell in study.cells():
        noise = float(torch.randn((), generator=generator))
        record: dict[str, Any] = {
            "kind": cell.kind,
            "seed": cell.seed,
            "causality": causality(nn.Embedding(5, 5), **SIZES),
        }
        for group, names in FIGURES.items():
            values = dict.fromkeys(names, 1.0)
            record |= {group: values} if group else values
        record["val_loss"] = 2 + cell.seed + SHIFTS[cell.kind] + 0.01 * noise
        found[cell] = record
    return found


SIZES = {"vocab_size": 5, "block_size": 4}


def test_kinds_are_judged_by_pairs_of_one_seed(study: Study, cells: Records):
    found = summarise(study, cells)
    assert found["rff"]["against_reference"]["verdict"] == "better"
    assert found["qisa"]["against_reference"]["verdict"] == "no difference shown"
    assert found["classical"]["against_reference"] is None
    assert found["rff"]["against_reference"]["mean_difference"] == pytest.approx(-0.5, abs=0.02)
    assert all(summary["withheld"] is None for summary in found.values())
    assert found["rff"]["seeds"] == [*range(8)]


def test_timings_enter_no_verdict(study: Study, cells: Records):
    before = {kind: summary["against_reference"] for kind, summary in summarise(study, cells).items()}
    for cell, record in cells.items():
        for name in ("tokens_per_second", "train_seconds", "wall_seconds", "cpu_seconds", "qpu_seconds"):
            record[name] = 1e6 if cell.kind == "rff" else 1e-6
    assert {kind: summary["against_reference"] for kind, summary in summarise(study, cells).items()} == before


def test_a_model_that_reads_ahead_is_not_ranked_however_good(study: Study, cells: Records):
    certificate = causality(ReadsAhead(), **SIZES)
    assert not certificate["passed"]
    cells[Cell(5, "rff")]["causality"] = certificate
    found = summarise(study, cells)
    assert found["rff"]["against_reference"] is None
    assert found["rff"]["leaks"] == [5]
    assert "withheld" in found["rff"]["sentence"]
    assert "reads its own future (seed 5)" in found["rff"]["sentence"]
    assert found["qisa"]["against_reference"]["verdict"] == "no difference shown"


def test_a_verdict_stands_when_other_kinds_are_done(study: Study, cells: Records):
    early = {cell: record for cell, record in cells.items() if cell.kind != "qisa"}
    assert summarise(study, early)["rff"]["against_reference"] == summarise(study, cells)["rff"]["against_reference"]


def test_nothing_is_judged_against_a_reference_that_reads_ahead(study: Study, cells: Records):
    cells[Cell(0, "classical")]["causality"] = causality(ReadsAhead(), **SIZES)
    found = summarise(study, cells)
    for kind in ("qisa", "rff"):
        assert found[kind]["against_reference"] is None
        assert "the reference classical has none" in found[kind]["withheld"]


def test_a_model_without_a_number_is_not_causal():
    certificate = causality(lambda idx: torch.full((*idx.shape, 5), torch.nan), **SIZES)
    assert (certificate["passed"], certificate["leakage"]) == (False, None)


def test_a_kind_with_missing_cells_is_not_judged(study: Study, cells: Records):
    del cells[Cell(2, "rff")], cells[Cell(3, "rff")]
    found = summarise(study, cells)
    assert found["rff"]["withheld"] == "2 of its 8 cells are not done"
    assert found["rff"]["figures"]["val_loss"]["mean"] is not None
    empty = summarise(study, {})
    assert empty["rff"]["figures"]["val_loss"] == {"mean": None, "sd": None}
    assert all(summary["against_reference"] is None for summary in empty.values())
