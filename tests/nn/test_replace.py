"""Attention replaced in place: in torch's own models and in those of other people, with the values that must stay."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from qiskit_qattn import (
    CircuitError,
    ConfigError,
    QuantumHead,
    QuantumMultiheadAttention,
    UnknownNameError,
    audit,
    estimate,
    inference,
    leakage,
    replace_attention,
    to_backend,
)
from qiskit_qattn.nn.placement import quantum_parts

# Torch says so when an encoder of its own makes one of a padding mask.
pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")

WIDTH = 8


class Block(nn.Module):
    """A block as of torchvision's vision transformer: ``self_attention(x, x, x, need_weights=False)``."""

    def __init__(self) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.self_attention = nn.MultiheadAttention(WIDTH, 2, dropout=0.1, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 16), nn.GELU(), nn.Linear(16, WIDTH))

    def forward(self, x: Tensor) -> Tensor:  # (B, T, d)
        y = self.ln_1(x)
        x = x + self.self_attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class ViT(nn.Module):
    """Patches of an image, a class token, blocks, and the class token's logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_proj = nn.Conv2d(1, WIDTH, 2, 2)
        self.class_token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.encoder = nn.Sequential(Block(), Block())
        self.heads = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:  # (B, 1, H, W)
        x = self.conv_proj(x).flatten(2).transpose(1, 2)  # (B, T, d)
        return self.heads(self.encoder(torch.cat([self.class_token.expand(len(x), -1, -1), x], 1))[:, 0])


def encoder(batch_first: bool = True, norm_first: bool = False) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(WIDTH, 2, 16, batch_first=batch_first, norm_first=norm_first)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=batch_first and not norm_first)


def decoder() -> nn.TransformerDecoder:
    return nn.TransformerDecoder(nn.TransformerDecoderLayer(WIDTH, 2, 16, batch_first=True), 2)


def transformer() -> nn.Transformer:
    return nn.Transformer(WIDTH, 2, 1, 1, 16, batch_first=True)


def causal(length: int) -> Tensor:
    return nn.Transformer.generate_square_subsequent_mask(length)


PADDING = torch.tensor([[False] * 5, [False] * 3 + [True] * 2, [False] + [True] * 4])
X, Y = torch.rand(3, 5, WIDTH), torch.rand(3, 4, WIDTH)
CALLS: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module], Tensor], int]] = {
    "encoder": (encoder, lambda m: m(X), 2),
    "encoder, padding": (encoder, lambda m: m(X, src_key_padding_mask=PADDING), 2),
    "encoder, causal": (encoder, lambda m: m(X, mask=causal(5), is_causal=True), 2),
    "encoder, both": (encoder, lambda m: m(X, mask=causal(5) < 0, src_key_padding_mask=PADDING), 2),
    "encoder, norm first": (partial(encoder, norm_first=True), lambda m: m(X, src_key_padding_mask=PADDING), 2),
    "encoder, sequence first": (partial(encoder, False), lambda m: m(X.mT.permute(2, 0, 1)), 2),
    "decoder": (decoder, lambda m: m(Y, X, tgt_mask=causal(4), memory_key_padding_mask=PADDING), 4),
    "transformer": (transformer, lambda m: m(X, Y, None, causal(4), None, PADDING, None, PADDING), 3),
    "ViT": (ViT, lambda m: m(X[:, None, :4, :4]), 2),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("grad", [True, False])
def test_classical_heads_leave_every_value_as_it_was(name: str, grad: bool):
    make, call, count = CALLS[name]
    model = make().eval()
    with torch.set_grad_enabled(grad):
        expected = call(model)
        names = replace_attention(model, "classical")
        assert len(names) == count
        assert all(type(model.get_submodule(each)) is QuantumMultiheadAttention for each in names)
        torch.testing.assert_close(call(model), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", CALLS)
def test_quantum_heads_are_called_in_evaluation_without_gradients(name: str):
    make, call, count = CALLS[name]
    model = make().eval()
    before = call(model).detach()
    replace_attention(model, "qisa:1,classical:1")
    ran: list[str] = []
    for path, part in model.named_modules():
        if isinstance(part, QuantumHead):
            part.register_forward_hook(lambda *_, path=path: ran.append(path))
    with torch.no_grad():
        found = call(model)
    assert len(ran) == len(set(ran)) == count
    assert (found - before).abs().max() > 1e-3
    with torch.enable_grad():
        torch.testing.assert_close(_present(name, call(model)), _present(name, found), rtol=0, atol=2e-6)


def _present(name: str, y: Tensor) -> Tensor:
    """Return the outputs where there is a token: nested tensors have zeros elsewhere."""
    return y[~PADDING] if "padding" in name or ("first" in name and y.shape == X.shape) else y


@pytest.mark.parametrize("where", ["layers.0.*", "layers.1.*"])
@pytest.mark.parametrize("grad", [True, False])
def test_padding_changes_nothing_where_some_layers_are_quantum(where: str, grad: bool):
    model, lengths = encoder().eval(), (5, 3, 1)
    assert len(replace_attention(model, "qisa", where)) == 1
    with torch.set_grad_enabled(grad):
        found = model(X, src_key_padding_mask=PADDING)
        for i, length in enumerate(lengths):
            torch.testing.assert_close(found[i, :length], model(X[i : i + 1, :length])[0], rtol=0, atol=2e-6)


def test_only_what_the_pattern_or_predicate_names_is_replaced():
    model = nn.Transformer(WIDTH, 2, 2, 2, 16, batch_first=True)
    every = [name for name, part in model.named_modules() if isinstance(part, nn.MultiheadAttention)]
    assert replace_attention(copy.deepcopy(model), "qisa") == every and len(every) == 6
    cross = ["decoder.layers.0.multihead_attn", "decoder.layers.1.multihead_attn"]
    assert replace_attention(copy.deepcopy(model), "qisa", "*.multihead_attn") == cross
    assert replace_attention(copy.deepcopy(model), "qisa", lambda name: name.endswith("multihead_attn")) == cross
    assert replace_attention(model, "qisa:1,zz:1", "encoder.layers.[1].*") == ["encoder.layers.1.self_attn"]
    assert replace_attention(model, "zz", "encoder.*") == ["encoder.layers.0.self_attn"]
    heads = [model.encoder.layers[i].self_attn.heads for i in range(2)]
    assert heads == ["zz:2", "qisa-v3:1,zz:1"] or heads == ["zz:2", "qisa:1,zz:1"]
    assert type(model.decoder.layers[0].self_attn) is nn.MultiheadAttention


def test_trained_projections_stay_the_same_parameters():
    model = encoder().double().eval()
    model.layers[0].self_attn.in_proj_weight.requires_grad_(False)
    model.layers[1].train()
    before = dict(model.named_parameters())
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    replace_attention(model, "qisa:1,classical:1", num_qubits=3, reps=1)
    after = dict(model.named_parameters())
    assert all(after[name] is parameter for name, parameter in before.items())
    new = [name for name in after if name not in before]
    assert new and all("self_attn.maps" in name and after[name].requires_grad for name in new)
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert [layer.self_attn.training for layer in model.layers] == [False, True]
    assert quantum_parts(model)[0].module.circuit.num_qubits == 3
    value = model.layers[0].self_attn.out_proj.weight.clone()
    frozen = model.layers[0].self_attn.in_proj_weight.clone()
    model(X.double()).square().sum().backward()
    optimizer.step()
    assert not torch.equal(model.layers[0].self_attn.out_proj.weight, value)
    assert torch.equal(model.layers[0].self_attn.in_proj_weight, frozen)
    assert all(after[name].grad is not None and after[name].grad.abs().sum() > 0 for name in new)


def test_a_shared_attention_is_replaced_once_and_stays_shared():
    attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
    model = nn.ModuleDict({"a": attention, "list": nn.ModuleList([attention, Block()])})
    model.alias = model["list"]
    expected = ["a", "list.0", "alias.0"]
    assert replace_attention(copy.deepcopy(model), "qisa", "*0") == ["a", "list.0", "alias.0"]
    assert sorted(replace_attention(model, "qisa")) == sorted(
        [*expected, "list.1.self_attention", "alias.1.self_attention"]
    )
    assert model["a"] is model["list"][0] is model.alias[0]
    assert model["list"][1] is model.alias[1]
    assert len(quantum_parts(model)) == 2


def test_hooks_of_calls_stay_and_can_be_removed():
    model, calls = Block().eval(), []
    attention = model.self_attention
    handles = [
        attention.register_forward_hook(lambda *_: calls.append("after")),
        attention.register_forward_pre_hook(lambda *_: calls.append("before"), with_kwargs=False),
        attention.register_full_backward_hook(lambda *_: calls.append("backward")),
    ]
    replace_attention(model, "qisa")
    model(X).sum().backward()
    assert calls == ["before", "after", "backward"]
    for handle in handles:
        handle.remove()
    model(X).sum().backward()
    assert len(calls) == 3


class OwnAttention(nn.MultiheadAttention):
    pass


def with_own_forward() -> nn.Module:
    model = Block()
    model.self_attention.forward = lambda *args, **kwargs: (args[0], None)
    return model


def pruned() -> nn.Module:
    model = Block()
    prune.l1_unstructured(model.self_attention, "in_proj_weight", 0.5)
    return model


def parametrized() -> nn.Module:
    model = Block()
    parametrizations.orthogonal(model.self_attention, "in_proj_weight")
    return model


def uneven() -> nn.Module:
    return nn.Sequential(nn.MultiheadAttention(WIDTH, 2), nn.MultiheadAttention(WIDTH, 4))


@pytest.mark.parametrize(
    ("make", "arguments", "error", "told"),
    [
        (lambda: nn.Linear(2, 2), {}, ConfigError, r"Linear holds no torch.nn.MultiheadAttention\.$"),
        (lambda: [], {}, ConfigError, "model must be a torch.nn.Module, got list"),
        (lambda: nn.MultiheadAttention(WIDTH, 2), {}, ConfigError, r"from_classical\(model, heads\)"),
        (lambda: nn.Sequential(OwnAttention(WIDTH, 2)), {}, ConfigError, r"left as they are: 0 \(OwnAttention\)"),
        (lambda: nn.Sequential(QuantumMultiheadAttention(WIDTH, 2)), {}, ConfigError, "is quantum already: 0"),
        (
            encoder,
            {"where": "blocks.*"},
            ConfigError,
            r"name that 'blocks\.\*' matches: layers\.0\.self_attn, l",
        ),
        (encoder, {"where": lambda name: False}, ConfigError, "the predicate where accepts: layers.0"),
        (encoder, {"where": 3}, ConfigError, "pattern or a predicate of a module's name, got int 3"),
        (encoder, {"heads": "qisa:3"}, ConfigError, r"layers.0.self_attn cannot be replaced: .*num_heads is 2"),
        (uneven, {"heads": "qisa:2"}, ConfigError, r"1 cannot be replaced: .*num_heads is 4"),
        (encoder, {"heads": "qiza"}, UnknownNameError, "qisa"),
        (encoder, {"qubits": 3}, TypeError, "unexpected keyword argument 'qubits'"),
        (encoder, {"num_qubits": 1}, CircuitError, r"layers.0.self_attn cannot be replaced: .*more qubits"),
        (encoder, {"backend": "nowhere"}, UnknownNameError, "nowhere"),
        (encoder, {"heads": "zz", "backend": "statevector -> classical"}, ConfigError, "no classical twin"),
        (with_own_forward, {}, ConfigError, "self_attention cannot be replaced: .*forward of its own"),
        (pruned, {}, ConfigError, "self_attention cannot be replaced: .*pruned"),
        (parametrized, {}, ConfigError, "self_attention cannot be replaced: .*parametrized"),
    ],
)
def test_nothing_is_replaced_on_an_error(make, arguments, error, told: str):
    model = make()
    before = list(map(id, model.modules())) if isinstance(model, nn.Module) else []
    with pytest.raises(error, match=told):
        replace_attention(model, **{"heads": "qisa", **arguments})
    assert before == (list(map(id, model.modules())) if isinstance(model, nn.Module) else [])


def test_a_replaced_model_is_moved_estimated_audited_and_copied_for_inference():
    model = ViT().eval()
    names = replace_attention(model, "qisa:1,classical:1", backend="statevector")
    assert len({id(part.module.place) for part in quantum_parts(model)}) == 1
    images = torch.rand(2, 1, 4, 4)
    exact = model(images)
    cost = estimate(model, images, "aer?shots=100&seed=1")
    assert (cost.total.jobs, cost.total.shots) == (2, 100 * cost.total.circuits)
    with torch.no_grad():
        torch.testing.assert_close(inference(model)(images), exact, rtol=0, atol=2e-6)
        with to_backend(model, "aer -> statevector"):
            torch.testing.assert_close(model(images), exact, rtol=0, atol=2e-5)
            torch.testing.assert_close(inference(model)(images), exact, rtol=0, atol=2e-5)
    found = audit(model)
    assert found["calls"] == {"aer": 4}
    assert [row["name"].startswith(name) for row, name in zip(found["heads"], names, strict=True)] == [True, True]
    torch.testing.assert_close(model(images), exact)


@torch.no_grad()
@pytest.mark.parametrize("name", ["encoder, padding", "decoder", "ViT"])
@pytest.mark.parametrize("heads", ["qisa", "zz:1,qisa-v1:1", "qsann:1,angle:1", "frozen:1,classical:1"])
def test_a_copy_for_inference_gives_the_same_values_and_keeps_them(name: str, heads: str):
    make, call, _ = CALLS[name]
    model = make()
    replace_attention(model, heads)
    fixed = inference(model)
    assert not any(isinstance(part, QuantumHead) for part in fixed.modules())  # they are formed
    assert model.training and not fixed.training
    expected = call(model.eval())
    torch.testing.assert_close(call(fixed), expected, rtol=0, atol=2e-6)
    for part in model.modules():
        if isinstance(part, QuantumHead):
            part.weight.add_(1.0)
    assert (call(model) - expected).abs().max() > 1e-4
    torch.testing.assert_close(call(fixed), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("heads", ["qisa:1,classical:1", "zz", "qsann:1,quadratic:1"])
def test_a_replaced_encoder_is_causal_with_its_mask(heads: str):
    model = encoder()
    replace_attention(model, heads)
    found = leakage(partial(model, mask=causal(4), is_causal=True), block_size=4, width=WIDTH)
    assert (found.verdict, found, found.gradient) == ("passed", 0, 0)
    assert leakage(model, block_size=4, width=WIDTH).verdict == "failed"
