"""Head kinds by name: registering them, and what a layer makes of heads that differ."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest
import torch
from torch import nn

import qiskit_qattn as qa
from qiskit_qattn.errors import ConfigError, UnknownNameError
from qiskit_qattn.library.catalog import CATALOG, Recipe
from qiskit_qattn.library.encodings import amplitude_encoding
from qiskit_qattn.nn import kinds
from qiskit_qattn.nn.pairs import Pairing

RECIPE = Recipe(amplitude_encoding, CATALOG["zz"].ansatz, reps=1, first=lambda n: [], summary="RY and CX")
OWN = qa.HeadKind("own", circuit="own", recipe=RECIPE, summary="a third party's")


class Mean(nn.Module):
    """A control whose values are a token's mean."""

    def __init__(self, shape: kinds.HeadShape) -> None:
        super().__init__()
        self.outputs = shape.head_size

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.mean(-1, keepdim=True).expand(*rows.shape[:-1], self.outputs)


MEAN = qa.HeadKind("mean", values=Mean, num_features=lambda shape: 3, summary="a control")


pytestmark = pytest.mark.usefixtures("own_kinds")


def model_of(heads: str) -> qa.GPT:
    torch.manual_seed(0)
    return qa.GPT(qa.GPTConfig(vocab_size=7, block_size=6, n_layer=2, n_head=2, n_embd=8, heads=heads, num_qubits=2))


