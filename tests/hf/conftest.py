"""Tiny models of Hugging Face, built from their configurations."""

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
)

VOCABULARY = 50


def gpt2() -> PreTrainedModel:
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY, n_positions=32, n_embd=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0
        )
    )


def llama() -> PreTrainedModel:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
        )
    )


def bert() -> PreTrainedModel:
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=48,
            max_position_embeddings=32,
        )
    )


def vit() -> PreTrainedModel:
    return ViTForImageClassification(
        ViTConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=48,
            image_size=8,
            patch_size=4,
            num_labels=3,
        )
    )


def t5() -> PreTrainedModel:
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=VOCABULARY, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0
        )
    )


BUILDERS = {"gpt2": gpt2, "llama": llama, "bert": bert, "vit": vit, "t5": t5}


def inputs_of(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Return a batch for a model, with labels."""
    generator = torch.Generator().manual_seed(5)
    kind = model.config.model_type
    if kind == "vit":
        return {
            "pixel_values": torch.randn(3, 3, 8, 8, generator=generator),
            "labels": torch.randint(3, (3,), generator=generator),
        }
    tokens = torch.randint(1, VOCABULARY, (3, 9), generator=generator)
    mask = torch.ones_like(tokens)
    mask[1, 6:] = 0
    labels = torch.randint(2, (3,), generator=generator) if kind == "bert" else tokens
    return {"input_ids": tokens, "attention_mask": mask, "labels": labels}


@pytest.fixture
def build():
    """Return a function that builds a model by name: the same weights each time, in evaluation mode."""

    def make(name: str) -> PreTrainedModel:
        torch.manual_seed(3)
        return BUILDERS[name]().eval()

    return make
