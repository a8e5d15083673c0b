"""Rounded linear maps: how far their values are off, what stays as it is, and what does not depend on the batch."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn

import qiskit_qattn as qa
from qiskit_qattn.errors import ConfigError, UnknownNameError
from qiskit_qattn.nn.quantize import Int8Linear, quantize


def gpt(heads="qisa:1,classical:1", **options):
    sizes = {"vocab_size": 11, "block_size": 16, "n_layer": 2, "n_head": 2, "n_embd": 64, "num_qubits": 4}
    return qa.GPT(qa.GPTConfig(heads=heads, **(sizes | options))).eval()


def rounded(model):
    return [name for name, module in model.named_modules() if isinstance(module, Int8Linear)]


@torch.no_grad()
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(7,), (0, 7), (3, 7), (2, 5, 7)])
def test_values_are_those_of_integers(shape, bias):
    linear = nn.Linear(7, 4, bias=bias)
    found, x = Int8Linear(linear.weight, linear.bias), torch.randn(shape)
    scale, largest = linear.weight.abs().amax(-1, keepdim=True) / 127, x.abs().amax(-1, keepdim=True) / 127
    product = (x / largest).round() @ (linear.weight / scale).round().T * largest * scale.T[0]
    torch.testing.assert_close(found(x), product + (linear.bias if bias else 0))
    # each of the 7 products errs by half a step of either factor at most
    bound = 7 * (largest * linear.weight.abs().amax() + x.abs().amax(-1, keepdim=True) * scale.amax()) / 2
    assert ((found(x) - linear(x)).abs() <= bound + 1e-6).all()


@torch.no_grad()
def test_a_row_does_not_depend_on_the_others():
    linear, x = Int8Linear(torch.randn(6, 8), None), torch.randn(5, 8)
    together = linear(torch.cat([x, 1e6 * torch.randn(3, 8)]))[:5]
    assert torch.equal(together, torch.stack([linear(row) for row in x]))


@torch.no_grad()
def test_zero_rows_and_rows_that_hold_nan_give_zero_and_nan():
    linear, x = Int8Linear(torch.randn(3, 8), None), torch.randn(3, 8)
    x[0], x[1, 2] = 0, torch.nan
    found = linear(x)
    assert (found[0] == 0).all() and found[1].isnan().all() and found[2].isfinite().all()


def test_gradients_pass_through_weights_that_are_converted_back():
    linear, x = Int8Linear(torch.randn(3, 8), None).double(), torch.randn(2, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(linear, x)


@torch.no_grad()
def test_classical_weights_are_rounded_and_circuits_are_not():
    model, idx = gpt(), torch.randint(11, (3, 16))
    before = copy.deepcopy(model.state_dict())
    found, exact = quantize(model), qa.inference(model)
    assert rounded(found) == [
        f"blocks.{i}.{name}" for i in range(2) for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    ]
    kept = exact.state_dict()
    for name, value in found.state_dict().items():
        if ".maps." in name or "wte" in name or "ln_" in name:
            assert torch.equal(value, kept[name]), name
    assert found.lm_head.weight is found.wte.weight
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    error = (found(idx)[0] - exact(idx)[0]).std() / exact(idx)[0].std()
    assert 0 < error < 0.05


def test_a_projection_that_holds_circuits_is_kept():
    model = gpt(n_embd=16)  # circuits are folded where that takes fewer multiplications
    assert "blocks.0.attn.c_attn" not in rounded(quantize(model))
    assert "blocks.0.attn.c_proj" in rounded(quantize(model))


def test_a_copy_is_copied_saved_and_generates():
    model, idx = gpt(), torch.tensor([[1, 2, 3]])
    found = quantize(model)
    torch.save(found.state_dict(), file := io.BytesIO())
    file.seek(0)
    other = quantize(gpt())
    other.load_state_dict(torch.load(file))
    texts = [each.generate(idx, 12, temperature=0) for each in (found, copy.deepcopy(found), other)]
    assert torch.equal(texts[0], texts[1]) and torch.equal(texts[0], texts[2])


def test_heads_on_other_backends_stay_there():
    model, idx = gpt().to_backend("statevector?shots=20&seed=1"), torch.tensor([[1, 2, 3]])
    assert quantize(model).quantum_heads()[0][2] is model.quantum_heads()[0][2]
    quantize(model)(idx)


def test_maps_whose_weights_others_read_are_kept():
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    found = quantize(nn.Sequential(layer, nn.Linear(16, 16)))
    assert rounded(found) == ["1"]
    found(torch.randn(2, 3, 16))


def test_a_gpt2_of_transformers_is_rounded():
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=11, n_positions=8, n_embd=32, n_layer=1, n_head=2)).eval()
    found, idx = quantize(model), torch.randint(11, (2, 8))
    assert len(rounded(found)) == 4 and found.lm_head.weight is found.transformer.wte.weight
    with torch.no_grad():
        exact = model(idx).logits
        assert 0 < (found(idx).logits - exact).std() / exact.std() < 0.05


def test_wrong_forms_and_models_are_refused():
    with pytest.raises(UnknownNameError, match=r"Unknown quantization 'int4'.*Known: int8"):
        quantize(gpt(), "int4")
    with pytest.raises(ConfigError, match="Embedding has no linear map"):
        quantize(nn.Embedding(3, 4))
