from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import qiskit_qattn as qa
from qiskit_qattn.errors import ConfigError
from qiskit_qattn.evaluation.attention_maps import AttentionMap, AttentionMaps, attention_maps, divergence
from qiskit_qattn.nn.attention import CausalSelfAttention
from qiskit_qattn.nn.kinds import head_kind

LENGTH = 6


def gpt(heads: str, **options: Any) -> qa.GPT:
    """Return a GPT whose weights are large enough for its maps to differ."""
    n_head = sum(int(part.split(":")[1]) for part in heads.split(","))
    shape = {"vocab_size": 11, "block_size": LENGTH, "n_layer": 2, "n_head": n_head, "n_embd": 8 * n_head} | options
    model = qa.GPT(qa.GPTConfig(heads=heads, num_qubits=3 + (n_head > 1) + (n_head > 2), **shape))
    with torch.no_grad():
        for attention in model.attention_layers():
            if attention.c_attn is not None:
                attention.c_attn.weight.mul_(20)
    return model


@pytest.fixture
def tokens() -> Tensor:
    return torch.randint(11, (2, LENGTH), generator=torch.Generator().manual_seed(1))


def softmax_by_hand(logits: np.ndarray) -> np.ndarray:
    """Return the causal softmax of scores (B, T, T), row by row."""
    weights = np.zeros_like(logits)
    for b, i in np.ndindex(logits.shape[:2]):
        row = np.exp(logits[b, i, : i + 1] - logits[b, i, : i + 1].max())
        weights[b, i, : i + 1] = row / row.sum()
    return weights


def test_weights_of_linear_heads_are_those_of_the_definition(tokens: Tensor):
    model = gpt("classical:1,qisa:1").double()
    found = attention_maps(model, tokens)
    attention = model.attention_layers()[0]
    with torch.no_grad():
        x = model.blocks[0].ln_1(model.wte(tokens) + model.wpe(torch.arange(LENGTH)))
        q, k = attention.c_attn(x)[..., : attention.sizes[0]].unflatten(-1, (2, 2, 8)).permute(2, 3, 0, 1, 4).numpy()
    for head in range(2):
        expected = softmax_by_hand(q[head] @ k[head].transpose(0, 2, 1) / math.sqrt(8))
        np.testing.assert_allclose(found[head].weights, expected, atol=1e-12)
        assert np.ptp(expected[0, -1]) > 0.02  # not uniform


