"""QuantumMultiheadAttention inside torch's transformers, whose layers have a fast path that calls no attention."""

import copy

import pytest
import torch
from torch import nn

import qiskit_qattn as qa

E, H, N, S = 16, 4, 3, 6
HEADS = ["qisa", "angle:2,classical:2", "qisa-v2:4", "classical"]
MODES = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode, "enable_grad": torch.enable_grad}
prototype = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage:UserWarning")


def padding():
    """Return which of the tokens are padding, all at the end, which is where torch uses nested tensors."""
    mask = torch.zeros(N, S, dtype=torch.bool)
    mask[0, 4:] = mask[2, 3:] = True
    return mask


def replaced(module, heads):
    """Return a copy whose attention has these heads, with the projections of the module's."""
    twin = copy.deepcopy(module)
    for each in list(twin.modules()):
        for name, child in each.named_children():
            if isinstance(child, nn.MultiheadAttention):
                setattr(each, name, qa.QuantumMultiheadAttention.from_classical(child, heads))
    return twin


def encoder_layer(**options):
    return nn.TransformerEncoderLayer(E, H, 32, **({"batch_first": True} | options))


def by_hand(layer, x, **masks):
    """Return a layer's output from the calls of its parts."""

    def attended(x):
        return layer.self_attn(x, x, x, **masks, need_weights=False)[0]

    def feed_forward(x):
        return layer.linear2(layer.activation(layer.linear1(x)))

    if layer.norm_first:
        x = x + attended(layer.norm1(x))
        return x + feed_forward(layer.norm2(x))
    x = layer.norm1(x + attended(x))
    return layer.norm2(x + feed_forward(x))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("heads", HEADS)
def test_an_encoder_layer_calls_the_attention(heads, batch_first, norm_first, mode):
    classical = encoder_layer(batch_first=batch_first, norm_first=norm_first).eval()
    layer = replaced(classical, heads)
    x, mask = torch.randn(N, S, E), padding()
    seen = mask if batch_first else mask.T
    x = x if batch_first else x.transpose(0, 1)
    causal = nn.Transformer.generate_square_subsequent_mask(S)
    with MODES[mode]():
        for masks in (
            {},
            {"key_padding_mask": mask},
            {"attn_mask": causal},
            {"attn_mask": causal, "is_causal": True},
            {"attn_mask": causal > 0, "key_padding_mask": mask},
        ):
            given = {"src_mask": masks.get("attn_mask"), "src_key_padding_mask": masks.get("key_padding_mask")}
            y = layer(x, **given, is_causal=masks.get("is_causal", False))
            torch.testing.assert_close(y, by_hand(layer, x, **masks), atol=1e-5, rtol=1e-5)
            expected = classical(x, **given)
            assert torch.allclose(y[~seen], expected[~seen], atol=1e-5) is (heads == "classical")


@pytest.mark.parametrize("heads", HEADS[:3])
@pytest.mark.parametrize("num_heads", [3, 4])
def test_the_fast_path_reads_no_weights(heads, num_heads, monkeypatch):
    """Even of an even number of heads, with the parts of a layer on which torch takes it."""
    called = []
    monkeypatch.setattr(torch, "_transformer_encoder_layer_fwd", lambda *_: called.append("layer"))
    monkeypatch.setattr(torch, "_native_multi_head_attention", lambda *_: called.append("attention"))
    layer = nn.TransformerEncoderLayer(12, num_heads, 32, batch_first=True).eval()
    heads = heads.split(":")[0]
    layer.self_attn = qa.QuantumMultiheadAttention(12, num_heads, batch_first=True, heads=heads).eval()
    with torch.no_grad():
        assert layer(torch.randn(N, S, 12)).shape == (N, S, 12) and not called
        copy.deepcopy(layer)(torch.randn(N, S, 12))
    assert not called


@prototype
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("heads", HEADS)
def test_an_encoder_that_nests_its_tokens(heads, mode):
    """It was built of classical layers, so it converts padded tokens to nested tensors when nothing is trained."""
    classical = nn.TransformerEncoder(encoder_layer(dropout=0.0), 2, norm=nn.LayerNorm(E)).eval().requires_grad_(False)
    assert classical.use_nested_tensor
    encoder, x, mask = replaced(classical, heads), torch.randn(N, S, E), padding()
    dense = copy.deepcopy(encoder)
    dense.use_nested_tensor = False
    nested = []
    for layer in encoder.layers:
        layer.self_attn.register_forward_pre_hook(lambda _, inputs: nested.append(inputs[0].is_nested))
    with MODES[mode]():
        y, expected = (each(x, src_key_padding_mask=mask) for each in (encoder, dense))
        torch.testing.assert_close(y[~mask], expected[~mask], atol=1e-5, rtol=1e-5)
        assert nested == [True, True] and (y[mask] == encoder.norm.bias).all()
        classical_y = classical(x, src_key_padding_mask=mask)
        assert torch.allclose(y, classical_y, atol=1e-5) is (heads == "classical")
        scattered = torch.rand(N, S) < 0.3
        scattered[:, 0] = False
        y, expected = (each(x, src_key_padding_mask=scattered) for each in (encoder, dense))
        torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-5)
    y = encoder(x, src_key_padding_mask=mask)[~mask].square().sum()
    if heads == "qisa":  # circuits alone are trained
        grads = [torch.autograd.grad(loss, encoder.layers[0].self_attn.maps["qisa-v3"].weight) for loss in (y,)]
        other = dense(x, src_key_padding_mask=mask)[~mask].square().sum()
        grads += [torch.autograd.grad(other, dense.layers[0].self_attn.maps["qisa-v3"].weight)]
        torch.testing.assert_close(*grads, atol=1e-4, rtol=1e-4)


