"""QISA's lower cross-entropy: in its code every position depends on later tokens."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from qiskit_qattn.evaluation.reproduction.runs import (
    Options,
    Reproduction,
    seconds,
    settings,
    shortened,
    trained,
    verdict,
)
from qiskit_qattn.nn.attention import CausalSelfAttention, Mix, causal_attention
from qiskit_qattn.nn.config import GPTConfig
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.nn.head_kind import Score
from qiskit_qattn.training.progress import Progress

PUBLISHED_GAIN = 13.0  # the classical model's cross-entropy over the quantum one's
SETTINGS: dict[str, Any] = {"n_layer": 2, "batch_size": 128, "max_steps": 2000, "eval_interval": 500}


class CorrectedAttention(CausalSelfAttention):
    r"""Linear q and k with the score of the paper, :math:`w = \mathrm{softmax}_j(\exp(-\lVert q_i - k_j \rVert^2))`."""

    def _attend(
        self,
        part: str,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        score: Score,
        real: Tensor | None = None,
        mix: Mix | None = None,
    ) -> Tensor:
        return super()._attend(part, q, k, v, "qisa", real, mix)


class PublishedAttention(CausalSelfAttention):
    r"""The same as QISA's code computes it: masked, normalised, and then transposed, :math:`\sum_j w_{ji} v_j`.

    Weights of row j are zero for later keys i > j; transposed, position i reads the values of all j ≥ i: its future,
    and nothing of its past. This is a model for tests, not a kind of head.
    """

    def _attend(
        self,
        part: str,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        score: Score,
        real: Tensor | None = None,
        mix: Mix | None = None,
    ) -> Tensor:
        identity = torch.eye(k.shape[-2], dtype=q.dtype, device=q.device).expand(*k.shape[:-1], -1)
        weights = causal_attention(q, k, identity, "qisa")  # (B, nh, T, T)
        return weights.mT @ v


class _OtherAttention(GPT):
    """A GPT with another attention; its weights and their initial values are those of the ordinary model."""

    attention: type[CausalSelfAttention]

    def __init__(self, config: GPTConfig) -> None:
        super().__init__(config)
        for block, counts in zip(self._blocks(), config.layers(), strict=True):
            attention = self.attention(config, counts)
            attention.load_state_dict(block.attn.state_dict())
            block.attn = attention


class CorrectedGPT(_OtherAttention):
    """QISA's model without the transposition."""

    attention = CorrectedAttention


class PublishedGPT(_OtherAttention):
    """QISA's model as in its code."""

    attention = PublishedAttention


def run(options: Options, progress: Progress) -> Reproduction:
    """Train QISA's model as published, without the transposition, with our causal head, and the classical one."""
    models: dict[str, tuple[str, str, type[GPT]]] = {
        "published": ("as published", "qisa:1", PublishedGPT),
        "corrected": ("not transposed", "qisa:1", CorrectedGPT),
        "qisa": ("our `qisa`", "qisa:1", GPT),
        "classical": ("classical", "classical:1", GPT),
    }
    runs = {
        name: (settings(options, name, "qisa", **SETTINGS, heads=heads), model_class)
        for name, (_, heads, model_class) in models.items()
    }
    progress.forecast(partial(seconds, list(runs.values())))
    figures = {name: trained(config, progress, model_class)["model"] for name, (config, model_class) in runs.items()}
    gains = {name: figures["classical"]["val_loss"] / found["val_loss"] for name, found in figures.items()}
    claimed = {"published": f"{PUBLISHED_GAIN:g} ×", "classical": "1"}
    rows = [
        [
            label,
            claimed.get(name, "–"),
            "1" if name == "classical" else f"{gains[name]:.2f} ×",
            f"{figures[name]['val_loss']:.3f}",
            f"{figures[name]['val_loss_last_position']:.3f}",
            verdict(figures[name]),
        ]
        for name, (label, _, _) in models.items()
    ]
    published, shared = figures["published"], runs["classical"][0].to_dict()
    return Reproduction(
        claim="qisa-leak",
        title="Quantum self-attention lowers the cross-entropy 13 times",
        source="QISA, arXiv 2603.03318, and its code",
        head=["Model", "Gain, published", "Gain, ours", "Validation loss", "Last position", "Certificate"],
        rows=rows,
        reasons=[
            "The gain is the cross-entropy of the classical model divided by that of the model in question.",
            "After the mask and the softmax the published code multiplies by the transposed weights, so position i sums"
            " the values of the positions j ≥ i: it reads the tokens that it has to predict.",
            "At the last position of a window there are no later tokens. There the published model's loss is"
            f" {published['val_loss_last_position']:.3f}, the classical one's"
            f" {figures['classical']['val_loss_last_position']:.3f}.",
            "The certificate finds the leak in the trained model from inputs and outputs alone: editing a token changes"
            f" earlier logits by up to {published['certificate']['edits']:.2g}.",
            f"Without the transposition the gain is {gains['corrected']:.2f} ×; with our head, which takes the softmax"
            f" of q·k, {gains['qisa']:.2f} ×. With one seed of each model, small differences between causal models"
            " are not significant.",
            "The size of the gain depends on how long the models train, on their size and on the text; the published"
            " model is deeper (6 layers).",
        ],
        figures=figures,
        settings={name: value for name, value in shared.items() if name != "heads"},  # these differ
        shortened=shortened(options, "qisa", **SETTINGS),
    )
