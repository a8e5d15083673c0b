"""Inference with folded projections gives what the heads give one by one."""

from __future__ import annotations

import pytest
import torch

from qiskit_qattn.errors import EncodingError
from qiskit_qattn.nn import folding
from qiskit_qattn.nn.attention import CausalSelfAttention
from qiskit_qattn.nn.cache import KeyValueCache
from qiskit_qattn.nn.config import GPTConfig
from qiskit_qattn.nn.folding import FoldedPass, FusedLayer
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.nn.heads import fuse_heads
from qiskit_qattn.simulation import threads


def layer_of(heads: dict[str, int], **options) -> CausalSelfAttention:
    config = GPTConfig(
        vocab_size=8,
        block_size=8,
        n_layer=1,
        n_head=sum(heads.values()),
        n_embd=8 * sum(heads.values()),
        heads=",".join(f"{kind}:{count}" for kind, count in heads.items()),
        num_qubits=3,
        **options,
    )
    layer = CausalSelfAttention(config, config.layers()[0]).eval()
    for linear in (layer.c_attn, layer.c_proj):
        if linear.bias is not None:
            torch.nn.init.normal_(linear.bias)
    return layer


def unfolded(layer: CausalSelfAttention, x: torch.Tensor) -> torch.Tensor:
    return layer(x, fused=FusedLayer())


def fused(layer: CausalSelfAttention, rows: int) -> FusedLayer:
    names = [name for name in layer.counts if name in ("qisa-v3", "frozen", "zz")]
    return layer.fold({name: fuse_heads([layer.maps[name]])[0] for name in names}, rows)


