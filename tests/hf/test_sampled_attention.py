"""Sampled attention in the models of Hugging Face: batches, padding, caches, saving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, MistralConfig, MistralForCausalLM

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
