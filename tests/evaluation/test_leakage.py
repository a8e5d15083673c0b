from __future__ import annotations

import copy
import functools
import math
import pickle
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from qiskit_qattn.errors import ConfigError
from qiskit_qattn.evaluation.gradient_leakage import NO_MODULE
from qiskit_qattn.evaluation.leakage import leakage
from qiskit_qattn.nn.config import GPTConfig
from qiskit_qattn.nn.gpt import GPT


class OneHead(nn.Module):
    """A head of attention that may, as published code did, multiply by the transposed weights."""

    def __init__(self, *, transposed: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 8)
        self.qkv = nn.Linear(8, 24)
        self.out = nn.Linear(8, 7)
        self.dropout = nn.Dropout(0.5)
        self.transposed = transposed

    def forward(self, idx: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.dropout(self.embed(idx))).chunk(3, dim=-1)  # (B, T, 8)
        length = idx.shape[1]
        mask = torch.ones(length, length, dtype=torch.bool).triu(1)  # (T, T)
        weights = (q @ k.mT).masked_fill(mask, -math.inf).softmax(-1)  # (B, T, T)
        return self.out((weights.mT if self.transposed else weights) @ v)  # (B, T, 7)


def first_future(idx: torch.Tensor) -> torch.Tensor:
    """Let position 2 of 6 read token 4, and nothing else the future."""
    logits = torch.nn.functional.one_hot(idx, 5).float()  # (B, T, 5)
    logits[:, 2, 0] += 0.25 * idx[:, 4]
    return logits


def test_a_causal_head_does_not_leak_and_a_transposed_one_does():
    assert leakage(OneHead(transposed=False), 7, 9) == 0
    assert leakage(OneHead(transposed=True), 7, 9) > 1e-3


def test_a_token_that_is_ruled_out_is_no_leak():
    def without_token_0(idx: torch.Tensor) -> torch.Tensor:
        logits = first_future(idx)
        logits[..., 0] = -math.inf
        return logits

    assert leakage(without_token_0, 5, 6) == 0


def test_it_says_where_the_leak_is():
    found = leakage(first_future, 5, 6)
    assert (found.edited, found.changed, found.edits) == (4, 2, 20)
    assert 0.25 <= found <= 1.0
    assert isinstance(found, float)


@pytest.mark.parametrize("wrap", [lambda y: (None, y), lambda y: [y, 0], lambda y: {"logits": y}])
def test_logits_may_lie_in_a_container(wrap: Any):
    assert leakage(lambda idx: wrap(first_future(idx)), 5, 6) == leakage(first_future, 5, 6)


def test_logits_may_be_an_attribute():
    assert leakage(lambda idx: SimpleNamespace(logits=first_future(idx)), 5, 6) == leakage(first_future, 5, 6)


def test_a_scalar_loss_in_front_is_passed_over():
    assert leakage(lambda idx: (torch.tensor(1.0), first_future(idx)), 5, 6) > 0.2


@pytest.mark.parametrize("heads", ["classical:2", "qisa:1,classical:1", "zz:2"])
def test_sizes_come_from_the_configuration(heads: str):
    model = GPT(GPTConfig(vocab_size=11, block_size=6, n_layer=2, n_head=2, n_embd=16, heads=heads, num_qubits=3))
    assert (leakage(model), leakage(model).gradient, leakage(model).passed) == (0, 0, True)
    assert leakage(model, block_size=4).edits == 12


def test_the_model_and_the_global_generators_stay_as_they_were():
    model = OneHead(transposed=True)
    model.qkv.eval()
    modes = [part.training for part in model.modules()]
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    assert leakage(model, 7, 5) == leakage(model, 7, 5)
    assert [part.training for part in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == numpy_before).all()
    assert all(p.grad is None for p in model.parameters())


def test_the_mode_is_restored_after_an_error():
    model = nn.Embedding(3, 2)
    with pytest.raises(IndexError):
        leakage(model, 50, 5)
    assert model.training


def test_nan_is_no_clean_bill():
    assert math.isnan(leakage(lambda idx: torch.full((*idx.shape, 3), math.nan), 3, 4))


def test_a_single_position_has_no_past():
    assert leakage(lambda idx: torch.zeros(*idx.shape, 3), 3, 1) == 0


