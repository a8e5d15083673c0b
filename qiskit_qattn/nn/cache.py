"""Keys and values of earlier tokens."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class KeyValueCache:
    """Keys and values of earlier tokens, one pair for each part of one layer's attention.

    Nothing is written in place: a copy of ``pairs`` is what a cache held at the time.
    """

    pairs: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def extend(self, part: str, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append new keys and values, each ``(B, nh, T, ·)``, and return all of them."""
        if part in self.pairs:
            past_k, past_v = self.pairs[part]
            k, v = torch.cat([past_k, k], -2), torch.cat([past_v, v], -2)
        self.pairs[part] = (k, v)
        return k, v
