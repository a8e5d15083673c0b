from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

import qiskit_qattn as qa
from qiskit_qattn.errors import ConfigError
from qiskit_qattn.hf import QattnConfig, QattnForCausalLM

CONFIGS = {
    "llama": LlamaConfig(
        vocab_size=20,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    ),
    "gpt2": GPT2Config(vocab_size=20, n_embd=32, n_layer=2, n_head=4, n_positions=16, bos_token_id=0, eos_token_id=0),
}


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(20, (2, 6), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", CONFIGS)
def test_maps_of_classical_heads_are_those_of_eager_attention(name: str, tokens: torch.Tensor):
    model = AutoModelForCausalLM.from_config(CONFIGS[name], attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4 if parameter.ndim > 1 else 1)
        expected = model(tokens, output_attentions=True).attentions[0]  # (B, H, T, T)
    qa.replace_attention(model, "classical:2,qisa:1,classical:1")
    found = qa.attention_maps(model, tokens)
    assert [each.kind for each in found[:4]] == ["classical", "classical", "qisa-v3", "classical"]
    for each in found:
        assert each.causal
    for head in range(4):  # a qisa head has linear queries and keys
        torch.testing.assert_close(found[head].weights, expected[:, head], atol=1e-5, rtol=1e-4)


def test_padding_on_the_left_changes_no_map(tokens: torch.Tensor):
    model = AutoModelForCausalLM.from_config(CONFIGS["llama"]).eval()
    qa.replace_attention(model, "qisa:1,classical:3")
    padded = torch.cat([torch.zeros(2, 2, dtype=torch.long), tokens], 1)
    mask = torch.cat([torch.zeros(2, 2, dtype=torch.long), torch.ones_like(tokens)], 1)
    plain = qa.attention_maps(model, tokens)
    found = qa.attention_maps(model, {"input_ids": padded, "attention_mask": mask})
    for each, other in zip(found, plain, strict=True):
        torch.testing.assert_close(each.weights[:, 2:, 2:], other.weights, atol=1e-5, rtol=1e-4)


def test_the_gpt_of_this_package_as_a_hugging_face_model(tokens: torch.Tensor):
    config = QattnConfig(vocab_size=20, block_size=8, n_layer=1, n_head=2, n_embd=16, heads="qisa:1,classical:1")
    model = QattnForCausalLM(config).eval()
    padded = torch.cat([torch.zeros(2, 2, dtype=torch.long), tokens], 1)
    mask = torch.cat([torch.zeros(2, 2, dtype=torch.long), torch.ones_like(tokens)], 1)
    plain = qa.attention_maps(model, tokens)
    found = qa.attention_maps(model, {"input_ids": padded, "attention_mask": mask})
    for each, other in zip(found, plain, strict=True):
        torch.testing.assert_close(each.weights[:, 2:, 2:], other.weights, atol=1e-5, rtol=1e-4)
        assert each.weights[:, :2].isnan().all()


def test_heads_that_are_not_called_are_an_error(tokens: torch.Tensor):
    model = AutoModelForCausalLM.from_config(CONFIGS["llama"]).eval()
    with pytest.raises(ConfigError, match="holds no attention whose weights can be read"):
        qa.attention_maps(model, tokens)
    qa.replace_attention(model, "qisa:1,classical:3")
    model.set_attn_implementation("sdpa")
    with pytest.raises(ConfigError, match="did not call its heads"):
        qa.attention_maps(model, tokens)