@pytest.mark.parametrize("rows", [1, 1000], ids=["few", "many"])
@pytest.mark.parametrize("dtype, atol", [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=["double", "float"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    "heads",
    [{"qisa": 1}, {"qisa": 2, "classical": 1}, {"classical": 1, "qisa": 1}, {"frozen": 1, "classical": 2, "qisa": 2}],
    ids=str,
)
@torch.no_grad()
def test_folded_layers_give_the_same(heads, bias, dtype, atol, rows, monkeypatch):
    layer = layer_of(heads, bias=bias).to(dtype)
    if rows == 1000:  # fold however wide the layer is
        monkeypatch.setattr(folding, "_saves_work", lambda *_: True)
    x = torch.randn(2, 5, layer.n_embd, dtype=dtype)
    parts = fused(layer, rows)
    assert parts.projection(x) is not None
    assert parts.projects_out == (sum(heads.values()) == 1)
    torch.testing.assert_close(layer(x, fused=parts), unfolded(layer, x), rtol=0, atol=atol)


@torch.no_grad()
@pytest.mark.parametrize("other", ["zz", "quadratic", "rff", "qsann"])
def test_layers_where_other_kinds_run_are_not_folded(other):
    layer = layer_of({"qisa": 1, other: 1}).double()
    parts, x = layer.fuse(10), torch.randn(2, 5, layer.n_embd, dtype=torch.float64)
    assert "qisa-v3" in parts.heads and parts.projection is None and not parts.whole
    with torch.enable_grad():
        expected = layer(x)
    torch.testing.assert_close(layer(x, fused=parts), expected, rtol=0, atol=1e-12)


@torch.no_grad()
def test_wide_layers_are_folded_for_few_rows_only():
    layer = layer_of({"qisa": 4})  # width 32, 3 qubits: A has more entries than W and U together
    assert fused(layer, 1).projection is not None
    assert fused(layer, 10_000).projection is None
    assert fused(layer_of({"qisa": 1}), 10_000).projection is not None


@torch.no_grad()
@pytest.mark.parametrize("heads", [{"qisa": 1}, {"qisa": 2}], ids=str)
@pytest.mark.parametrize("rows, dtype", [(3, torch.float32), (1000, torch.float32), (1000, torch.float64)], ids=str)
def test_zero_tokens_are_encoded_as_the_first_state(heads, rows, dtype, monkeypatch):
    monkeypatch.setattr(folding, "_saves_work", lambda *_: True)
    layer = layer_of(heads, bias=False).to(dtype)
    x = torch.randn(1, 3, layer.n_embd, dtype=dtype)
    x[0, 1] = 0
    parts = fused(layer, rows)
    assert parts.projection(x) is None
    shared = FoldedPass()
    layer(x, fused=parts, shared=shared)
    if rows == 1000 and (dtype == torch.float64 or not threads.are_available()):
        assert shared.norms[0][1, 0] == 0 < shared.norms[0][0, 0]
        assert not shared.holds()
    else:  # compiled loops look on the spot
        assert shared.norms == []
    result = layer(x, fused=parts)
    assert torch.isfinite(result).all()
    torch.testing.assert_close(result, unfolded(layer, x))


@pytest.mark.parametrize("dtype, atol", [(torch.float64, 1e-10), (torch.float32, 1e-4)], ids=["double", "float"])
@pytest.mark.parametrize("tokens", [6, 300], ids=["few", "many"])
@pytest.mark.parametrize("heads", ["qisa:1", "qisa:1,classical:1", "qisa:1,rff:1", "qisa:1,quadratic:1", "qisa:1,zz:1"])
def test_a_model_that_meets_a_zero_token_gives_the_same_and_leaves_its_caches_right(
    heads, tokens, dtype, atol, monkeypatch
):
    monkeypatch.setattr(folding, "_saves_work", lambda *_: True)
    count = heads.count(":")
    config = GPTConfig(
        vocab_size=8,
        block_size=300,
        n_layer=2,
        n_head=count,
        n_embd=8 * count,
        heads=heads,
        num_qubits=3,
        bias=False,
    )
    model = GPT(config).to(dtype).eval()
    model.wte.weight.data[3], model.wpe.weight.data[1], model.wpe.weight.data[tokens - 1] = 0, 0, 0
    idx = torch.randint(3, (1, tokens))
    idx[0, 1] = idx[0, -1] = 3
    expected = model(idx)[0]  # with gradients nothing is folded
    runs = []
    run = model._run_blocks
    monkeypatch.setattr(model, "_run_blocks", lambda *args: runs.append(len(args) == 3) or run(*args))
    with torch.no_grad():
        torch.testing.assert_close(model(idx)[0], expected, rtol=0, atol=atol)
        if heads in ("qisa:1", "qisa:1,classical:1") and tokens == 300:
            assert runs == ([False, True] if dtype == torch.float64 or not threads.are_available() else [False])
        else:
            assert runs == [True]
        caches = [KeyValueCache() for _ in model.blocks]
        parts = [
            model(idx[:, start:end], caches=caches, position=start)[0]
            for start, end in ((0, tokens - 1), (tokens - 1, tokens))
        ]
        torch.testing.assert_close(torch.cat(parts, 1), expected, rtol=0, atol=atol)
        assert {k.shape[-2] for cache in caches for k, _ in cache.pairs.values()} == {tokens}


@pytest.mark.parametrize("tokens", [6, 300], ids=["few", "many"])
def test_what_was_folded_without_gradients_serves_a_pass_with_them(tokens):
    config = GPTConfig(vocab_size=8, block_size=300, n_layer=2, n_head=1, n_embd=8, heads="qisa:1", num_qubits=3)
    model, idx = GPT(config).eval(), torch.randint(8, (1, tokens))
    with torch.no_grad():
        fused = model.fuse_circuits(tokens)
        expected = model(idx)[0]
    found = model(idx, fused=fused)[0]
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    assert model.wpe.weight.grad.isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_no_later_token_changes_an_earlier_output(dtype):
    config = GPTConfig(vocab_size=8, block_size=8, n_layer=2, n_head=1, n_embd=8, heads="qisa:1", num_qubits=3)
    model, idx = GPT(config).to(dtype).eval(), torch.randint(8, (100, 8))
    edited = idx.clone()
    edited[:, 5:] = (edited[:, 5:] + 1) % 8
    assert all(layer.projection is not None for layer in model.fuse_circuits(idx.numel()))
    expected, found = model(idx)[0], model(edited)[0]
    assert torch.equal(found[:, :5], expected[:, :5])
    assert not torch.equal(found[:, 5:], expected[:, 5:])


@torch.no_grad()
def test_a_pass_of_dropout_runs_once():
    config = GPTConfig(
        vocab_size=8, block_size=8, n_layer=2, n_head=1, n_embd=8, heads="qisa:1", num_qubits=3, bias=False, dropout=0.5
    )
    model, idx = GPT(config), torch.tensor([[0, 3, 1]])
    model.wte.weight.data[3], model.wpe.weight.data[1] = 0, 0
    torch.manual_seed(1)
    model(idx)
    after = torch.rand(1)
    model.wte.weight.data[3] = 1  # no zero token now
    torch.manual_seed(1)
    model(idx)
    assert torch.equal(after, torch.rand(1))


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 300])
@pytest.mark.parametrize("heads", ["qisa:1", "qisa:2", "qisa:1,classical:1"])
def test_a_batch_of_none(heads, rows, monkeypatch):
    monkeypatch.setattr(folding, "_saves_work", lambda *_: True)
    count = heads.count(":") if "," in heads else int(heads[-1])
    config = GPTConfig(vocab_size=8, block_size=8, n_layer=1, n_head=count, n_embd=8 * count, heads=heads, num_qubits=3)
    model = GPT(config).eval()
    fused = model.fuse_circuits(rows)
    assert fused[0].projection is not None
    assert model(torch.zeros(0, 5, dtype=torch.long), fused=fused)[0].shape == (0, 5, 8)


