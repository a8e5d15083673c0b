"""nanoGPT's validation loss on tinyshakespeare with its CPU settings, all classical and with quantum heads."""

from __future__ import annotations

from qiskit_qattn.evaluation.reproduction.claims import Options, Reproduction
from qiskit_qattn.evaluation.reproduction.runs import settings, shortened, trained, verdict
from qiskit_qattn.training.progress import Progress

PUBLISHED_LOSS = 1.88


def run(options: Options, progress: Progress) -> Reproduction:
    """Train nanoGPT's small model with two of four heads quantum, and its classical twin."""
    config = settings(options, "nano", "nano", baseline=True, eval_interval=500)
    found = trained(config, progress)
    labels = {"baseline": f"`{config.baseline_heads}`", "model": f"`{config.heads}`"}
    rows = [
        [
            label,
            f"{PUBLISHED_LOSS:.2f}" if name == "baseline" else "–",
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
            f"With two of four heads quantum the loss differs by {difference:+.3f}, with one seed of each. How much"
            " seeds alone change it was not measured; `qattn compare` measures it.",
        ],
        figures=found,
        settings=config.to_dict(),
        shortened=shortened(options, "nano"),
    )
