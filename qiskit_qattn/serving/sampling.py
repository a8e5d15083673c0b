"""How the next tokens of several texts are drawn: each text with its own options and random numbers."""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qiskit_qattn.errors import ConfigError

_MOST_STOPS = 16


@dataclass(frozen=True)
class Sampling:
    """How a text goes on from its prompt.

    Attributes:
        max_tokens: How many tokens to generate at most.
        temperature: Divides the logits; 0 takes the likeliest token.
        top_p: Draw among the likeliest tokens only, the fewest whose probabilities add up to this.
        top_k: Draw among this many of the likeliest tokens only, before ``top_p``; None for all.
        seed: Seed of the random numbers; None takes a new one.
        stop: Strings before which the text ends.

    Raises:
        ConfigError: For a value out of its range.
    """

    max_tokens: int = 16
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int | None = None
    seed: int | None = None
    stop: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Check every option."""
        for name, fits, allowed in (
            ("max_tokens", self.max_tokens >= 0, "at least 0"),
            ("temperature", 0 <= self.temperature < math.inf, "finite and at least 0"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("top_k", self.top_k is None or self.top_k >= 1, "at least 1"),
            ("seed", self.seed is None or 0 <= self.seed < 2**63, "between 0 and 2^63 - 1"),
        ):
            if not fits:
                raise ConfigError(f"{name} must be {allowed}, got {getattr(self, name)!r}.")
        object.__setattr__(self, "stop", (self.stop,) if isinstance(self.stop, str) else tuple(self.stop))
        if len(self.stop) > _MOST_STOPS or not all(self.stop):
            raise ConfigError(f"stop must be at most {_MOST_STOPS} strings, none of them empty, got {len(self.stop)}.")

    def generator(self, device: torch.device) -> torch.Generator:
        """Return the generator of a text's random numbers."""
        return torch.Generator(device).manual_seed(secrets.randbits(63) if self.seed is None else self.seed)


def draw(logits: Tensor, options: Sequence[Sampling], generators: Sequence[torch.Generator]) -> list[int]:
    r"""Return a token for each text, :math:`\arg\max_i p_i / e_i` with :math:`e_i` drawn from Exp(1).

    That is ``torch.multinomial`` of one sample: a text gets the random numbers, and but for rounding the tokens, that
    :func:`~qiskit_qattn.nn.generation.stream` draws for it alone.

    Args:
        logits: Finite, shape ``(B, V)``.
        options: The options of each text.
        generators: The random numbers of each text, on the device of the logits.
    """
    greedy = [each.temperature == 0 for each in options]
    if all(greedy):
        return logits.argmax(-1).tolist()
    size, device = logits.shape[-1], logits.device
    temperature = torch.tensor([each.temperature or 1.0 for each in options], dtype=torch.double, device=device)
    scaled = (logits - logits.amax(-1, keepdim=True)).double() / temperature[:, None]  # no overflow, however cold
    cut = [i for i, each in enumerate(options) if each.temperature and (each.top_p < 1 or each.top_k is not None)]
    if cut:
        some = [options[i] for i in cut]
        scaled[cut] = _likeliest(scaled[cut], [each.top_k or size for each in some], [each.top_p for each in some])
    noise = torch.ones_like(scaled)
    for row, each, generator in zip(noise, options, generators, strict=True):
        if each.temperature:
            row.exponential_(generator=generator)
    chosen = (scaled.softmax(-1) / noise).argmax(-1)
    return torch.where(torch.tensor(greedy, device=device), logits.argmax(-1), chosen).tolist()


def _likeliest(logits: Tensor, top_k: Sequence[int], top_p: Sequence[float]) -> Tensor:
    """Return logits ``(B, V)`` with −∞ for tokens outside ``top_k`` and ``top_p``, as transformers masks them."""
    size, device = logits.shape[-1], logits.device
    ascending, order = logits.sort(-1)
    at = torch.tensor([[size - min(k, size)] for k in top_k], device=device)
    ascending = ascending.masked_fill(ascending < ascending.gather(-1, at), -torch.inf)
    left_out = ascending.softmax(-1).cumsum(-1) <= 1 - torch.tensor(top_p, dtype=logits.dtype, device=device)[:, None]
    left_out[:, -1] = False
    return logits.masked_fill((left_out | (ascending == -torch.inf)).gather(-1, order.argsort(-1)), -torch.inf)