@torch.no_grad()
def test_a_layer_alone_folds_itself(monkeypatch):
    layer = layer_of({"qisa": 1, "classical": 1}).double()
    x = torch.randn(2, 5, layer.n_embd, dtype=torch.float64)
    expected = unfolded(layer, x)
    monkeypatch.setattr(layer, "_run_heads", None)  # nothing is projected apart from the circuits
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("tokens", [3, 100])
def test_tokens_that_are_not_finite_are_refused(tokens):
    layer = layer_of({"qisa": 2})
    x = torch.randn(1, tokens, layer.n_embd)
    x[0, -1, 2] = torch.nan
    with pytest.raises(EncodingError, match="NaN"):
        layer(x, fused=fused(layer, tokens))


@torch.no_grad()
def test_what_was_folded_outside_autocast_is_left_aside_in_it():
    config = GPTConfig(vocab_size=8, block_size=8, n_layer=2, n_head=1, n_embd=8, heads="qisa:1", num_qubits=3)
    model, idx = GPT(config).eval(), torch.randint(8, (1, 5))
    fused = model.fuse_circuits(5)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(idx, fused=fused)[0], model(idx)[0])


def wide_model(width: int) -> GPT:
    torch.manual_seed(5)
    config = GPTConfig(vocab_size=8, block_size=300, n_layer=2, n_head=1, n_embd=width, heads="qisa:1", num_qubits=4)
    return GPT(config).double().eval()


@pytest.mark.parametrize("prefix", [5, 100, 280])
@pytest.mark.parametrize("width", [16, 64], ids=["folds many rows", "folds few only"])
def test_passes_that_fold_and_passes_that_do_not_share_a_cache(width, prefix):
    model, idx = wide_model(width), torch.randint(8, (1, prefix + 1))
    expected = model(idx)[0][:, -1]
    for gradients in (False, True):
        caches = [KeyValueCache() for _ in model.blocks]
        with torch.no_grad():
            model(idx[:, :-1], caches=caches)
        with torch.set_grad_enabled(gradients):
            found = model(idx[:, -1:], caches=caches, position=prefix)[0][:, -1]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@torch.no_grad()
@pytest.mark.parametrize("cached", [False, True])
def test_a_zero_token_after_folded_ones(cached):
    config = GPTConfig(
        vocab_size=8, block_size=20, n_layer=2, n_head=1, n_embd=8, heads="qisa:1", num_qubits=3, bias=False
    )
    model, idx = GPT(config).double().eval(), torch.randint(3, (1, 20))
    model.wte.weight[3], model.wpe.weight[19], idx[0, -1] = 0, 0, 3
    with torch.enable_grad():
        expected = model(idx)[0][:, -1]
    caches, fused = [KeyValueCache() for _ in model.blocks], model.fuse_circuits(cached=cached)
    model(idx[:, :-1], caches=caches, fused=fused)
    found = model(idx[:, -1:], caches=caches, position=19, fused=fused)[0][:, -1]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def test_nothing_is_folded_with_gradients_or_autocast():
    layer = layer_of({"qisa": 1})
    assert layer.fold({"qisa-v3": fuse_heads([layer.maps["qisa-v3"]])[0]}, 1).projection is None
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert fused(layer, 1).projection is None


