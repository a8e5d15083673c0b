"""Presets: named settings to start a run from.

``nano`` is nanoGPT's CPU configuration for Shakespeare with half of the heads quantum, ``nano-gpu`` the one for GPUs.
``nano`` equals the defaults of :class:`~qiskit_qattn.training.config.TrainConfig`; the others list how they differ.
"""

from __future__ import annotations

from typing import Any, Final

#: Each preset as the settings in which it differs from ``nano``.
PRESETS: Final[dict[str, dict[str, Any]]] = {
    "nano": {},
    # nanoGPT's GPU configuration for Shakespeare (config/train_shakespeare_char.py) with half of the heads quantum.
    "nano-gpu": {
        "n_layer": 6,
        "n_head": 6,
        "n_embd": 384,
        "block_size": 256,
        "dropout": 0.2,
        "heads": "qisa:3,classical:3",
        "num_qubits": 6,
        "batch_size": 64,
        "max_steps": 5000,
        "eval_interval": 250,
        "eval_batches": 200,
    },
    # The model of QISA (arXiv 2603.03318): one quantum head per block, small context, large batches.
    "qisa": {
        "n_layer": 6,
        "n_head": 1,
        "n_embd": 16,
        "block_size": 16,
        "heads": "qisa:1",
        "num_qubits": 4,
        "batch_size": 1024,
        "learning_rate": 3e-3,
        "min_lr": 3e-4,
        "circuit_lr": 1e-2,
        "eval_batches": 4,
    },
    # The size of the published "Qiskit GPT nano", with its ZZ feature map, and with causal attention.
    "gpt-nano": {
        "n_layer": 2,
        "n_head": 2,
        "n_embd": 16,
        "block_size": 8,
        "heads": "zz:2",
        "num_qubits": 4,
        "batch_size": 4,
        "eval_batches": 100,
        "threads": 1,
    },
    # Every part of a run in seconds, to see that an installation works.
    "smoke": {
        "n_layer": 2,
        "n_head": 2,
        "n_embd": 16,
        "block_size": 16,
        "heads": "qisa:1,classical:1",
        "num_qubits": 4,
        "batch_size": 8,
        "max_steps": 60,
        "learning_rate": 1e-2,
        "min_lr": 1e-3,
        "circuit_lr": 1e-2,
        "warmup_steps": 10,
        "log_interval": 2,
        "eval_interval": 20,
        "eval_batches": 4,
        "checkpoint_interval": 20,
        "val_windows": 512,
        "sample_tokens": 120,
        "threads": 1,
    },
}
