"""Losses of small GPTs: Qiskit GPT nano's table, and nanoGPT's validation loss on tinyshakespeare with CPU settings."""

from __future__ import annotations

from functools import partial
from typing import Any

from qiskit_qattn.evaluation.reproduction.runs import (
    Options,
    Reproduction,
    seconds,
    settings,
    shortened,
    trained,
    verdict,
)
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.training.progress import Progress

GPT_NANO = {
    "baseline": {"train_loss": 3.3506, "parameters": 8769, "tokens_per_second": 11190.8},
    "model": {"train_loss": 3.3545, "parameters": 8821, "tokens_per_second": 28.5},
}
#: The 200 steps follow from the published throughput and times; the other settings are in the published code.
GPT_NANO_SETTINGS: dict[str, Any] = {
    "max_steps": 200,
    "learning_rate": 1e-3,
    "min_lr": 1e-3,
    "circuit_lr": 1e-3,
    "warmup_steps": 0,
    "weight_decay": 0.01,
    "beta2": 0.999,
    "grad_clip": 0.0,
    "circuit_grad_clip": 0.0,
    "dropout": 0.1,
    "bias": True,
    "eval_interval": 100,
    "eval_batches": 20,
    "baseline": True,
}
NANOGPT_LOSS = 1.88  # validation


def gpt_nano(options: Options, progress: Progress) -> Reproduction:
    """Train the model with ZZ feature maps in both heads, and its all-classical baseline."""
    config = settings(options, "gpt-nano", "gpt-nano", **GPT_NANO_SETTINGS)
    progress.forecast(partial(seconds, [(config, GPT)]))
    found = trained(config, progress)
    quantum, classical = found["model"], found["baseline"]
    published = list(GPT_NANO.values())
    ours = [classical, quantum]
    slower = [(p[0]["tokens_per_second"] / p[1]["tokens_per_second"]) for p in (published, ours)]
    rows = [
        ["Training loss", *(f"{p['train_loss']:.4f}" for p in (*published, *ours))],
        ["Validation loss", "–", "–", *(f"{p['val_loss']:.4f}" for p in ours)],
        ["Validation loss, last position", "–", "–", *(f"{p['val_loss_last_position']:.4f}" for p in ours)],
        ["Parameters", *(f"{p['parameters']:,}" for p in published), *(f"{p['parameters']['total']:,}" for p in ours)],
        ["Training tokens/s", *(f"{p['tokens_per_second']:,.1f}" for p in (*published, *ours))],
        ["Slow-down", "1", f"{slower[0]:.0f} ×", "1", f"{slower[1]:.2f} ×"],
        ["Certificate", "–", "reads its future", *(verdict(p) for p in ours)],
    ]
    return Reproduction(
        claim="gpt-nano",
        title="A GPT with Qiskit circuits in its attention trains like the classical one, 393 times slower",
        source="Enan456/qiskit_gpt_nano on GitHub, README",
        head=["", "Published, classical", "Published, quantum", "Ours, classical", "Ours, quantum"],
        rows=rows,
        reasons=[
            "Speed: the published code runs 16 circuits per head and forward pass, one by one. Ours evaluates those of"
            " all heads and tokens as one batch of matrix products, including gradients with respect to the inputs."
            " Tokens/s depend on the machine and its load; the slow-down is the ratio of two runs on the same machine.",
            "Role of the circuit: the published one computes a single number that is added to all attention weights"
            " after mask and softmax, so later tokens get weight and rows no longer sum to 1. Ours is causal and"
            " computes the values of each token, so the losses are those of a different model.",
            "Parameters: ours ties the output to the token embedding (65 × 16 fewer, without its bias), has biases in"
            " the queries, keys and values, and has a linear map from the embedding to each circuit's angles.",
            "Losses: the published ones are means of 20 training batches after about 150 of 200 steps at seed 0, ours"
            " after the last step. After so few steps both models have learned little more than the frequencies of"
            " characters; one seed of each shows nothing about the heads.",
        ],
        figures={"model": quantum, "baseline": classical, "slow_down": slower[1]},
        settings=config.to_dict(),
        shortened=shortened(options, "gpt-nano", **GPT_NANO_SETTINGS),
    )


def nanogpt(options: Options, progress: Progress) -> Reproduction:
    """Train nanoGPT's small model with two of four heads quantum, and its all-classical baseline."""
    config = settings(options, "nano", "nano", baseline=True, eval_interval=500)
    progress.forecast(partial(seconds, [(config, GPT)]))
    found = trained(config, progress)
    labels = {"baseline": f"`{config.baseline_heads}`", "model": f"`{config.model.heads}`"}
    rows = [
        [
            label,
            f"{NANOGPT_LOSS:.2f}" if name == "baseline" else "–",
            f"{found[name]['val_loss']:.3f}",
            f"{found[name]['val_loss_last_position']:.3f}",
            f"{found[name]['parameters']['total']:,}",
            f"{found[name]['tokens_per_second']:,.0f}",
            verdict(found[name]),
        ]
        for name, label in labels.items()
    ]
    difference = found["model"]["val_loss"] - found["baseline"]["val_loss"]
    return Reproduction(
        claim="nanogpt",
        title="A small GPT reaches a validation loss of 1.88 on tinyshakespeare on a CPU",
        source="karpathy/nanoGPT on GitHub, README",
        head=["Heads", "Published", "Validation loss", "At the last position", "Parameters", "Tokens/s", "Certificate"],
        rows=rows,
        reasons=[
            "The published figure is a mean over 20 random batches of validation text, ours over the whole validation"
            " split in non-overlapping windows; the seeds and the order of batches differ too.",
            f"With two of four heads quantum the loss differs by {difference:+.3f}, with one seed of each. The"
            " variation between seeds was not measured; `qattn compare` measures it.",
        ],
        figures=found,
        settings=config.to_dict(),
        shortened=shortened(options, "nano"),
    )