EDITS = {
    "projection": lambda model: model.blocks[1].attn.c_attn.weight.data.mul_(1.5),
    "bias": lambda model: model.blocks[0].attn.c_attn.bias.data.add_(0.5),
    "output": lambda model: model.blocks[0].attn.c_proj.weight.data.mul_(3.0),
    "output's bias": lambda model: model.blocks[0].attn.c_proj.bias.data.add_(1.0),
    "angles": lambda model: model.blocks[0].attn.maps["qisa-v3"].weight.data.add_(0.7),
    "gains": lambda model: model.blocks[1].attn.maps["qisa-v3"].gain.data.mul_(2.0),
    "dtype": lambda model: model.double(),
    "rows": lambda model: None,
}


@torch.no_grad()
@pytest.mark.parametrize("heads", ["qisa:1", "qisa:1,classical:1"])
@pytest.mark.parametrize("edit", EDITS)
def test_a_model_keeps_what_it_folded_until_something_changes(edit, heads, monkeypatch):
    config = GPTConfig(
        vocab_size=8,
        block_size=300,
        n_layer=2,
        n_head=heads.count(":"),
        n_embd=16,
        heads=heads,
        num_qubits=3,
        bias=True,
    )
    model, count = GPT(config).eval(), []
    compute = model.fuse_circuits
    monkeypatch.setattr(model, "fuse_circuits", lambda rows, cached: count.append(rows) or compute(rows, cached))
    tokens = torch.randint(8, (1, 5))
    assert torch.equal(model(tokens)[0], model(tokens)[0])
    assert count == [5]
    before = model(tokens)[0]
    EDITS[edit](model)
    if edit == "rows":
        tokens = torch.randint(8, (1, 300))
    found = model(tokens)[0]
    assert count == [5, tokens.numel()]
    fresh = GPT(config).eval().to(model.wpe.weight.dtype)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(found, fresh(tokens)[0])
    if edit not in ("rows", "dtype"):
        assert not torch.equal(found, before)


@torch.no_grad()
def test_a_model_on_another_backend_folds_again(monkeypatch):
    model = GPT(
        GPTConfig(vocab_size=8, block_size=8, n_layer=1, n_head=1, n_embd=8, heads="qisa:1", num_qubits=3)
    ).eval()
    tokens = torch.randint(8, (1, 5))
    exact = model(tokens)[0]
    model.to_backend("statevector?shots=10&seed=1")
    assert not torch.equal(model(tokens)[0], exact)
    model.to_backend("statevector")
    assert torch.equal(model(tokens)[0], exact)


@torch.no_grad()
@pytest.mark.parametrize("tokens", [6, 300], ids=["few", "many"])
@pytest.mark.parametrize("name", ["c_attn", "c_proj", "maps.qisa-v3"])
@pytest.mark.parametrize("before", [False, True], ids=["forward hook", "pre-hook"])
def test_hooks_are_called(name, before, tokens):
    config = GPTConfig(vocab_size=8, block_size=300, n_layer=2, n_head=1, n_embd=8, heads="qisa:1", num_qubits=3)
    model, idx, called = GPT(config).double().eval(), torch.randint(8, (1, tokens)), []
    expected = model(idx)[0]
    assert all(layer.projection is not None for layer in model._folded._known[2])
    module = model.blocks[1].attn.get_submodule(name)
    register = module.register_forward_pre_hook if before else module.register_forward_hook
    hook = register(lambda *_: called.append(1))
    torch.testing.assert_close(model(idx)[0], expected, rtol=0, atol=1e-12)
    assert called == [1]
    hook.remove()
    model(idx)
    assert called == [1]
    assert all(layer.projects_out for layer in model._folded._known[2])


