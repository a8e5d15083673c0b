"""Qiskit GPT nano's table: losses, parameters and throughput of a small GPT with and without quantum heads."""

from __future__ import annotations

from typing import Any

from qiskit_qattn.evaluation.reproduction.claims import Options, Reproduction
from qiskit_qattn.evaluation.reproduction.runs import settings, shortened, trained, verdict
from qiskit_qattn.training.progress import Progress

PUBLISHED = {
    "baseline": {"train_loss": 3.3506, "parameters": 8769, "tokens_per_second": 11190.8},
    "model": {"train_loss": 3.3545, "parameters": 8821, "tokens_per_second": 28.5},
}
#: 200 steps follow from the published throughput and times; the rest is in the published code.
SETTINGS: dict[str, Any] = {
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


def run(options: Options, progress: Progress) -> Reproduction:
    """Train the model with ZZ feature maps in both heads, and its classical twin."""
    config = settings(options, "gpt-nano", "gpt-nano", **SETTINGS)
    found = trained(config, progress)
    quantum, classical = found["model"], found["baseline"]
    published = list(PUBLISHED.values())
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
            "Speed: the published code runs 16 circuits a head and forward pass, one by one. Ours evaluates those of"
            " all heads and tokens as one batch of matrix products, with gradients to the inputs too. Tokens/s depend"
            " on the machine and on what else it does; the slow-down is the ratio of two runs on the same one.",
            "What the circuit does: the published one gives a single number that is added to all attention weights"
            " after mask and softmax, so later tokens get weight and rows no longer sum to 1. Ours is causal and"
            " computes the values of each token, so the losses are those of another, honest model.",
            "Parameters: ours ties the output to the token embedding (65 × 16 fewer, without its bias), has biases in"
            " the queries, keys and values, and a linear map from the embedding to each circuit's angles.",
            "Losses: the published ones are means of 20 training batches after about 150 of 200 steps at seed 0, ours"
            " after the last step. After so few steps both models have learned little more than how often each"
            " character occurs; one seed of each shows nothing about the heads.",
        ],
        figures={"model": quantum, "baseline": classical, "slow_down": slower[1]},
        settings=config.to_dict(),
        shortened=shortened(options, "gpt-nano", **SETTINGS),
    )
