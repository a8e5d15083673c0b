"""A training step of torch's own encoder: width 256, 4 layers, 8 heads, sequences of 128 tokens, batch 16."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from rows import Row, at_most, compared
from timing import Effort, interleave
from torch import nn

import qiskit_qattn as qa

WIDTH, LAYERS, HEADS, STEPS, BATCH = 256, 4, 8, 128, 16
_TORCHS = "torch's attention"
_GOALS = {"qisa:4,classical:4": at_most(1.25), "classical:8": None}


def encoder(heads: str) -> nn.TransformerEncoder:
    """Return an encoder, from a fixed seed."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, dropout=0.0, batch_first=True)
    model = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
    if heads != _TORCHS:
        qa.replace_attention(model, heads)
    return model


def training_step(heads: str, x: torch.Tensor, target: torch.Tensor) -> Callable[[], None]:
    """Return forward, backward and AdamW's step."""
    model = encoder(heads)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def call() -> None:
        nn.functional.mse_loss(model(x), target).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return call


def measure(effort: Effort) -> Iterator[Row]:
    generator = torch.Generator().manual_seed(1)
    x, target = torch.randn(2, BATCH, STEPS, WIDTH, generator=generator)
    timings = interleave({heads: training_step(heads, x, target) for heads in (_TORCHS, *_GOALS)}, effort)
    for heads, goal in _GOALS.items():
        yield compared(f"encoder, training step, {heads}", timings, heads, _TORCHS, goal)
