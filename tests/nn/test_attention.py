"""The causal attention core and its scores."""

import pytest
import torch

from qiskit_qattn.nn.attention import CausalSelfAttention, KeyValueCache, causal_attention
from qiskit_qattn.nn.config import GPTConfig

SCORES = ["dot", "gaussian", "qisa"]


def by_hand(q, k, v, score):
    """Attention by its definition: one row at a time."""
    out = torch.zeros(*q.shape[:-1], v.shape[-1])
    for i in range(q.shape[-2]):
        past = k[..., : i + 1, :]
        if score == "dot":
            logits = (q[..., i : i + 1, :] * past).sum(-1) / q.shape[-1] ** 0.5
        else:
            logits = -(q[..., i : i + 1, :] - past).square().sum(-1)
            logits = logits.exp() if score == "qisa" else logits
        weights = logits.softmax(-1)
        out[..., i, :] = (weights[..., None] * v[..., : i + 1, :]).sum(-2)
    return out


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("width", [1, 4])
def test_scores_are_their_definitions(score, width):
    q, k, v = torch.randn(2, 3, 7, width), torch.randn(2, 3, 7, width), torch.randn(2, 3, 7, 5)
    torch.testing.assert_close(causal_attention(q, k, v, score), by_hand(q, k, v, score), atol=1e-5, rtol=0)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("steps", [1, 3, 7])
def test_the_last_queries_alone_give_the_last_rows(score, steps):
    q, k, v = torch.randn(2, 3, 7, 4), torch.randn(2, 3, 7, 4), torch.randn(2, 3, 7, 5)
    whole = causal_attention(q, k, v, score)
    torch.testing.assert_close(causal_attention(q[..., -steps:, :], k, v, score), whole[..., -steps:, :])


@pytest.mark.parametrize("score", SCORES)
def test_rows_of_weights_sum_to_one(score):
    q, k = torch.randn(1, 1, 6, 4), torch.randn(1, 1, 6, 4)
    torch.testing.assert_close(causal_attention(q, k, torch.ones(1, 1, 6, 1), score), torch.ones(1, 1, 6, 1))


@pytest.mark.parametrize("score", SCORES)
def test_gradcheck(score):
    tensors = [torch.randn(1, 1, 4, 3, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    assert torch.autograd.gradcheck(lambda q, k, v: causal_attention(q, k, v, score), tensors)


@pytest.mark.parametrize("heads", ["qisa-v1:1,qisa-v2:1,zz:1,classical:1", "rff:1,quadratic:1,angle:1,qsann:1"])
def test_kinds_mix_in_one_layer_and_the_cache_gives_the_same(heads):
    config = GPTConfig(n_layer=1, n_head=4, n_embd=16, block_size=8, heads=heads, num_qubits=4)
    attention = CausalSelfAttention(config, config.layers()[0]).eval()
    x = torch.randn(2, 8, 16)
    whole = attention(x)
    cache, parts = KeyValueCache(), []
    for piece in x.split([3, 1, 1, 3], 1):
        parts.append(attention(piece, cache))
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=0)
