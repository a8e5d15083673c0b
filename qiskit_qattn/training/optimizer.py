"""AdamW over three groups of weights, one schedule, and separate gradient clipping of circuits and layers."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from qiskit_qattn.training.config import TrainConfig


def parameter_groups(
    model: nn.Module, circuit_parameters: Iterable[nn.Parameter], config: TrainConfig
) -> list[dict[str, object]]:
    """Split the trainable weights into decayed matrices, undecayed vectors and circuit weights.

    Circuit weights are angles: they have a learning rate of their own, and no decay, which would pull them to the
    identity circuit. Each group has its peak rate as ``peak_lr``.
    """
    circuit = [p for p in circuit_parameters if p.requires_grad]
    angles = {id(p) for p in circuit}
    classical = [p for p in model.parameters() if p.requires_grad and id(p) not in angles]
    groups: list[tuple[str, list[nn.Parameter], float, float]] = [
        ("matrices", [p for p in classical if p.dim() >= 2], config.learning_rate, config.weight_decay),
        ("vectors", [p for p in classical if p.dim() < 2], config.learning_rate, 0.0),
        ("circuits", circuit, config.circuit_lr, 0.0),
    ]
    return [
        {"name": name, "params": params, "lr": rate, "peak_lr": rate, "weight_decay": decay}
        for name, params, rate, decay in groups
        if params
    ]


def make_optimizer(
    model: nn.Module, circuit_parameters: Iterable[nn.Parameter], config: TrainConfig
) -> torch.optim.AdamW:
    """Return AdamW over :func:`parameter_groups`."""
    groups = parameter_groups(model, circuit_parameters, config)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(config.beta1, config.beta2))


def lr_factor(step: int, config: TrainConfig) -> float:
    """Return the learning rate of ``step`` as a fraction of its peak.

    With W warm-up steps, S steps in total and m = min_lr / learning_rate: (step + 1) / (W + 1) while step < W, then
    m + (1 - m) (1 + cos(pi (step - W) / (S - W))) / 2.
    """
    if step < config.warmup_steps:
        return (step + 1) / (config.warmup_steps + 1)
    floor = config.min_lr / config.learning_rate if config.learning_rate else 1.0
    done = (step - config.warmup_steps) / max(1, config.max_steps - config.warmup_steps)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def set_learning_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's learning rate to ``factor`` times its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor


def clip_gradients(optimizer: torch.optim.Optimizer, config: TrainConfig) -> None:
    """Clip the gradient norm of the circuit weights and of all others, each by its own limit (0: no limit)."""
    groups = {group["name"]: group["params"] for group in optimizer.param_groups}
    circuits = groups.pop("circuits", [])
    if config.grad_clip:
        nn.utils.clip_grad_norm_([p for params in groups.values() for p in params], config.grad_clip)
    if config.circuit_grad_clip:
        nn.utils.clip_grad_norm_(circuits, config.circuit_grad_clip)
