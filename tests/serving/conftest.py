"""Small models with sharp logits, as a server serves them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import PreTrainedTokenizerFast

from qiskit_qattn import GPT, GPTConfig
from qiskit_qattn.serving.engine import Engine
from qiskit_qattn.serving.keys import Keys
from qiskit_qattn.serving.models import load
from qiskit_qattn.serving.served_model import ServedModel
from qiskit_qattn.serving.settings import Settings
from qiskit_qattn.training.tokenizer import CharTokenizer

from .servers import Serve, Served, serving

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


@pytest.fixture(scope="session")
def verse(finished_run: Path) -> ServedModel:
    """Return a trained model of letters with a quantum and a classical head and a context of 8."""
    return load(str(finished_run))


@pytest.fixture
def serve(verse: ServedModel) -> Iterator[Serve]:
    """Return a function that starts a server of the model ``verse``, by options of the engine and settings by name."""
    with ExitStack() as stack:

        def start(*, keys: Keys | None = None, engine: dict[str, int] | None = None, **settings: Any) -> Served:
            engines = {"verse": Engine(verse, **engine or {})}
            return stack.enter_context(serving(engines, Settings(port=0, log_level="error", **settings), keys))

        yield start
