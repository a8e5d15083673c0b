"""Does a model read its own future?

A language model is causal when its output at position s depends on tokens 0 … s only. :func:`leakage` measures how
far a model is from that; it knows nothing about how the model works.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from qiskit_qattn.errors import ConfigError


class Leakage(float):
    """The largest absolute change that an edit of a later token made to an earlier output: a number.

    Attributes:
        edited: The position of the token whose edit made that change; None if nothing changed.
        changed: The earlier position whose output changed most.
        edits: How many edits were tried.
    """

    edited: int | None
    changed: int | None
    edits: int

    def __new__(cls, value: float, *, edited: int | None = None, changed: int | None = None, edits: int = 0) -> Leakage:
        """Return ``value`` with where it was found."""
        self = super().__new__(cls, value)
        self.edited, self.changed, self.edits = edited, changed, edits
        return self

    def __getnewargs_ex__(self) -> tuple[tuple[float], dict[str, Any]]:
        """Support copying and pickling."""
        return (float(self),), {"edited": self.edited, "changed": self.changed, "edits": self.edits}


def leakage(
    model: Callable[[torch.Tensor], Any],
    vocab_size: int | None = None,
    block_size: int | None = None,
    *,
    edits: int = 4,
    seed: int = 0,
) -> Leakage:
    r"""Return max over t, s < t, x of :math:`|f(x)_s - f(x')_s|`, where x' is x with another token at t.

    Zero, up to rounding, for a causal model. Each position t = 1 … T - 1 is edited in several random sequences; x and
    x' pass through the model in batches of the same shape, so that rounding is the same too.

    Args:
        model: Any callable from token ids (B, T) to logits (B, T, …), or to a tuple, mapping or object (``.logits``)
            that holds them. A module is run in evaluation mode without gradients and left as it was.
        vocab_size: Number of tokens; by default ``model.config.vocab_size``.
        block_size: Length T; by default ``model.config.block_size``.
        edits: How many random sequences are edited at each position.
        seed: Seed of the sequences and the edits; global generators are not touched.

    Returns:
        The largest change as a float that also says where it was found; NaN if an output is NaN.

    Raises:
        ConfigError: If a size is missing or too small, or the output has no logits for every position.
    """
    vocabulary = _size(model, "vocab_size", vocab_size, least=2)
    length = _size(model, "block_size", block_size, least=1)
    if edits < 1:
        raise ConfigError(f"edits is {edits}, but must be at least 1.")
    generator = torch.Generator().manual_seed(seed)
    device = next(model.parameters(), torch.empty(0)).device if isinstance(model, nn.Module) else torch.device("cpu")
    x = torch.randint(vocabulary, (edits, length), generator=generator)  # (B, T)
    worst = Leakage(0.0, edits=edits * (length - 1))
    with _evaluating(model), torch.no_grad():
        before = _logits(model(x.to(device)), x)  # (B, T, ...)
        for t in range(1, length):
            edited = x.clone()  # (B, T)
            shift = torch.randint(1, vocabulary, (edits,), generator=generator)  # (B,)
            edited[:, t] = (x[:, t] + shift) % vocabulary
            after = _logits(model(edited.to(device)), x)  # (B, T, ...)
            change = (after[:, :t] - before[:, :t]).abs().transpose(0, 1).flatten(1).amax(1)  # (t,)
            value = float(change.max())
            if math.isnan(value) or value > worst:
                worst = Leakage(value, edited=t, changed=int(change.argmax()), edits=worst.edits)
            if math.isnan(value):
                break
    return worst


def _size(model: Any, name: str, given: int | None, *, least: int) -> int:
    """Return a size as given, or as the model's configuration has it."""
    size = given if given is not None else getattr(getattr(model, "config", None), name, None)
    if not isinstance(size, int):
        raise ConfigError(f"The model has no config.{name}; give {name} to leakage().")
    if size < least:
        raise ConfigError(f"{name} is {size}, but must be at least {least}.")
    return size


def _logits(output: Any, x: torch.Tensor) -> torch.Tensor:
    """Find the logits, a tensor of shape (B, T, ...), in what a model returned for the tokens ``x``."""
    if isinstance(output, Mapping):
        candidates = [output.get("logits")]
    elif isinstance(output, tuple | list):
        candidates = list(output)
    else:
        candidates = [getattr(output, "logits", output)]
    tensors = [item for item in candidates if isinstance(item, torch.Tensor)]
    for item in tensors:
        if item.dim() >= 3 and item.shape[:2] == x.shape:
            return item.detach().to("cpu", torch.float64)  # (B, T, ...)
    shapes = ", ".join(str(tuple(item.shape)) for item in tensors) or "no tensor"
    raise ConfigError(
        f"Logits of shape ({x.shape[0]}, {x.shape[1]}, vocabulary) were expected; the model gave {shapes}."
    )


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Put a module and its parts into evaluation mode for a while, and each back into its own mode."""
    if not isinstance(model, nn.Module):
        yield
        return
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
