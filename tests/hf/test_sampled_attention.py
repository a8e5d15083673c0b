"""Sampled attention in the models of Hugging Face: batches, padding, caches, saving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BartConfig,
    BartForConditionalGeneration,
    MistralConfig,
    MistralForCausalLM,
)

import qiskit_qattn as qa
from qiskit_qattn.hf import QattnForCausalLM
from qiskit_qattn.nn.sampling import SampledMean

from .conftest import inputs_of

SAMPLING = "stratified?samples=6"


def sampled(build: Any, name: str) -> Any:
    """Return a model whose attention is sampled, in double precision."""
    model = build(name)
    qa.replace_attention(model, "classical", sampling=SAMPLING)
    return model.double().eval()


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert"])
def test_layers_are_numbered_and_batches_change_nothing(build: Any, name: str) -> None:
    model = sampled(build, name)
    assert [module.layer for module in model.modules() if isinstance(module, SampledMean)] == [0, 1]
    tokens = inputs_of(model)["input_ids"]
    with torch.no_grad():
        whole = model(input_ids=tokens).logits
        torch.testing.assert_close(model(input_ids=tokens.flip(0)).logits.flip(0), whole, rtol=0, atol=1e-10)
        torch.testing.assert_close(model(input_ids=tokens[:1]).logits, whole[:1], rtol=0, atol=1e-10)
        exact = build(name).double().eval()(input_ids=tokens).logits
    assert (whole - exact).abs().max() > 1e-6


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_padding_on_the_left_and_a_cache_change_nothing(build: Any, name: str) -> None:
    model = sampled(build, name)
    tokens = inputs_of(model)["input_ids"][:1]
    mask = torch.ones_like(tokens)
    padded = torch.cat([torch.full_like(tokens[:, :3], 1), tokens], 1)
    of_padded = torch.cat([torch.zeros_like(mask[:, :3]), mask], 1)
    assert float(qa.leakage(model, vocab_size=50, block_size=8)) == 0
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 1}
    text = model.generate(input_ids=tokens, attention_mask=mask, **options)
    uncached = model.generate(input_ids=tokens, attention_mask=mask, use_cache=False, **options)
    assert torch.equal(text, uncached)
    found = model.generate(input_ids=padded, attention_mask=of_padded, **options)
    assert torch.equal(found[:, 3:], text)


def test_saved_models_are_sampled_again(build: Any, tmp_path: Path) -> None:
    model = sampled(build, "gpt2").float()
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    tokens = inputs_of(model)["input_ids"]
    with torch.no_grad():
        torch.testing.assert_close(loaded(input_ids=tokens).logits, model(input_ids=tokens).logits)
    found = [module for module in loaded.modules() if isinstance(module, SampledMean)]
    assert [(module.scheme.text, module.layer) for module in found] == [(SAMPLING, 0), (SAMPLING, 1)]


def test_the_gpt_itself_is_loaded_with_its_sampling(tmp_path: Path) -> None:
    sizes = {"vocab_size": 11, "block_size": 8, "n_layer": 1, "n_embd": 16, "n_head": 2, "num_qubits": 2}
    model = qa.GPT(qa.GPTConfig(**sizes, heads="qisa:1,classical:1", sampling=SAMPLING)).eval()
    model.save_pretrained(tmp_path)
    tokens = torch.randint(11, (2, 8))
    loaded = QattnForCausalLM.from_pretrained(tmp_path).eval()
    assert loaded.config.sampling == SAMPLING
    with torch.no_grad():
        torch.testing.assert_close(loaded(input_ids=tokens).logits, model(tokens)[0])


def test_a_cache_of_a_sliding_window_changes_nothing() -> None:
    """Its mask begins at another key with each token, so the place of a query is not to be read off it."""
    config = MistralConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        sliding_window=4,
    )
    model = MistralForCausalLM(config)
    qa.replace_attention(model, "classical", sampling=SAMPLING)
    model = model.double().eval()
    tokens, options = torch.randint(50, (2, 6)), {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 1}
    options |= {"return_dict_in_generate": True, "output_logits": True}
    cached, whole = (model.generate(input_ids=tokens, use_cache=use, **options).logits for use in (True, False))
    torch.testing.assert_close(torch.stack(cached), torch.stack(whole), rtol=0, atol=1e-10)


def bart() -> Any:
    """Return a small encoder with a decoder, whose cross-attention is a class of its own."""
    torch.manual_seed(3)
    layers = {f"{side}_{what}": 2 for side in ("encoder", "decoder") for what in ("layers", "attention_heads")}
    sizes = {"d_model": 16, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 32}
    tokens = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2}
    return BartForConditionalGeneration(BartConfig(vocab_size=50, **layers, **sizes, **tokens)).eval()


@pytest.mark.parametrize("name", ["bart", "t5"])
def test_a_cache_changes_nothing_in_cross_attention(build: Any, name: str) -> None:
    """Queries are numbered by their places in the text, with a cache too, which gives one query at a time."""
    model = bart() if name == "bart" else build(name)
    qa.replace_attention(
        model, "classical", where=lambda path: "encoder_attn" in path or "EncDec" in path, sampling="naive?samples=2"
    )
    model = model.double().eval()
    tokens = torch.randint(3, 50, (2, 7))
    options = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
    options |= {"return_dict_in_generate": True, "output_logits": True}
    cached, whole = (model.generate(input_ids=tokens, use_cache=use, **options).logits for use in (True, False))
    torch.testing.assert_close(torch.stack(cached), torch.stack(whole), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["bart", "t5"])
def test_padding_of_the_keys_of_cross_attention_moves_no_query(build: Any, name: str) -> None:
    model = bart() if name == "bart" else build(name)
    qa.replace_attention(
        model, "classical", where=lambda path: "encoder_attn" in path or "EncDec" in path, sampling="naive?samples=2"
    )
    rows: list[torch.Tensor] = []
    for module in model.modules():
        if isinstance(module, SampledMean):
            module.register_forward_pre_hook(lambda _, args, kwargs: rows.append(kwargs["rows"]), with_kwargs=True)
    tokens = torch.randint(3, 50, (2, 7))
    mask = torch.ones_like(tokens)
    mask[0, :3] = 0
    with torch.no_grad():
        model(input_ids=tokens, attention_mask=mask, decoder_input_ids=tokens[:, :4])
    assert [each.tolist() for each in rows] == [[[0, 1, 2, 3]]] * 2
