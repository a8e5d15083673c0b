"""Every kind of head in torch's MultiheadAttention: its values by the definitions, its gradients, its masks."""

import math

import pytest
import torch

import qiskit_qattn as qa
from qiskit_qattn.backends.counting import CountingEstimator
from qiskit_qattn.backends.registry import Backend
from qiskit_qattn.simulation.estimator import TorchEstimator

from . import slow_attention
from .slow_attention import KINDS

MASKS = ["none", "causal", "boolean", "float", "boolean by head", "float by head"]
PADDINGS = ["none", "boolean", "float"]
N, L, S, E, H = 2, 3, 4, 6, 2  # vectors of 3 numbers in 4 amplitudes


def attention_of(heads, **options):
    settings = {"batch_first": True, "dtype": torch.float64, "heads": heads} | options
    mha = qa.QuantumMultiheadAttention(E, H, **settings).eval()
    with torch.no_grad():
        for name, parameter in mha.named_parameters():
            if "bias" in name:
                parameter.normal_()
    return mha


def inputs_of(which, mha, rows=S):
    """Return query, key and value: one tensor, two, or three."""
    generator = torch.Generator().manual_seed(7)
    query, key, value = (
        torch.randn(N, rows if which == "self" or i else L, width, generator=generator, dtype=torch.float64)
        for i, width in enumerate((E, mha.kdim, mha.vdim))
    )
    return {"self": (query, query, query), "cross": (query, key, key), "three": (query, key, value)}[which]


def mask_of(which, steps, total, heads=H):
    generator = torch.Generator().manual_seed(8)
    shape = (N * heads, steps, total) if "by head" in which else (steps, total)
    if which == "none":
        return None
    if which == "causal":
        return torch.ones(shape, dtype=torch.bool).triu(1)
    if which.startswith("boolean"):
        mask = torch.rand(shape, generator=generator) < 0.4
        mask[..., 1] = False  # no row is empty
        return mask
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def padding_of(which, total):
    if which == "none":
        return None
    mask = torch.zeros(N, total, dtype=torch.bool)
    mask[0, -1] = mask[1, -2:] = True
    return mask if which == "boolean" else torch.where(mask, -torch.inf, torch.arange(float(total)) / 3).double()


def check(heads, which, mask, padding, **options):
    mha = attention_of(heads, **options)
    query, key, value = inputs_of(which, mha)
    mask, padding = mask_of(mask, query.shape[1], S), padding_of(padding, S)
    expected, expected_weights = slow_attention.attention(mha, query, key, value, padding, mask)
    kept = {"key_padding_mask": padding, "attn_mask": mask}
    if mask is not None and padding is not None and mask.dtype != padding.dtype:  # torch deprecates that
        kept = {
            name: torch.zeros(m.shape).double().masked_fill(m, -torch.inf) if m.dtype == torch.bool else m
            for name, m in kept.items()
        }
    for average in (False, True):
        y, weights = mha(query, key, value, **kept, average_attn_weights=average)
        torch.testing.assert_close(y, expected, rtol=0, atol=1e-9)
        found = expected_weights.mean(1) if average else expected_weights
        torch.testing.assert_close(weights, found, rtol=0, atol=1e-9)
    y, weights = mha(query, key, value, **kept, need_weights=False)
    assert weights is None
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("which", ["self", "cross"])
def test_a_kind_is_its_definition(kind, which):
    check(kind, which, "boolean by head", "boolean")


@pytest.mark.parametrize("heads", ["qisa:1,qsann:1", "qisa-v1:1,zz:1", "rff:1,zz:1", "angle:1,qisa-v2:1"])
def test_kinds_mix_in_the_strings_order(heads):
    check(heads, "three", "float by head", "float", kdim=5, vdim=4)


