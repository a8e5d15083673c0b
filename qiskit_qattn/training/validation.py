"""Cross-entropy of a model on given batches: over all positions, and at the last one alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from qiskit_qattn.nn.inference import inference
from qiskit_qattn.training.config import TrainConfig
from qiskit_qattn.training.data import random_batch, sequential_batches

Batch = tuple[torch.Tensor, torch.Tensor]  # tokens and targets, each (B, T)
FINAL_TOKENS = 8192  # tokens per batch of the final validation, if that is more than a training batch


@dataclass(frozen=True)
class Losses:
    """Mean losses; cross-entropies in nats per token for a GPT.

    Attributes:
        all_positions: Over every position of every window, or all items of other data.
        last_position: Over the last position of every window, with the whole context and no future to leak from; None
            for other data than text.
    """

    all_positions: float
    last_position: float | None


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    device: torch.device | str = "cpu",
    *,
    autocast: AbstractContextManager[object] | None = None,
) -> Losses:
    """Return the losses of a copy of ``model`` for inference, over ``batches`` of tokens and targets, each (B, T)."""
    model = inference(model)
    total = last = 0.0
    windows = positions = 0
    with autocast or nullcontext():
        for x, y in batches:
            logits, _ = model(x.to(device))  # (B, T, V)
            losses = functional.cross_entropy(logits.float().transpose(1, 2), y.to(device), reduction="none")  # (B, T)
            total += losses.sum().item()
            last += losses[:, -1].sum().item()
            positions += losses.numel()
            windows += len(losses)
    return Losses(total / positions, last / windows)


def fixed_batches(data: torch.Tensor, config: TrainConfig) -> Iterator[Batch]:
    """Iterate over the random batches of ``data`` that every validation of a run uses."""
    generator = torch.Generator().manual_seed(config.seed + 1)
    for _ in range(config.eval_batches):
        yield random_batch(data, config.batch_size, config.model.block_size, generator)


def final_batches(data: torch.Tensor, config: TrainConfig) -> tuple[int, Iterator[Batch]]:
    """Return the number of batches of the final validation, and the batches: all windows of ``data`` in order."""
    size = max(config.batch_size, FINAL_TOKENS // config.model.block_size)
    if config.val_windows:
        data = data[: config.val_windows * config.model.block_size + 1]
    count = math.ceil((len(data) - 1) // config.model.block_size / size)
    return count, sequential_batches(data, size, config.model.block_size)
