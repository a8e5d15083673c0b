"""The causal attention core and its scores."""

import pytest
import torch

from qiskit_qattn import GPT, get_backend
from qiskit_qattn.backends.counting import CountingEstimator
from qiskit_qattn.backends.gradients import SPSA, ParameterShift, Simulated
from qiskit_qattn.backends.registry import Backend
from qiskit_qattn.nn.attention import CausalSelfAttention, KeyValueCache, causal_attention
from qiskit_qattn.nn.config import GPTConfig
from qiskit_qattn.simulation.estimator import TorchEstimator

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


def small_model(heads):
    torch.manual_seed(3)
    config = GPTConfig(vocab_size=9, block_size=4, n_layer=2, n_head=2, n_embd=4, heads=heads, num_qubits=2)
    return GPT(config).double()


def counted(gradient):
    return Backend("counted", CountingEstimator(estimator=TorchEstimator()), gradient=gradient)


@pytest.mark.parametrize("heads", ["qisa:1,zz:1", "angle:2", "qsann:1,angle:1", "qisa-v1:1,zz:1", "zz:1,classical:1"])
@pytest.mark.parametrize(("gradient", "backward"), [(ParameterShift(), 2), (SPSA(samples=1), 2), (Simulated(), 0)])
def test_a_layer_is_one_job_a_pass(heads, gradient, backward):
    """Two layers, of heads of several kinds or with q, k and v as circuits: two jobs forward, two backward."""
    model, idx = small_model(heads), torch.tensor([[1, 2, 3], [4, 5, 6]])
    _, expected = model(idx, idx)
    backend = counted(gradient)
    model.to_backend(backend)
    _, loss = model(idx, idx)
    torch.testing.assert_close(loss, expected, atol=1e-10, rtol=0)
    assert backend.estimator.total.jobs == 2
    kinds = [len(layer.maps) - ("classical" in layer.counts) for layer in model.attention_layers()]
    assert [len(pubs) for pubs in backend.estimator.pubs] == kinds  # a PUB a kind, whatever the heads and tokens
    loss.backward()
    assert backend.estimator.total.jobs == 2 + backward
    if not isinstance(gradient, SPSA):
        ours = {name: p.grad.clone() for name, p in model.named_parameters()}
        model.zero_grad()
        model.to_backend(get_backend("statevector"))(idx, idx)[1].backward()
        torch.testing.assert_close(ours, {name: p.grad for name, p in model.named_parameters()}, atol=1e-8, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_tokens_are_evaluated_once(dtype):
    """Their angles are equal up to rounding, which depends on the place in the batch."""
    model, backend = small_model("qisa:1,zz:1").to(dtype), counted(ParameterShift())
    model.to_backend(backend)
    model(torch.tensor([[1, 2, 3], [1, 2, 4], [1, 2, 3]]))
    assert backend.estimator.pubs == [[4, 4], [4, 4]]


def test_heads_on_other_devices_ask_by_themselves():
    model, idx = small_model("qisa:1,zz:1"), torch.tensor([[1, 2]])
    expected = model(idx, idx)[1]
    first, second = counted(ParameterShift()), counted(Simulated())
    for layer in model.attention_layers():
        for module, backend in zip(layer.maps.values(), (first, second), strict=True):
            module.to_backend(backend)
    loss = model(idx, idx)[1]
    loss.backward()
    torch.testing.assert_close(loss, expected, atol=1e-10, rtol=0)
    assert (first.estimator.total.jobs, second.estimator.total.jobs) == (4, 2)