@pytest.mark.parametrize("kind", qa.list_heads())
def test_maps_of_every_kind_are_causal_and_give_the_output(kind: str, tokens: Tensor, monkeypatch: pytest.MonkeyPatch):
    model = gpt(f"{kind}:1,classical:1").eval()
    taken: list[Tensor] = []
    plain = CausalSelfAttention._attend

    def attend(self: Any, part: str, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> Tensor:
        y = plain(self, part, q, k, v, *rest)
        taken.extend((values, out) for values, out in zip(v.unbind(1), y.unbind(1), strict=True))
        return y

    monkeypatch.setattr(CausalSelfAttention, "_attend", attend)
    found = attention_maps(model, tokens)
    assert [each.layer for each in found] == [0, 0, 1, 1]
    drawn = [each for each in found if each.weights is not None]
    assert len(drawn) == len(taken)
    for each in drawn:
        assert each.weights.shape == (2, LENGTH, LENGTH) and not each.weights.requires_grad
        assert each.weights.triu(1).count_nonzero() == 0 and each.causal
        torch.testing.assert_close(each.weights.sum(-1), torch.ones(2, LENGTH), atol=1e-6, rtol=0)
    order = [row["kind"] for row in model.head_backends()]
    assert [each.kind for each in found] == order
    for layer in range(2):  # of the groups of a layer, in their own order
        outputs = taken[layer * len(taken) // 2 : (layer + 1) * len(taken) // 2]
        for each, (values, out) in zip([d for d in drawn if d.layer == layer], outputs, strict=True):
            if head_kind(each.kind).score != "complex":  # whose maps are moduli
                torch.testing.assert_close(each.weights @ values, out, atol=1e-5, rtol=1e-5)


def test_the_model_stays_as_it_was(tokens: Tensor):
    model = gpt("qisa:1,angle:1,classical:1", dropout=0.3).train()
    model.blocks[0].eval()
    modes = [part.training for part in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    attributes = [set(vars(part)) for part in model.modules()]
    hooks = [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules()]
    generator, fast = torch.get_rng_state(), torch.backends.mha.get_fastpath_enabled()
    attention_maps(model, tokens)
    with pytest.raises(ConfigError, match="longer than block_size"):
        attention_maps(model, tokens.repeat(1, 2))
    assert [part.training for part in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert [set(vars(part)) for part in model.modules()] == attributes
    assert [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules()] == hooks
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.backends.mha.get_fastpath_enabled() == fast
    assert all(p.grad is None for p in model.parameters())


def test_outputs_are_those_of_a_plain_call(tokens: Tensor):
    model = gpt("qisa:1,qsann:1,classical:1").eval()
    seen = []
    handle = model.register_forward_hook(lambda _, args, output: seen.append(output[0]))
    attention_maps(model, tokens)
    handle.remove()
    with torch.no_grad():
        assert torch.equal(seen[0], model(tokens)[0])


def test_one_sequence_needs_no_batch(tokens: Tensor):
    model = gpt("qisa:1,classical:1")
    alone, both = attention_maps(model, tokens[0]), attention_maps(model, tokens)
    for one, two in zip(alone, both, strict=True):
        torch.testing.assert_close(one.weights[0], two.weights[0], atol=1e-6, rtol=0)


def test_labels_say_where_each_head_ran(tokens: Tensor):
    model = gpt("qisa:1,classical:1", n_layer=1)
    model.to_backend("statevector?seed=3&shots=64")
    assert [each.label for each in attention_maps(model, tokens)] == [
        "layer 0, head 0: qisa-v3 on statevector?seed=3&shots=64",
        "layer 0, head 1: classical on torch",
    ]


def test_a_copy_for_inference_has_the_same_maps(tokens: Tensor):
    model = gpt("qisa:1,angle:1,classical:1")
    for twin, own in zip(attention_maps(qa.inference(model), tokens), attention_maps(model, tokens), strict=True):
        assert (twin.label, twin.name) == (own.label, own.name)
        torch.testing.assert_close(twin.weights, own.weights, atol=1e-5, rtol=0)


def head(weights: Any, kind: str = "classical", number: int = 0, layer: int = 0) -> AttentionMap:
    """Return a map of one sequence."""
    return AttentionMap(layer, "attn", number, kind, "torch", torch.as_tensor(weights, dtype=torch.float64)[None])


UNIFORM = torch.ones(4, 4).tril() / torch.arange(1, 5)[:, None]


def test_figures_of_known_maps():
    uniform = head(UNIFORM).figures()
    assert uniform["entropy"] == pytest.approx(sum(map(math.log, range(1, 5))) / 4)
    assert uniform["relative_entropy"] == pytest.approx(1)
    assert uniform["distance"] == pytest.approx((0 + 0.5 + 1 + 1.5) / 4)
    assert head(torch.eye(4)).figures() == {"entropy": 0, "relative_entropy": 0, "distance": 0}
    before = head(torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 1, 0]])).figures()
    assert before == {"entropy": 0, "relative_entropy": 0, "distance": pytest.approx(2 / 3)}


def test_a_map_that_is_not_causal_is_measured_against_all_keys():
    both = head(torch.full((3, 3), 1 / 3))
    assert not both.causal
    assert both.figures() == {
        "entropy": pytest.approx(math.log(3)),
        "relative_entropy": pytest.approx(1),
        "distance": pytest.approx(8 / 9),
    }
    cross = head(torch.full((2, 3), 1 / 3)).figures()
    assert cross["distance"] is None and cross["relative_entropy"] == pytest.approx(1)


def test_one_token_has_no_relative_entropy():
    assert head(torch.ones(1, 1)).figures() == {"entropy": 0, "relative_entropy": None, "distance": 0}


def test_rows_that_see_no_key_do_not_count():
    rows = torch.tensor([[math.nan] * 2, [0.5, 0.5]])
    assert head(rows).figures()["entropy"] == pytest.approx(math.log(2))


def test_divergence_is_a_distance_of_rows(rng: np.random.Generator):
    p, q = (head(softmax_by_hand(rng.normal(size=(1, 5, 5)))[0]) for _ in range(2))
    assert divergence(p, p) == 0
    assert divergence(p, q) == divergence(q, p)
    assert 0 < divergence(p, q) < math.log(2)
    apart = head([[1.0, 0], [1, 0]]), head([[0, 1.0], [0, 1]])
    assert divergence(*apart) == pytest.approx(math.log(2))
    expected = 0.0
    for a, b in zip(p.weights[0].tolist(), q.weights[0].tolist(), strict=True):
        for x, y in zip(a, b, strict=True):
            middle = (x + y) / 2
            expected += sum(z * math.log(z / middle) for z in (x, y) if z) / 2 / 5
    assert divergence(p, q) == pytest.approx(expected, abs=1e-12)


def test_quantum_heads_are_compared_with_classical_ones():
    maps = AttentionMaps(
        (
            head(UNIFORM, "qisa-v3"),
            head(torch.eye(4), "classical", 1),
            AttentionMap(0, "attn", 2, "zz", "statevector", None),
            head(UNIFORM, layer=1),
        )
    )
    assert [(row["heads"], row["mixed"]) for row in maps.divergences()] == [([0, 1], True)]
    assert maps.quantum_from_classical() == {0: divergence(maps[0], maps[1]), 1: None}
    assert maps[2].label.endswith("(no weights)") and maps[2].figures()["entropy"] is None
    assert [each.head for each in maps.select(layer=0)] == [0, 1, 2]
    assert [each.layer for each in maps.select(head=0)] == [0, 1]
    with pytest.raises(ConfigError, match="no layer 2; there are 0, 1"):
        maps.select(layer=2)
    with pytest.raises(ConfigError, match="Layer 1 has no head 2"):
        maps.select(1, 2)


class Encoder(nn.Module):
    """Two of torch's encoder layers with a causal mask, as someone else would write them."""

    def __init__(self, *, batch_first: bool = True) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 4, 16, dropout=0.0, batch_first=batch_first, norm_first=True)
        self.embed = nn.Embedding(11, 16)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, idx: Tensor, padding: Tensor | None = None) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(idx.shape[1])
        return self.layers(self.embed(idx) * 4, mask, None if padding is None else padding.float() * -1e30)


