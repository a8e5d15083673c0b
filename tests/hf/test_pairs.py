"""Heads whose scores are circuits of pairs in a Hugging Face model."""

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

import qiskit_qattn as qa
import qiskit_qattn.hf


@pytest.fixture
def model():
    sizes = {"vocab_size": 20, "n_positions": 16, "n_embd": 16, "n_layer": 1, "n_head": 4}
    found = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)).eval()
    qa.replace_attention(found, "overlap:1,qmsan:1,qcsam:1,kernel:1")
    return found


def test_pairs_are_scored_on_an_estimator_as_on_the_exact_engine(model):
    tokens, real = torch.randint(20, (2, 5)), torch.ones(2, 5, dtype=torch.long)
    real[1, :2] = 0
    expected = model(tokens, attention_mask=real).logits
    qa.to_backend(model, "density_matrix?noise=depolarizing&p1=0&p2=0")
    found = model(tokens, attention_mask=real).logits
    torch.testing.assert_close(found[real.bool()], expected[real.bool()], atol=1e-5, rtol=0)


def test_a_saved_model_is_loaded_with_its_heads(model, tmp_path):
    tokens = torch.randint(20, (2, 5))
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(loaded(tokens).logits, model(tokens).logits, atol=1e-6, rtol=0)
    options = {"max_new_tokens": 3, "do_sample": False, "pad_token_id": 0}
    assert torch.equal(loaded.generate(tokens, **options), model.generate(tokens, use_cache=False, **options))