def test_an_encoder_of_quantum_layers_says_that_it_nests_no_tokens():
    layer = replaced(encoder_layer(), "qisa").eval()
    with pytest.warns(UserWarning, match="self.use_nested_tensor is False because"):
        nn.TransformerEncoder(layer, 2)
    encoder, x, mask = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), torch.randn(N, S, E), padding()
    with torch.no_grad():
        y = encoder(x, src_key_padding_mask=mask)
        once = by_hand(encoder.layers[0], x, key_padding_mask=mask)
        torch.testing.assert_close(y, by_hand(encoder.layers[1], once, key_padding_mask=mask), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True:UserWarning")
def test_a_whole_transformer(heads, norm_first):
    """Self- and cross-attention, with every mask; with classical heads it is torch's, and trains as it does."""
    classical = nn.Transformer(E, H, 1, 2, 32, dropout=0.0, batch_first=True, norm_first=norm_first)
    model, source, target = replaced(classical, heads), torch.randn(N, S, E), torch.randn(N, 4, E)
    causal = nn.Transformer.generate_square_subsequent_mask(4)
    masks = {"src_key_padding_mask": padding(), "memory_key_padding_mask": padding(), "tgt_mask": causal}
    masks = {
        name: torch.zeros(m.shape).masked_fill(m, -torch.inf) if m.dtype == torch.bool else m
        for name, m in masks.items()
    }
    for evaluation in (False, True):
        y, expected = (
            each.train(not evaluation)(source, target, **masks, tgt_is_causal=True) for each in (model, classical)
        )
        assert y.shape == (N, 4, E)
        assert torch.allclose(y, expected, atol=1e-5) is (heads == "classical")
        changed = target.clone()
        changed[:, 2:] = 0.0
        later = model(source, changed, **masks, tgt_is_causal=True)
        torch.testing.assert_close(later[:, :2], y[:, :2], atol=1e-6, rtol=0)
    y.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@prototype
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged], ids=str)
@pytest.mark.parametrize("heads", HEADS)
def test_nested_tensors_are_their_rows(heads, layout):
    """In training too, with gradients; weights have zeros where there is no query or key."""
    mha = qa.QuantumMultiheadAttention(E, H, heads=heads, batch_first=True, add_zero_attn=True)
    rows = [torch.randn(length, E, requires_grad=True) for length in (3, 5, 1)]
    keys = [torch.randn(length, E) for length in (2, 4, 6)]
    x, key = (torch.nested.as_nested_tensor(each, layout=layout) for each in (rows, keys))
    for memory, other in ((x, rows), (key, keys)):
        for average in (True, False):
            y, weights = mha(x, memory, memory, average_attn_weights=average)
            assert y.is_nested and y.layout == layout
            for n, (row, second) in enumerate(zip(rows, other, strict=True)):
                expected, expected_weights = mha(row, second, second, average_attn_weights=average)
                torch.testing.assert_close(y.unbind()[n], expected)
                found = weights[n].clone()
                torch.testing.assert_close(found[..., : len(row), : len(second)], expected_weights[..., :-1])
                torch.testing.assert_close(found[..., : len(row), -1], expected_weights[..., -1])
                found[..., : len(row), [*range(len(second)), -1]] = 0
                assert (found == 0).all()
        assert (x + y).is_nested
        loss = sum(row.square().sum() for row in y.unbind())
        alone = sum(mha(row, second, second)[0].square().sum() for row, second in zip(rows, other, strict=True))
        torch.testing.assert_close(*(torch.autograd.grad(each, rows, retain_graph=True) for each in (loss, alone)))


@prototype
def test_nested_tensors_that_do_not_fit_are_refused():
    x, shorter = (
        torch.nested.nested_tensor([torch.randn(length, E) for length in sizes]) for sizes in ((3, 5), (3, 4))
    )
    mha = qa.QuantumMultiheadAttention(E, H, batch_first=True)
    dense = torch.randn(2, 5, E)
    for inputs, options, message in (
        ((x, x, x), {"key_padding_mask": torch.zeros(2, 5)}, "without key_padding_mask and attn_mask"),
        ((x, x, x), {"attn_mask": torch.zeros(5, 5)}, "without key_padding_mask and attn_mask"),
        ((x, dense, dense), {}, "as query, key and value alike"),
        ((x, x, shorter), {}, r"their lengths are \[3, 5\], \[3, 5\] and \[3, 4\]"),
        (
            (torch.nested.nested_tensor([]),) * 3,
            {},
            "query should be unbatched 2D or batched 3D tensor but received 1-D",
        ),
    ):
        with pytest.raises(AssertionError, match=message):
            mha(*inputs, **options)
    mha.batch_first = False
    with pytest.raises(AssertionError, match="with batch_first=True"):
        mha(x, x, x)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True:UserWarning")
@pytest.mark.parametrize("heads", ["classical", "qisa:2,classical:2"])
def test_an_encoder_compiles_without_graph_breaks(heads):
    """Also where torch decides about nested tensors by the mask's values."""
    encoder = nn.TransformerEncoder(replaced(encoder_layer(), heads), 1).eval()
    compiled = torch.compile(encoder, fullgraph=True, backend="aot_eager")
    x, mask = torch.randn(N, S, E), padding()
    y, expected = (each(x, src_key_padding_mask=mask) for each in (compiled, encoder))
    torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-5)