class Adapter(torch.nn.Module):
    """A low-rank adapter around a linear map, which keeps the map's attributes in reach, as libraries do."""

    def __init__(self, base: torch.nn.Linear) -> None:
        super().__init__()
        self.base, self.weight, self.bias = base, base.weight, base.bias
        self.change = torch.nn.Linear(base.in_features, base.out_features, bias=False).to(base.weight)
        self.gate = torch.nn.Parameter(torch.ones((), dtype=base.weight.dtype))
        self.strength = 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + self.strength * self.gate * self.change(x)


@pytest.mark.parametrize("tokens", [6, 300], ids=["few", "many"])
@pytest.mark.parametrize("name", ["c_attn", "c_proj"])
def test_adapters_and_parametrized_weights_are_used(name, tokens):
    config = GPTConfig(vocab_size=8, block_size=300, n_layer=2, n_head=1, n_embd=8, heads="qisa:1", num_qubits=3)
    model, idx = GPT(config).double().eval(), torch.randint(8, (1, tokens))

    def same_as_with_gradients() -> torch.Tensor:
        expected = model(idx)[0].detach()
        with torch.no_grad():
            torch.testing.assert_close(model(idx)[0], expected, rtol=0, atol=1e-12)
        return expected

    seen = [same_as_with_gradients()]
    attention = model.blocks[0].attn
    linear = getattr(attention, name)
    setattr(attention, name, Adapter(linear))
    seen.append(same_as_with_gradients())
    getattr(attention, name).change.weight.data *= 2
    seen.append(same_as_with_gradients())
    getattr(attention, name).strength = 3.0  # no parameter
    seen.append(same_as_with_gradients())
    setattr(attention, name, torch.nn.utils.parametrizations.weight_norm(linear))
    same_as_with_gradients()
    linear.parametrizations.weight.original0.data *= 2
    seen.append(same_as_with_gradients())
    assert all((a - b).abs().max() > 1e-6 for i, a in enumerate(seen) for b in seen[:i])


class Shifted(torch.nn.Module):
    """A parametrization of angles."""

    def forward(self, angles: torch.Tensor) -> torch.Tensor:
        return angles + 1


@pytest.mark.parametrize("tokens", [6, 300], ids=["few", "many"])
@pytest.mark.parametrize("how", ["parametrized angles", "a plain tensor as weight"])
def test_weights_that_are_no_parameters_are_watched(how, tokens):
    config = GPTConfig(vocab_size=8, block_size=300, n_layer=2, n_head=1, n_embd=8, heads="qisa:1", num_qubits=3)
    model, idx = GPT(config).double().eval(), torch.randint(8, (1, tokens))
    attention = model.blocks[1].attn
    if how == "parametrized angles":
        head = attention.maps["qisa-v3"]
        torch.nn.utils.parametrize.register_parametrization(head, "weight", Shifted())
        weight = head.parametrizations.weight.original.data
    else:
        weight = attention.c_attn.weight.detach().clone()
        del attention.c_attn.weight
        attention.c_attn.weight = weight
    seen = []
    for _ in range(2):
        seen.append(model(idx)[0].detach())
        with torch.no_grad():
            torch.testing.assert_close(model(idx)[0], seen[-1], rtol=0, atol=1e-12)
        weight *= 1.5
    assert (seen[0] - seen[1]).abs().max() > 1e-6


@torch.no_grad()
def test_two_threads_give_the_same():
    config = GPTConfig(vocab_size=8, block_size=300, n_layer=2, n_head=1, n_embd=8, heads="qisa:1", num_qubits=3)
    model, idx, before = GPT(config).eval(), torch.randint(8, (2, 299)), torch.get_num_threads()
    with torch.enable_grad():
        expected = model(idx)[0].detach()
    torch.set_num_threads(2)
    try:
        torch.testing.assert_close(model(idx)[0], expected, rtol=0, atol=1e-5)
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def test_tokens_of_another_width_are_refused():
    layer = layer_of({"qisa": 1})
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        layer(torch.randn(1, 100, layer.n_embd + 1))