@pytest.mark.parametrize("kind", [OWN, MEAN], ids=lambda kind: kind.name)
def test_a_registered_kind_works_wherever_ours_do(kind):
    with pytest.raises(UnknownNameError, match=kind.name):
        model_of(f"{kind.name}:2")
    assert qa.register_head(kind) is kind and kind.name in qa.list_heads()
    qa.register_head(kind)  # once more is the same
    model, idx = model_of(f"{kind.name}:1,classical:1"), torch.randint(7, (2, 6))
    model(idx, idx)[1].backward()
    assert float(qa.leakage(model)) == 0.0
    with torch.no_grad():
        torch.testing.assert_close(qa.inference(model)(idx)[0], model(idx)[0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", [OWN, MEAN], ids=lambda kind: kind.name)
def test_a_registered_kind_works_in_torchs_attention(kind):
    """Three numbers of a vector of four are a learned map of it."""
    qa.register_head(kind)
    mha, x = qa.QuantumMultiheadAttention(8, 2, heads=f"classical:1,{kind.name}:1"), torch.randn(3, 2, 8)
    mha(x, x, x)[0].square().sum().backward()
    assert all(parameter.grad is not None for parameter in mha.parameters())
    assert [tuple(p.shape) for p in mha.encodings.parameters()] == ([(1, 4, 3)] if kind is MEAN else [])


def test_linear_queries_and_keys_are_scored_as_their_kind_says():
    qa.register_head(qa.HeadKind("near", circuit="qisa-v3", score="gaussian"))
    model, idx = model_of("near:1,qisa:1"), torch.randint(7, (2, 6))
    attention, x = model.blocks[0].attn, torch.randn(2, 6, 8)
    assert list(attention.counts) == ["qisa-v3", "near"]
    q, k = attention.c_attn(x)[..., :16].unflatten(-1, (2, 2, 4)).unbind(-3)
    with torch.no_grad():
        for name, circuit in attention.maps.items():
            circuit.weight.zero_()
            circuit.gain.fill_(float(name == "near"))
        attention.c_proj.weight.copy_(torch.eye(8))
    weights = torch.full((6, 6), -torch.inf).triu(1) - torch.cdist(q[..., 1, :], k[..., 1, :]).square()
    values = attention.maps["near"](attention.c_attn(x)[..., -4:].flatten(0, 1)[None])[0].unflatten(0, (2, 6))
    torch.testing.assert_close(attention(x)[..., 4:], weights.softmax(-1) @ values)
    assert float(qa.leakage(model)) == 0.0 and model(idx, idx)[1].isfinite()


def test_a_circuit_that_a_kind_brings_is_in_the_catalog():
    qa.register_head(OWN)
    assert qa.attention_circuit("own", 2).num_qubits == 2


@pytest.mark.parametrize(
    "kind, told",
    [
        (qa.HeadKind("classical", circuit="zz"), "registered already"),
        (qa.HeadKind("a:b", circuit="zz"), "letters"),
        (qa.HeadKind("qisa", circuit="zz"), "alias"),
        (qa.HeadKind("nothing"), "needs a circuit, or values"),
        (qa.HeadKind("keys", circuit="zz"), "which torch's modules use"),
        (qa.HeadKind("one", circuit="zz", score="cosine"), "score.*Known: complex, dot"),
        (qa.HeadKind("one", circuit="zz", projections="kv"), "projections.*Known"),
        (qa.HeadKind("one", circuit="zz", qk="one"), "qk.*Known"),
        (qa.HeadKind("one", circuit="zzz"), "circuit.*zzz.*Did you mean"),
        (qa.HeadKind("other", circuit="zz", recipe=RECIPE), "another name"),
        (qa.HeadKind("one", circuit="zz", projections="qkv", pairs=Pairing("mixed")), "projections must be 'v'"),
        (qa.HeadKind("one", circuit="zz", score="overlap"), "'overlap' is of states; give pairs"),
        (qa.HeadKind("one", circuit="zz", pairs=Pairing("overlap")), "the score of pairs 'overlap' is 'overlap'"),
        (qa.HeadKind("one", circuit="zz", pairs=Pairing("mixed", "zzz")), "pairs.*zzz.*Did you mean"),
        (
            qa.HeadKind("one", circuit="zz", score="dot", pairs=Pairing("dot")),
            "comparison.*Known: complex, mixed, overlap",
        ),
    ],
)
def test_what_cannot_be_registered(kind, told):
    before = qa.list_heads()
    with pytest.raises(ConfigError, match=told):
        qa.register_head(kind)
    assert qa.list_heads() == before


def test_installed_packages_bring_kinds(monkeypatch):
    found = {"mean": "MEAN", "wrong": "OWN", "broken": "NOTHING"}
    entries = [EntryPoint(name, f"{__name__}:{value}", kinds.GROUP) for name, value in found.items()]
    module = type(kinds)(__name__)
    module.__dict__.update(MEAN=MEAN, OWN=OWN)
    monkeypatch.setitem(__import__("sys").modules, __name__, module)
    monkeypatch.setattr(kinds, "entry_points", lambda group: entries)
    kinds._installed.cache_clear()
    assert set(found) < set(qa.list_heads())
    model_of("mean:2")
    with pytest.raises(ConfigError, match="must be a HeadKind of that name"):
        model_of("wrong:2")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        model_of("broken:2")


@pytest.mark.parametrize("act", ["raise RuntimeError('no')", "import sys; sys.exit(7)", "raise OSError(5, 'x')"])
def test_a_package_that_fails_in_any_way_does_not_hide_other_kinds(monkeypatch, tmp_path, act):
    (tmp_path / "qattn_failing_head.py").write_text(act)
    monkeypatch.syspath_prepend(str(tmp_path))
    entry = EntryPoint("failing", "qattn_failing_head:KIND", kinds.GROUP)
    monkeypatch.setattr(kinds, "entry_points", lambda group: [entry])
    kinds._installed.cache_clear()
    try:
        assert {"failing", "qisa-v3"} <= set(qa.list_heads())
        assert model_of("qisa:2").config.heads == "qisa:2"
        with pytest.raises(ConfigError, match="'failing' of an unknown package cannot be loaded"):
            model_of("failing:2")
    finally:
        kinds._installed.cache_clear()


@pytest.mark.parametrize("training", [True, False])
def test_layers_of_one_kind_may_run_different_circuits(training):
    """Unitaries are formed together for heads of the same circuit only."""
    model, idx = model_of("qisa:2").train(training), torch.randint(7, (2, 6))
    other = qa.QuantumHead(qa.attention_circuit("qisa", 2, observables=("XX", "XX", "ZZ", "ZI")), (2,))
    model.blocks[1].attn.maps["qisa-v3"] = other
    calls = []
    other.register_forward_hook(lambda module, args, out: calls.append((args[0], out)))
    model(idx)
    [(rows, values)] = calls
    torch.testing.assert_close(other(rows), values)  # on its own
    torch.testing.assert_close(values[..., 0], values[..., 1])


@pytest.mark.parametrize(
    "backend", ["statevector", "density_matrix", "statevector?shots=100&seed=1", "density_matrix -> statevector"]
)
@pytest.mark.parametrize("heads", ["qisa:2", "qsann:1,zz:1"])
def test_hooks_on_heads_fire_and_change_values_on_every_engine(backend, heads):
    model, idx = model_of(heads), torch.randint(7, (1, 3))
    seen = []
    for _, _, head in model.to_backend(backend).quantum_heads():
        head.register_forward_pre_hook(lambda module, args: seen.append("before") or (0 * args[0] + 0.3,))
        head.register_forward_hook(lambda module, args, out: seen.append("after") or (out - out.mean() + 5))
    outputs = [head for _, _, head in model.quantum_heads()]
    model(idx)
    assert seen == ["before", "after"] * len(outputs)


@pytest.mark.parametrize("backend", ["statevector", "density_matrix", "statevector?shots=100&seed=1"])
def test_another_forward_of_a_head_is_respected(backend):
    model, idx = model_of("qisa:1,classical:1").to_backend(backend), torch.randint(7, (1, 3))
    before = model(idx)[0]
    for _, _, head in model.quantum_heads():
        head.forward = lambda x, *_, **__: torch.ones(*x.shape[:-1], 4)
    assert (model(idx)[0] - before).abs().max() > 1e-6