@pytest.mark.parametrize("heads", ["qisa:1,classical:2,angle:1", "classical:4", None])
def test_replaced_torch_attention(heads: str | None, tokens: Tensor):
    model = Encoder().eval()
    if heads:
        qa.replace_attention(model, heads, "*.1.*")
    seen = []
    handle = model.register_forward_hook(lambda _, args, output: seen.append(output))
    found = attention_maps(model, tokens)
    handle.remove()
    assert [(each.layer, each.head) for each in found] == [(i, j) for i in range(2) for j in range(4)]
    assert [each.name for each in found[::4]] == [f"layers.layers.{i}.self_attn" for i in range(2)]
    if heads == "qisa:1,classical:2,angle:1":
        assert [each.kind for each in found[4:]] == ["qisa-v3", "classical", "classical", "angle"]
        assert [each.backend for each in found[4:]] == ["statevector", "torch", "torch", "statevector"]
    assert all(each.kind == "classical" and each.backend == "torch" for each in found[:4])
    for each in found:
        assert each.causal and each.weights.shape == (2, LENGTH, LENGTH)
        torch.testing.assert_close(each.weights.sum(-1), torch.ones(2, LENGTH), atol=1e-6, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(seen[0], model(tokens), atol=1e-5, rtol=1e-5)
    _, own = model.layers.layers[1].self_attn(
        *[torch.randn(2, LENGTH, 16)] * 3, need_weights=True, average_attn_weights=False
    )
    assert own.shape == (2, 4, LENGTH, LENGTH)  # its hooks are gone


@pytest.mark.parametrize("quantum", [False, True])
@pytest.mark.parametrize("average", [False, True])
def test_a_caller_of_attention_gets_what_it_asked_for(quantum: bool, average: bool):
    attention: nn.Module = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    if quantum:
        attention = qa.QuantumMultiheadAttention.from_classical(attention, "qisa:1,classical:1")
    x, memory = torch.randn(3, 4, 8), torch.randn(3, 5, 8)
    options = {"average_attn_weights": average}
    outputs = []

    class Caller(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = attention

        def forward(self, x: Tensor, memory: Tensor) -> None:
            outputs.append(self.attention(x, memory, memory, **options))
            outputs.append(self.attention(x, memory, memory, None, False))

    found = attention_maps(Caller().eval(), (x, memory))
    assert [each.layer for each in found] == [0, 0, 1, 1]  # two calls
    with torch.no_grad():
        y, weights = attention(x, memory, memory, **options)
    torch.testing.assert_close(outputs[0][0], y)
    torch.testing.assert_close(outputs[0][1], weights)
    torch.testing.assert_close(outputs[1][0], y)
    assert outputs[1][1] is None
    assert found[0].weights.shape == (3, 4, 5) and found[0].figures()["distance"] is None
    own = torch.stack([each.weights for each in found[:2]], 1)
    torch.testing.assert_close(own.mean(1) if average else own, weights)


@pytest.mark.parametrize(
    ("model", "tokens", "told"),
    [
        (nn.Linear(2, 2), torch.ones(1, 2), "Linear holds no attention"),
        (lambda x: x, torch.ones(1, 2), r"must be a torch.nn.Module, got function"),
        (Encoder(), [1, 2], "tokens must be a tensor, a tuple or a mapping"),
    ],
)
def test_what_has_no_maps_is_an_error(model: Any, tokens: Any, told: str):
    with pytest.raises(ConfigError, match=told):
        attention_maps(model, tokens)


def test_on_a_chain_the_label_is_where_this_call_ran(tokens: Tensor):
    model = gpt("qisa:1,classical:1", n_layer=1)
    model.to_backend("statevector?seed=3&shots=64 -> statevector")
    for _ in range(2):
        assert attention_maps(model, tokens)[0].backend == "statevector?seed=3&shots=64"


@pytest.mark.parametrize("heads", [None, "qisa:1,classical:3"])
def test_padding_that_hides_all_keys_changes_no_output(heads: str | None):
    attention: nn.Module = nn.MultiheadAttention(16, 4, batch_first=True).eval()
    if heads:
        attention = qa.QuantumMultiheadAttention.from_classical(attention, heads)
    holder = nn.ModuleDict({"attention": attention}).eval()
    x, padding = torch.randn(2, 3, 16), torch.tensor([[True, False, False], [False] * 3])
    mask = torch.ones(3, 3).triu(1) > 0
    outputs = []

    def forward(x: Tensor) -> None:
        outputs.append(attention(x, x, x, padding, need_weights=False, attn_mask=mask)[0])

    holder.forward = forward
    found = attention_maps(holder, x)
    with torch.no_grad():
        forward(x)
    there = ~outputs[1].isnan()  # torch's fast path has NaN where a row sees no key
    torch.testing.assert_close(outputs[0][there], outputs[1][there])
    assert there[:, 1:].all() and not outputs[0].isnan().any()
    assert found[0].weights[0, 0].isnan().all() and not found[0].weights[1].isnan().any()
    assert all(value is not None and value == value for value in found[0].figures().values())


def test_a_compiled_model_has_the_maps_of_the_model(tokens: Tensor):
    model = gpt("qisa:1,classical:1", n_layer=1)
    compiled = torch.compile(model, backend="eager")
    for each, other in zip(attention_maps(compiled, tokens), attention_maps(model, tokens), strict=True):
        assert torch.equal(each.weights, other.weights) and each.kind == other.kind
