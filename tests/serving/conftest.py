"""Small models with sharp logits, as a server serves them."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import PreTrainedTokenizerFast

from qiskit_qattn import GPT, GPTConfig
from qiskit_qattn.training.tokenizer import CharTokenizer

LETTERS = CharTokenizer("abcdefghijklmnopqrs .")
TEXT = "so sagt der König: für den Fuß, 😀 und 👩‍🚀, naïve café 日本語 " * 3


def sharpened(model: nn.Module) -> nn.Module:
    """Return a model whose next tokens are not all as likely as each other."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
    return model.eval()


@pytest.fixture
def make_gpt():
    """Return a function that makes a GPT with the same weights each time."""

    def make(heads: str = "qisa:1,zz:1,quadratic:1,classical:1", **options) -> GPT:
        torch.manual_seed(1)
        shape = {"block_size": 12, "n_layer": 2, "n_head": 4, "n_embd": 32, "num_qubits": 3} | options
        return sharpened(GPT(GPTConfig(vocab_size=LETTERS.vocab_size, heads=heads, **shape)))

    return make


@pytest.fixture(scope="session")
def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of bytes and some pairs of them, of which a character takes one to several."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, special_tokens=["<end>"])
    tokenizer.train_from_iterator([TEXT], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")
