"""Tokens that repeat at a position are projected once, and nothing else changes."""

from __future__ import annotations

import pytest
import torch

from qiskit_qattn import GPT, GPTConfig
from qiskit_qattn.nn import folding, gpt
from qiskit_qattn.nn.cache import KeyValueCache
from qiskit_qattn.nn.repeats import MANY, Repeats

VOCAB, STEPS = 7, 5
BATCH = MANY * VOCAB


@pytest.fixture
def idx() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(VOCAB - 1, (BATCH, STEPS), generator=generator)  # one token never occurs


@pytest.fixture
def projected(monkeypatch) -> list[int]:
    """How many rows the folded projections were given, one after the other."""
    monkeypatch.setattr(folding, "_saves_work", lambda *_: True)
    product, counts = folding._affine, []

    def noted(rows, *args):
        if counts[-1:] != [len(rows)]:
            counts.append(len(rows))
        return product(rows, *args)

    monkeypatch.setattr(folding, "_affine", noted)
    return counts


def model_of(heads: str | list[str], **changes: object) -> GPT:
    count = 2 if "," in str(heads) or ":2" in str(heads) else 1
    shape = {"vocab_size": VOCAB, "block_size": 8, "n_layer": 2, "n_head": count, "n_embd": 8 * count, "num_qubits": 3}
    model = GPT(GPTConfig(**shape, heads=heads, **changes)).double().eval()
    model.wpe.weight.data.normal_()
    return model


def test_each_different_token_is_kept_once_and_every_token_finds_its_own(idx):
    repeats = Repeats.of(idx, VOCAB)
    table = torch.randn(VOCAB, STEPS, 3, 2)
    x = table[idx, torch.arange(STEPS)]  # (B, 5, 3, 2)
    once = repeats.once(x.flatten(2))
    assert once.shape == (1, VOCAB * STEPS, 6)
    assert torch.equal(repeats.spread(once.unflatten(-1, (3, 2))), x)
    assert set(once[0, :, 0].tolist()) == set(x[..., 0, 0].flatten().tolist())


def test_batches_with_few_repeats_have_none(idx):
    assert Repeats.of(idx[1:], VOCAB) is None
    assert Repeats.of(idx, VOCAB) is not None


@torch.no_grad()
@pytest.mark.parametrize(
    "heads", ["qisa:1", "qisa:2", "qisa:1,classical:1", ["qisa:1,classical:1", "classical:2"]], ids=str
)
@pytest.mark.parametrize("bias", [False, True])
def test_a_model_gives_the_same_and_projects_fewer_rows(heads, bias, idx, projected, monkeypatch):
    model = model_of(heads, bias=bias)
    found = model(idx)[0]
    assert projected == [VOCAB * STEPS, idx.numel()][: 1 if isinstance(heads, list) else 2]
    monkeypatch.setattr(gpt.Repeats, "of", lambda *_: None)
    torch.testing.assert_close(found, model(idx)[0], rtol=0, atol=1e-12)
    with torch.enable_grad():
        torch.testing.assert_close(found, model(idx)[0].detach(), rtol=0, atol=1e-12)


@torch.no_grad()
def test_a_zero_token_that_repeats_is_encoded_as_the_first_state(idx, projected):
    model = model_of("qisa:1", bias=False)
    model.wte.weight[2], model.wpe.weight[3] = 0, 0
    assert (idx[:, 3] == 2).sum() > 1
    with torch.enable_grad():
        expected = model(idx)[0].detach()
    assert projected == []
    torch.testing.assert_close(model(idx)[0], expected, rtol=0, atol=1e-12)
    assert projected[:2] == [VOCAB * STEPS, idx.numel()]


@pytest.mark.parametrize("why", ["gradients", "a cache", "training"])
def test_all_rows_are_projected_where_each_is_needed(why, idx, projected, monkeypatch):
    monkeypatch.setattr(gpt.Repeats, "of", lambda *_: pytest.fail("tokens were projected once"))
    model = model_of("qisa:1", dropout=0.5)
    if why == "gradients":
        with torch.no_grad():
            fused = model.fuse_circuits(idx.numel())
        model(idx, fused=fused)
    elif why == "a cache":
        with torch.no_grad():
            model(idx, caches=[KeyValueCache() for _ in model.blocks])
    else:
        with torch.no_grad():
            model.train()(idx)
    assert set(projected) == {idx.numel()}


@pytest.mark.parametrize("name", ["wte", "wpe", "blocks.0", "blocks.0.ln_1", "blocks.0.attn"])
def test_hooks_may_tell_equal_tokens_apart(name, idx, projected):
    model = model_of("qisa:1")
    if name in ("blocks.0", "blocks.0.attn"):
        model.get_submodule(name).register_forward_pre_hook(lambda _, args: (args[0] * scale, *args[1:]))
    else:
        model.get_submodule(name).register_forward_hook(lambda _, args, output: output * scale)
    scale = torch.linspace(1, 3, STEPS)[:, None] if name == "wpe" else torch.linspace(1, 3, BATCH)[:, None, None]
    expected = model(idx)[0].detach()
    with torch.no_grad():
        torch.testing.assert_close(model(idx)[0], expected, rtol=0, atol=1e-12)
    assert projected == [idx.numel()]


@torch.no_grad()
def test_embeddings_of_another_class_may_tell_equal_tokens_apart(idx, projected):
    class Scaled(torch.nn.Embedding):
        def forward(self, tokens):
            return super().forward(tokens) * torch.linspace(1, 3, len(tokens))[:, None, None]

    model = model_of("qisa:1")
    model.wte = Scaled(VOCAB, 8).double()
    with torch.enable_grad():
        expected = model(idx)[0].detach()
    torch.testing.assert_close(model(idx)[0], expected, rtol=0, atol=1e-12)
    assert projected == [idx.numel()]


@torch.no_grad()
def test_no_later_token_changes_an_earlier_output(idx, projected):
    model = model_of("qisa:1").float()
    edited = idx.clone()
    edited[:, 3:] = (edited[:, 3:] + 1) % VOCAB
    expected = model(idx)[0]
    assert projected[0] == VOCAB * STEPS
    assert torch.equal(model(edited)[0][:, :3], expected[:, :3])
