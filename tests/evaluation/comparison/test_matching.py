from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from qiskit_qattn.errors import ConfigError
from qiskit_qattn.evaluation.comparison.matching import TOLERANCE, check_matched, match_sizes, model_size
from qiskit_qattn.evaluation.comparison.study import Cell, Study
from qiskit_qattn.nn import kinds
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.nn.head_kind import HeadKind, HeadShape
from qiskit_qattn.nn.kinds import HEAD_KINDS
from qiskit_qattn.training.config import resolve
from qiskit_qattn.training.data import load_corpus

Plan = Callable[..., Study]
SMALL = resolve({"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 8, "heads": "classical:2", "num_qubits": 3})


def test_every_kind_is_within_one_percent_of_the_reference():
    sizes = match_sizes(SMALL, HEAD_KINDS, "classical", 65)
    check_matched(sizes, "classical")
    assert sizes["classical"].n_inner == 64
    for size in sizes.values():
        assert abs(size.total / sizes["classical"].total - 1) <= TOLERANCE
        assert size.circuit == 0 or size.num_qubits >= 3


def test_the_models_that_are_trained_have_the_sizes_that_are_stated(plan: Plan):
    study = plan("qsann,frozen,qisa-v2")
    for kind in study.kinds:
        config = study.cell_config(Cell(0, kind))
        model = GPT(config.model)
        size = model_size(study.config, kind, config.model.n_inner, 65)
        assert (size.total, size.circuit) == tuple(model.num_parameters()[name] for name in ("total", "quantum"))
        assert size.trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_a_frozen_kind_is_the_same_network_as_the_kind_it_is_frozen_from():
    sizes = match_sizes(SMALL, ["classical", "qisa", "frozen"], "classical", 65)
    assert sizes["frozen"].n_inner == sizes["qisa"].n_inner
    assert sizes["frozen"].total == sizes["qisa"].total
    assert sizes["frozen"].trainable == sizes["qisa"].trainable - sizes["qisa"].circuit


def test_the_reference_keeps_its_width():
    sizes = match_sizes(SMALL.replace(n_inner=40), ["qisa", "classical"], "qisa", 65)
    assert sizes["qisa"].n_inner == 40
    assert sizes["qisa"].deviation == 0


def test_random_features_that_are_no_parameters_are_stated():
    assert model_size(SMALL, "rff", 0, 65).fixed == 2 * 2 * (16 * 16 + 16)
    assert model_size(SMALL, "classical", 0, 65).fixed == 0


class Projected(nn.Module):
    """Values that are a fixed random projection of the features."""

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        self.register_buffer("projection", torch.randn(shape.count, 3, shape.head_size))  # (H, 3, h)
        self.register_buffer("scratch", torch.zeros(5), persistent=False)

    projection: torch.Tensor

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features @ self.projection


def test_fixed_values_of_a_registered_kind_are_stated(monkeypatch: pytest.MonkeyPatch):
    kind = HeadKind("projected", values=Projected, num_features=lambda shape: 3)
    monkeypatch.setitem(kinds._KINDS, "projected", kind)
    assert model_size(SMALL, "projected", 0, 65).fixed == 2 * 2 * 3 * 8


def test_a_kind_of_the_whole_token_gets_the_qubits_it_needs(plan: Plan):
    sizes = plan("qisa-v2,qisa", num_qubits=2).sizes
    assert (sizes["qisa-v2"].num_qubits, sizes["qisa"].num_qubits) == (3, 2)


def test_what_cannot_be_matched_is_told_with_the_reason(plan: Plan):
    with pytest.raises(ConfigError, match=r"quadratic has [\d,]+ \(\+.*even with the narrowest MLP"):
        plan("quadratic", num_qubits=7)
    with pytest.raises(ConfigError, match="a unit of n_inner is a larger step"):
        plan("angle", n_layer=8, n_embd=2, num_qubits=1)
    study = plan("quadratic", num_qubits=7, allow_unmatched=True)
    assert not study.sizes["quadratic"].matched
    assert "--allow-unmatched" in study.command()


def test_counting_draws_no_random_numbers():
    before = torch.get_rng_state()
    match_sizes(SMALL, ["classical", "qisa"], "classical", 65)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_mix_of_kinds_is_matched_and_built_as_it_says(plan: Plan):
    study = plan("qisa:1,classical:1;qisa-v2:1,rff:1", n_head=2, heads="classical:2", num_qubits=2)
    for kind in study.kinds[1:]:
        config = study.cell_config(Cell(0, kind))
        assert config.model.heads == kind
        assert abs(study.sizes[kind].deviation) <= TOLERANCE
        vocab_size = load_corpus(config.data, 8).tokenizer.vocab_size
        model = GPT(replace(config.model, vocab_size=vocab_size))
        assert sum(p.numel() for p in model.parameters()) == study.sizes[kind].total
    assert study.cell_folder(Cell(0, study.kinds[1])).name == "qisa=1+classical=1-s0"
    assert [size.num_qubits for size in study.sizes.values()] == [0, 2, 3]
    with pytest.raises(ConfigError, match="has 3 heads per layer, but n_head is 2"):
        plan("qisa:2,classical:1", n_head=2, heads="classical:2")
