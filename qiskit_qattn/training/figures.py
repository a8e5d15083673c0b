"""The description of a run before it starts, and its figures once it has ended."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import Any

from qiskit_qattn.nn.config import GPTConfig
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.training import resources
from qiskit_qattn.training.config import TrainConfig
from qiskit_qattn.training.data import Corpus
from qiskit_qattn.training.state import TrainState
from qiskit_qattn.training.validation import Losses


def model_config(config: TrainConfig, vocab_size: int, heads: str | tuple[str, ...]) -> GPTConfig:
    """Return the model that a run's settings describe, with the given heads."""
    return GPTConfig(
        vocab_size=vocab_size,
        block_size=config.block_size,
        n_layer=config.n_layer,
        n_head=config.n_head,
        n_embd=config.n_embd,
        n_inner=config.n_inner or None,
        dropout=config.dropout,
        bias=config.bias,
        heads=list(heads) if isinstance(heads, tuple) else heads,
        num_qubits=config.num_qubits or None,
        reps=config.reps or None,
    )


def fingerprint(corpus: Corpus) -> str:
    """Return a hash of a corpus, by which a resumed run knows its text again."""
    digest = hashlib.sha256(corpus.tokenizer.characters.encode("utf-8", "surrogatepass"))
    for part in (corpus.train, corpus.val):
        digest.update(part.numpy().tobytes())
    return digest.hexdigest()


def run_figures(model: GPT, state: TrainState, train: Losses, val: Losses) -> dict[str, Any]:
    """Return what the report says about a trained model, as plain values."""
    return {
        "step": state.step,
        "heads": heads if isinstance(heads := model.config.heads, str) else list(heads),
        "train_loss": train.all_positions,
        "val_loss": val.all_positions,
        "val_loss_last_position": val.last_position,
        "parameters": dict(model.num_parameters()),
        "head_backends": [dict(item) for item in model.head_backends()],
        "tokens_per_second": state.tokens_per_second,
        "train_seconds": state.train_seconds,
        "wall_seconds": state.wall_seconds,
        "cpu_seconds": state.cpu_seconds,
        "peak_rss_mib": resources.peak_rss_mib(),
        "peak_gpu_mib": resources.peak_gpu_mib(),
        "profile": state.profile,
        "history": {"train": [asdict(item) for item in state.train], "val": [asdict(item) for item in state.val]},
    }
