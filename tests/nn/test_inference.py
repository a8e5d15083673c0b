"""A copy for inference gives what the model gives, whatever heads, hooks and backends it has."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import qiskit_qattn as qa
from qiskit_qattn.errors import ConfigError, EncodingError
from qiskit_qattn.nn.attention import CausalSelfAttention
from qiskit_qattn.nn.kinds import HEAD_KINDS

KINDS = list(HEAD_KINDS)


def model_of(heads: str, **options) -> qa.GPT:
    count = sum(int(part.split(":")[1]) for part in heads.split(","))
    sizes = {"vocab_size": 8, "block_size": 300, "n_layer": 2, "n_head": count, "n_embd": 8 * count} | options
    torch.manual_seed(1)
    model = qa.GPT(qa.GPTConfig(heads=heads, **({"num_qubits": 4} | sizes))).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.5)
    return model


@pytest.mark.parametrize("tokens", [6, 150], ids=["few", "many"])
@pytest.mark.parametrize("dtype, atol", [(torch.float64, 1e-12), (torch.float32, 2e-6)], ids=["double", "float"])
@pytest.mark.parametrize("bias", [False, True], ids=["", "bias"])
@pytest.mark.parametrize("heads", [*(f"{kind}:2" for kind in KINDS), "frozen:1,qisa:1", "qisa:1,classical:1,zz:1"])
def test_the_copy_gives_the_same(heads, bias, dtype, atol, tokens):
    model = model_of(heads, bias=bias, num_qubits=5).to(dtype)
    idx = torch.randint(8, (2, tokens))
    fixed = qa.inference(model)
    torch.testing.assert_close(fixed(idx)[0], model(idx)[0], rtol=0, atol=atol)  # with gradients
    with torch.no_grad():
        torch.testing.assert_close(fixed(idx)[0], model(idx)[0], rtol=0, atol=atol)


@torch.no_grad()
@pytest.mark.parametrize("width", [8, 64], ids=["folded", "not folded"])
def test_caches_and_passes_of_any_length_agree(width):
    model = model_of("qisa:1", n_embd=width, num_qubits=3 if width == 8 else 6).double()
    fixed, idx = qa.inference(model), torch.randint(8, (1, 160))
    expected = model(idx)[0]
    caches, start = [qa.KeyValueCache() for _ in fixed.blocks], 0
    for piece in idx.split([100, 1, 50, 1, 8], 1):
        found = fixed(piece, caches=caches, position=start)[0]
        torch.testing.assert_close(found, expected[:, start : start + piece.shape[1]], rtol=0, atol=1e-12)
        start += piece.shape[1]


def test_it_is_a_snapshot():
    model, idx = model_of("qisa:1,zz:1,classical:1"), torch.randint(8, (2, 5))
    fixed = qa.inference(model)
    before = fixed(idx)[0]
    assert not fixed.training and qa.inference(model.train()).training is False and model.training
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    assert torch.equal(fixed(idx)[0], before)
    model.double()
    assert torch.equal(fixed(idx)[0], before)
    assert (qa.inference(model)(idx)[0] - before).abs().max() > 1e-3
    torch.testing.assert_close(fixed.double()(idx)[0].float(), before, rtol=0, atol=2e-6)


def test_the_projection_takes_the_circuit_where_that_saves_work():
    for width, qubits, folds in ((8, 3, True), (64, 5, False)):
        model = model_of("qisa:1", n_embd=width, num_qubits=qubits)
        weights = [each.blocks[0].attn.c_attn.weight for each in (model, qa.inference(model))]
        assert torch.equal(*weights) is not folds


@pytest.mark.parametrize("tokens", [3, 150], ids=["few", "many"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
def test_zero_and_extreme_vectors(scale, dtype, tokens):
    attention = model_of("qisa:2,classical:1", num_qubits=4).blocks[0].attn.to(dtype)
    fixed, x = qa.inference(attention), torch.randn(2, tokens, 24, dtype=dtype)
    ordinary = x.clone()
    x[:, 1] *= scale
    expected = attention(x)
    for gradients in (False, True):
        with torch.set_grad_enabled(gradients):
            found = fixed(x)
        assert found.isfinite().all() or scale == 1e30  # queries and keys overflow, circuits do not
        with torch.set_grad_enabled(gradients):
            assert torch.equal(fixed(ordinary)[:, 0], found[:, 0]), "no other vector's values change"
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5, equal_nan=True)


@torch.no_grad()
@pytest.mark.parametrize("heads", ["qisa:2", "qisa-v1:2", "zz:2"])
@pytest.mark.parametrize("tokens", [3, 150])
def test_tokens_that_are_not_finite_are_refused(heads, tokens):
    fixed = qa.inference(model_of(heads).blocks[0].attn)
    x = torch.randn(1, tokens, fixed.n_embd)
    x[0, -1, 2] = torch.nan
    with pytest.raises(EncodingError, match="NaN"):
        fixed(x)


@pytest.mark.parametrize("heads", ["qisa:2", "qisa:1,classical:1", "qsann:2"])
def test_gradients_reach_the_tokens(heads):
    attention = model_of(heads).blocks[0].attn.double()
    x = torch.randn(1, 3, 16, dtype=torch.float64, requires_grad=True)
    found, expected = (torch.autograd.grad(a(x).square().sum(), x)[0] for a in (qa.inference(attention), attention))
    torch.testing.assert_close(found, expected)


def test_no_later_token_changes_an_earlier_output():
    fixed = qa.inference(model_of("qisa:1,classical:1"))
    assert float(qa.leakage(fixed)) == 0.0


@torch.no_grad()
@pytest.mark.parametrize("tokens", [1, 0])
def test_a_batch_of_none(tokens):
    assert qa.inference(model_of("qisa:2"))(torch.zeros(0, tokens, dtype=torch.long))[0].shape == (0, tokens, 8)


@torch.no_grad()
@pytest.mark.parametrize("tokens", [6, 150], ids=["few", "many"])
def test_autocast_is_as_near_as_the_models(tokens):
    model, idx = model_of("qisa:2"), torch.randint(8, (1, tokens))
    exact, fixed = model(idx)[0], qa.inference(model)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(fixed(idx)[0].float(), exact, rtol=0, atol=0.02)


def test_a_half_precision_model():
    model, idx = model_of("qisa:2,zz:1").bfloat16(), torch.randint(8, (1, 5))
    torch.testing.assert_close(qa.inference(model)(idx)[0], model(idx)[0], rtol=0, atol=1e-2)


class Adapter(nn.Module):
    """A low-rank adapter around a linear map, which keeps the map's attributes in reach, as libraries do."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base, self.weight, self.bias = base, base.weight, base.bias
        self.change = nn.Linear(base.in_features, base.out_features, bias=False).to(base.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + self.change(x)


class Shifted(nn.Module):
    """A parametrization of angles."""

    def forward(self, angles: torch.Tensor) -> torch.Tensor:
        return angles + 1


def adapt(attention: CausalSelfAttention, name: str) -> None:
    setattr(attention, name, Adapter(getattr(attention, name)))


CHANGES = {
    "adapted projection": lambda attention: adapt(attention, "c_attn"),
    "adapted output": lambda attention: adapt(attention, "c_proj"),
    "weight norm": lambda attention: nn.utils.parametrizations.weight_norm(attention.c_attn),
    "spectral norm": lambda attention: nn.utils.parametrizations.spectral_norm(attention.c_attn),
    "parametrized angles": lambda attention: nn.utils.parametrize.register_parametrization(
        attention.maps["qisa-v3"], "weight", Shifted()
    ),
    "a hook that doubles": lambda attention: attention.maps["qisa-v3"].register_forward_hook(lambda m, a, y: 2 * y),
    "a pre-hook": lambda attention: attention.c_attn.register_forward_pre_hook(lambda m, a: (2 * a[0],)),
    "another forward": lambda attention: setattr(attention.c_attn, "forward", lambda x: x.repeat(1, 1, 3)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_hooks_adapters_and_other_changes_are_kept(change):
    model, idx = model_of("qisa:1", num_qubits=3).double(), torch.randint(8, (1, 100))
    before = model(idx)[0]
    CHANGES[change](model.blocks[1].attn)
    expected = model(idx)[0]
    with torch.no_grad():
        torch.testing.assert_close(qa.inference(model)(idx)[0], expected, rtol=0, atol=1e-10)
    assert change == "weight norm" or (expected - before).abs().max() > 1e-6


def test_hooks_fire_once_a_pass():
    model, called = model_of("qisa:1,zz:1"), []
    for module in (model.blocks[1].attn.c_attn, *model.blocks[1].attn.maps.values()):
        module.register_forward_hook(lambda *_: called.append(1))
    qa.inference(model)(torch.randint(8, (1, 5)))
    assert len(called) == 3


@torch.no_grad()
def test_heads_on_other_backends_stay_where_they_are():
    model, idx = model_of("qisa:1,zz:1"), torch.randint(8, (1, 3))
    exact = model(idx)[0]
    model.to_backend("density_matrix -> statevector")
    fixed = qa.inference(model)
    torch.testing.assert_close(fixed(idx)[0], exact, rtol=0, atol=1e-5)
    assert model.audit()["calls"] == {"density_matrix": 4}
    sampled = qa.inference(model.to_backend("statevector?shots=10&seed=1"))
    assert (sampled(idx)[0] - exact).abs().max() > 1e-4


@torch.no_grad()
def test_a_copy_can_be_copied_compiled_and_made_again():
    model, idx = model_of("qisa:1,classical:1"), torch.randint(8, (1, 5))
    fixed = qa.inference(model)
    expected = fixed(idx)[0]
    for other in (copy.deepcopy(fixed), qa.inference(fixed), qa.inference(nn.Sequential(fixed))[0]):
        assert torch.equal(other(idx)[0], expected)


@torch.no_grad()
def test_generation_gives_the_models_tokens():
    model = model_of("qisa:2,classical:1").train()
    prompt = torch.randint(8, (2, 4))
    tokens = model.generate(prompt, 20, temperature=0)
    assert model.training
    for length in range(4, 24):
        assert torch.equal(model.eval()(tokens[:, :length])[0][:, -1].argmax(-1), tokens[:, length])


@pytest.mark.parametrize("before", [True, False])
def test_a_copy_made_after_or_in_inference_mode_takes_part_in_gradients(before):
    model, idx = model_of("qisa:1,zz:1"), torch.randint(8, (1, 5))
    expected = model(idx)[0]
    with torch.inference_mode():
        model(idx)
        fixed = qa.inference(model)
    fixed = qa.inference(model) if before else fixed
    found = fixed(idx)[0]
    found.sum().backward()
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)


class Recorder:
    """Somebody's object whose method is a hook."""

    def __init__(self) -> None:
        self.calls = 0

    def hook(self, *_) -> None:
        self.calls += 1


@pytest.mark.parametrize("name", ["", "blocks.0.attn", "blocks.0.attn.c_attn", "blocks.0.attn.maps.qisa-v3"])
def test_methods_as_hooks_reach_their_object(name):
    model, recorder = model_of("qisa:1"), Recorder()
    model.get_submodule(name).register_forward_hook(recorder.hook)
    model.generate(torch.zeros(1, 2, dtype=torch.long), 3)
    assert recorder.calls == 3


def test_models_with_computed_tensors_are_copied():
    model, idx = model_of("qisa:1,classical:1"), torch.randint(8, (1, 5))
    prune.l1_unstructured(model.lm_head, "weight", 0.5)
    model.last = model(idx)[0]
    torch.testing.assert_close(qa.inference(model)(idx)[0], model(idx)[0], rtol=0, atol=2e-6)


def test_what_cannot_be_copied_is_said(tmp_path):
    model = model_of("qisa:1")
    with (tmp_path / "log").open("w") as model.log, pytest.raises(ConfigError, match="cannot be copied"):
        qa.inference(model)


@pytest.mark.parametrize("backend", ["statevector", "statevector?seed=1&shots=10"])
def test_a_copy_is_not_moved(backend):
    model = model_of("qisa:1").to_backend(backend)
    with pytest.raises(ConfigError, match="cannot be moved"):
        qa.inference(model).to_backend("density_matrix")
    assert model.head_backends()[0]["backend"] == (backend or "statevector").replace(
        "shots=10&seed=1", "seed=1&shots=10"
    )


def test_a_copy_is_not_saved(tmp_path):
    with pytest.raises(ConfigError, match="the model it was made from"):
        qa.inference(model_of("qisa:1")).save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()
