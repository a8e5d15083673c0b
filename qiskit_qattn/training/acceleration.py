"""Faster training steps on any device: compilation, copies that overlap with computation, and waiting for a GPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qiskit_qattn.errors import ConfigError
from qiskit_qattn.untrusted import one_line

SLOW_STEPS = 3  # in the first a compiled model is compiled, in the next its CUDA graphs are recorded


def compile_model(model: nn.Module, device: torch.device) -> None:
    """Let ``torch.compile`` run a model's forward and backward passes, in place: its weights and keys stay as they are.

    On CUDA and ROCm devices in the mode ``reduce-overhead``, in which a pass is one CUDA graph, so that issuing calls
    takes no time; on others in the default mode. Copies of the model, such as the one that is validated, are plain.

    Args:
        model: The model that is called in a step.
        device: Where its weights are.

    Raises:
        ConfigError: If torch cannot compile there, before anything is trained.
    """
    try:
        torch.compile(_plus_one, dynamic=False)(torch.zeros(1, device=device))
    except RuntimeError as error:
        needed = "Triton, which torch's builds for GPUs bring" if device.type == "cuda" else "a C++ compiler"
        install = "" if device.type == "cuda" else " (g++ or clang++, or the one that CXX names)"
        raise ConfigError(
            f"torch.compile does not work on the device {device}; it needs {needed}{install}. Install it, or train"
            f" without --compile. torch says: {one_line(str(error))[:200]}"
        ) from error
    model.compile(dynamic=False, mode="reduce-overhead" if device.type == "cuda" else None)


def _plus_one(x: Tensor) -> Tensor:
    return x + 1


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor in the CPU's memory on ``device``; to a GPU it is copied while the program goes on.

    The copy starts from page-locked memory and waits for nothing, so that the next batch is drawn and copied while the
    GPU still computes the steps before.
    """
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has finished its queued work, so that a clock that is read next includes it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
