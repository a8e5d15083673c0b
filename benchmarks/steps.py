"""What is timed: a pass forward and backward, a training step, an inference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from qiskit_qattn import GPT
from qiskit_qattn.training.config import TrainConfig
from qiskit_qattn.training.optimizer import clip_gradients, make_optimizer

VOCAB_SIZE = 65


def forward_backward(module: nn.Module, x: Tensor) -> Callable[[], None]:
    """Return a pass forward and backward to the inputs and all weights, from a fixed gradient at the output."""
    x = x.detach().requires_grad_()
    leaves = [x, *module.parameters()]
    with torch.no_grad():
        slope = torch.randn_like(module(x))

    def call() -> None:
        for leaf in leaves:
            leaf.grad = None
        module(x).backward(slope)

    return call


def inference(module: nn.Module, x: Tensor) -> Callable[[], None]:
    """Return a forward pass in evaluation mode."""
    module.eval()

    @torch.no_grad()
    def call() -> None:
        module(x)

    return call


def make_model(config: TrainConfig, heads: str | tuple[str, ...]) -> GPT:
    """Return the model of a run's settings, from a fixed seed."""
    torch.manual_seed(0)
    return GPT(replace(config.replace(heads=heads).model, vocab_size=VOCAB_SIZE))


def random_tokens(config: TrainConfig) -> tuple[Tensor, Tensor]:
    """Return a batch of inputs and targets, each ``(B, T)``."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(VOCAB_SIZE, (config.batch_size, config.model.block_size + 1), generator=generator)
    return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()


def training_step(model: GPT, config: TrainConfig) -> Callable[[], None]:
    """Return forward, backward, clipping and AdamW's step, as in a training run."""
    model.train()
    optimizer = make_optimizer(model, model.circuit_parameters(), config)
    x, y = random_tokens(config)

    def call() -> None:
        _, loss = model(x, y)
        loss.backward()
        clip_gradients(optimizer, config)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return call