@pytest.mark.parametrize(
    ("model", "sizes", "told"),
    [
        (first_future, {}, "vocab_size"),
        (first_future, {"vocab_size": 5}, "block_size"),
        (first_future, {"vocab_size": 1, "block_size": 5}, "at least 2"),
        (first_future, {"vocab_size": 5, "block_size": 0}, "at least 1"),
        (first_future, {"vocab_size": 5, "block_size": 5, "edits": 0}, "edits"),
        (first_future, {"vocab_size": 5, "block_size": 5, "tolerance": -1}, "tolerance"),
        (lambda idx: first_future(idx)[:, -1:], {"vocab_size": 5, "block_size": 6}, r"gave \(4, 1, 5\)"),
        (lambda idx: None, {"vocab_size": 5, "block_size": 6}, "no tensor"),
    ],
)
def test_what_cannot_be_checked_is_refused(model: Any, sizes: dict[str, int], told: str):
    with pytest.raises(ConfigError, match=told):
        leakage(model, **sizes)


def test_the_figure_can_be_copied():
    found = leakage(OneHead(transposed=True), 7, 5)
    for other in (copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        assert (other, vars(other)) == (found, vars(found))
        assert (other.edited, other.changed, other.summary()) == (found.edited, found.changed, found.summary())


def encoder(dtype: torch.dtype = torch.float32) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_model_of_vectors_is_certified_with_its_mask_and_fails_without(dtype: torch.dtype):
    model = encoder(dtype)
    mask = nn.Transformer.generate_square_subsequent_mask(6, dtype=dtype)
    causal = leakage(functools.partial(model, mask=mask, is_causal=True), block_size=6, width=8)
    assert (causal, causal.gradient, causal.verdict) == (0, 0, "passed")
    blind = leakage(model, block_size=6, width=8)
    assert blind.verdict == "failed" and blind > 1e-3 and blind.gradient > 1e-3
    assert all(part.training for part in model.modules())


def test_vectors_of_a_function_are_differentiated_on_demand():
    def peeks(x: torch.Tensor) -> torch.Tensor:
        return x + 1e-3 * x.roll(-1, 1) * (torch.arange(x.shape[1]) == 2)[:, None]

    found = leakage(peeks, block_size=5, width=3)
    assert (found.edited, found.changed, found.gradient, found.skipped) == (3, 2, None, NO_MODULE)
    assert leakage(peeks, block_size=5, width=3, gradients=True).worst_gradients[0][:2] == (3, 2)
    assert leakage(lambda x: x.cumsum(1), block_size=5, width=3, gradients=True).passed


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ({"width": 3, "vocab_size": 5, "block_size": 5}, "give one of them"),
        ({"width": 3}, "give block_size"),
        ({"width": 0, "block_size": 5}, "width is 0"),
        ({"block_size": 5}, "or width for a model that takes vectors"),
    ],
)
def test_sizes_of_vectors_are_checked(sizes: dict[str, int], told: str):
    with pytest.raises(ConfigError, match=told):
        leakage(lambda x: x, **sizes)


def test_a_part_of_a_models_arguments_may_be_given():
    model = OneHead(transposed=True)
    assert leakage(functools.partial(model), 7, 5) == leakage(model, 7, 5)
    assert leakage(functools.partial(model), 7, 5).gradient == leakage(model, 7, 5).gradient > 0


def test_a_method_of_a_module_is_run_in_evaluation_mode_too():
    model = OneHead(transposed=False)
    for call in (model.forward, functools.partial(model.forward)):
        found = leakage(call, 7, 5)
        assert (found, found.gradient, found.verdict, model.training) == (0, 0, "passed", True)


@pytest.mark.parametrize("edits", [1, 4])
def test_the_second_axis_is_no_batch(edits: int):
    """Without batch_first, torch's layers mix the first axis, and edits of the second would show nothing."""
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=False)
    with pytest.raises(ConfigError, match="batch_first=True"):
        leakage(model, block_size=6, width=8, edits=edits)
    model.eval()
    found = leakage(lambda x: model(x), block_size=6, width=8, edits=edits)
    assert (found, found.noise > 1e-3, found.verdict) == (0, True, "undecided")
    with pytest.raises(ConfigError, match="other sequences of the batch"):
        leakage(lambda x: model(x), block_size=6, width=8, edits=edits, gradients=True)
