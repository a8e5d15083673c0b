"""AdamW over three groups of weights, one schedule, and separate gradient clipping of circuits and layers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from qiskit_qattn.training.config import TrainConfig
from qiskit_qattn.untrusted import shown

_OF_THE_DEVICE = ("fused", "foreach")  # how AdamW computes, not what


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
    """Return AdamW over :func:`parameter_groups`; one kernel updates all weights where they are on a GPU."""
    groups = parameter_groups(model, circuit_parameters, config)
    fused = True if all(weight.is_cuda for weight in model.parameters()) else None
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), fused=fused)


def load_state(saved: dict[str, Any], optimizer: torch.optim.Optimizer) -> None:
    """Load a saved ``state_dict`` of this optimizer, which may have been on another device.

    Raises:
        ValueError: For other groups, settings, names, shapes or dtypes.
        KeyError: If a part is missing.
    """
    _check_state(saved, optimizer)
    own = [{name: group[name] for name in _OF_THE_DEVICE} for group in optimizer.param_groups]
    groups = [{**group, **here} for group, here in zip(saved["param_groups"], own, strict=True)]
    optimizer.load_state_dict({**saved, "param_groups": groups})


def _check_state(saved: dict[str, Any], optimizer: torch.optim.Optimizer) -> None:
    """Check that a saved ``state_dict`` is of this optimizer: torch finds out only in the next step, or never."""
    own = optimizer.state_dict()["param_groups"]
    if len(saved["param_groups"]) != len(own):
        raise ValueError(f"its optimizer has {len(saved['param_groups'])} groups, not {len(own)}")
    for group, found in zip(own, saved["param_groups"], strict=True):
        for key, value in group.items():
            if key in _OF_THE_DEVICE:
                continue
            given = found.get(key, value)  # a release of torch may have added the key
            if type(given) is not type(value) or (given != value and key != "lr"):
                raise ValueError(f"{key} of its optimizer's {group['name']} is {shown(given)}, not {shown(value)}")
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for index, moments in saved["state"].items():
        if type(index) is not int or not 0 <= index < len(weights):
            raise ValueError(f"its optimizer has a state of {shown(index)}, but only {len(weights)} weights")
        for name in ("exp_avg", "exp_avg_sq"):
            if moments[name].shape != weights[index].shape or moments[name].dtype != weights[index].dtype:
                raise ValueError(f"{name} of its optimizer's weight {index} has another shape or dtype")
        if moments["step"].numel() != 1 or not moments["step"].is_floating_point():
            raise ValueError(f"the step of its optimizer's weight {index} is no number")


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