@pytest.mark.parametrize("heads", ["qsann:1,classical:1,qsann:1", "zz:1,angle:1,zz:1"])
def test_a_kind_may_stand_in_several_places(heads):
    mha = qa.QuantumMultiheadAttention(6, 3, batch_first=True, dtype=torch.float64, heads=heads)
    (query, key, _), mask = inputs_of("cross", mha), mask_of("boolean by head", L, S, heads=3)
    expected = slow_attention.attention(mha, query, key, key, None, mask)
    torch.testing.assert_close(mha(query, key, key, attn_mask=mask, average_attn_weights=False), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_added_keys_and_other_widths(kind):
    check(kind, "three", "float", "boolean", kdim=5, vdim=4, add_bias_kv=True, add_zero_attn=True, bias=False)


@pytest.mark.more
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("which", ["self", "cross", "three"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_under_every_mask(kind, which, mask, padding):
    check(kind, which, mask, padding)
    check(kind, which, mask, padding, add_bias_kv=True, add_zero_attn=True, num_qubits=3)


@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck(kind):
    mha = attention_of(kind, add_bias_kv=True)
    query, key, value = (x.requires_grad_() for x in inputs_of("three", mha))
    trained = [p for p in mha.parameters() if p.requires_grad]
    names = [name for name, p in mha.named_parameters() if p.requires_grad]

    def call(query, key, value, *parameters):
        given = dict(zip(names, parameters, strict=True))
        options = {"key_padding_mask": padding_of("boolean", S), "attn_mask": mask_of("boolean by head", L, S)}
        return torch.func.functional_call(mha, given, (query, key, value), options)

    assert torch.autograd.gradcheck(call, (query, key, value, *trained), fast_mode=True)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(kind, dtype):
    """Also where it is zero or extreme, which the engine takes at another scale."""
    mha = attention_of(kind, dtype=dtype)
    x = torch.randn(N, S, E, dtype=dtype)
    padding = padding_of("boolean", S)
    for need_weights in (True, False):
        expected = mha(x, x, x, key_padding_mask=padding, need_weights=need_weights)[0]
        for content in (0.0, 1.0, 1e-20, 1e9):
            changed = x.masked_fill(padding[..., None], content)
            y = mha(changed, changed, changed, key_padding_mask=padding, need_weights=need_weights)[0]
            assert torch.equal(y[~padding], expected[~padding])
        for content in (math.inf, math.nan):  # queries are not padded, so they stay as they are
            changed = x.masked_fill(padding[..., None], content)
            y = mha(x, changed, changed, key_padding_mask=padding, need_weights=need_weights)[0]
            torch.testing.assert_close(y, expected)


@torch.no_grad()
@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_causal_mask_hides_the_future(kind, added):
    mha = attention_of(kind, dtype=torch.float32, add_bias_kv=added, add_zero_attn=added)
    x, mask = torch.randn(N, S, E), mask_of("causal", S, S)
    for options in ({"need_weights": True}, {"need_weights": False}, {"need_weights": False, "is_causal": True}):
        expected = mha(x, x, x, attn_mask=mask, **options)[0]
        for start in range(1, S):
            for content in (0.0, 1.0, 1e9):
                changed = x.clone()
                changed[:, start:] = content
                y = mha(changed, changed, changed, attn_mask=mask, **options)[0]
                assert torch.equal(y[:, :start], expected[:, :start])
                assert not torch.equal(y[:, start:], expected[:, start:])


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_see_no_key_are_as_torchs(kind):
    """NaN with weights, and zero without, before the output's projection; gradients stay finite."""
    mha, torchs = attention_of(kind), torch.nn.MultiheadAttention(E, H, batch_first=True, dtype=torch.float64)
    query, key, _ = inputs_of("cross", mha)
    query.requires_grad_()
    padding = torch.tensor([[True] * S, [False] * S])
    for attention in (torchs, mha):
        y, weights = attention(query, key, key, key_padding_mask=padding)
        assert y[0].isnan().all() and weights[0].isnan().all() and y[1].isfinite().all()
        y, _ = attention(query, key, key, key_padding_mask=padding, need_weights=False)
        torch.testing.assert_close(y[0], attention.out_proj.bias.expand(L, E))
        grads = torch.autograd.grad(y.square().sum(), [query, *(p for p in attention.parameters() if p.requires_grad)])
        assert all(grad.isfinite().all() for grad in grads)


@pytest.mark.parametrize("kind", KINDS)
def test_all_parameters_are_used(kind):
    mha = attention_of(kind)
    x = torch.randn(N, S, E, dtype=torch.float64)
    mha(x, x, x)[0].square().sum().backward()
    assert all((p.grad != 0).any() for p in mha.parameters() if p.requires_grad)
    heads = mha.in_proj_weight.grad.unflatten(0, (3, H, -1))
    assert (heads != 0).any(-1).any(-1).all(), "of all three projections, each head takes its own part"


@pytest.mark.parametrize("heads", ["qisa", "zz:1,qsann:1", "angle:1,classical:1", "qisa-v2:1,frozen:1"])
@pytest.mark.parametrize("which", ["self", "three"])
def test_a_call_is_one_job(heads, which):
    """Keys that are excluded cost one circuit, queries and keys of other numbers none."""
    mha, counting = attention_of(heads), CountingEstimator(estimator=TorchEstimator())
    inputs, padding = inputs_of(which, mha), padding_of("boolean", S)
    expected, state = mha(*inputs, key_padding_mask=padding), list(mha.state_dict())
    with mha.to_backend(Backend("counted", counting)):
        found = mha(*inputs, key_padding_mask=padding)
        assert list(mha.state_dict()) == state
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    assert counting.total.jobs == 1
    keys, queries = N * S - int(padding.sum()) + 1, N * inputs[0].shape[1]
    for (name, count), pub in zip(
        [(name, count) for name, count in mha.counts.items() if name != "classical"], counting.pubs[0], strict=True
    ):
        rows = queries + 2 * keys if mha.kinds[name].projections == "qkv" else keys
        assert pub == count * rows
    assert torch.equal(mha(*inputs, key_padding_mask=padding)[0], expected[0]), "back on the exact engine"
