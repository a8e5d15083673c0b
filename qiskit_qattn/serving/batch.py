"""Sequences of different lengths that share a pass: their cached keys and values, padded on the left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from qiskit_qattn.serving.served_model import ServedModel


class Batch:
    """The sequences that are generated now.

    All rows have the length of the longest: the others are padded on the left, where attention does not look. Each pass
    adds one token to every row; rows leave and join between passes.

    Args:
        model: Computes the passes.
    """

    def __init__(self, model: ServedModel) -> None:
        self.model = model
        self.lengths: list[int] = []
        self._cache: Any = None

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def width(self) -> int:
        """Length of the longest row."""
        return max(self.lengths, default=0)

    def step(self, tokens: Sequence[int]) -> Tensor:
        """Add a token to each row; return the logits after it, shape ``(B, V)``."""
        at = torch.tensor(self.lengths, device=self.model.device)[:, None]  # (B, 1)
        return self._pass(torch.tensor(tokens, device=self.model.device)[:, None], at)

    def begin(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        """Add rows with these tokens after the others, in one pass of their own; return their logits ``(B, V)``."""
        new = Batch(self.model)
        new._cache, new.lengths = self.model.new_cache(), [0] * len(sequences)
        width = max(map(len, sequences))
        tokens = [[0] * (width - len(each)) + list(each) for each in sequences]
        at = [[max(0, i - width + len(each)) for i in range(width)] for each in sequences]
        lengths = [len(each) for each in sequences]
        device = self.model.device
        logits = new._pass(torch.tensor(tokens, device=device), torch.tensor(at, device=device), lengths)
        self._join(new)
        return logits

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these rows only, in this order, and no more columns than they need."""
        if list(rows) == list(range(len(self))):
            return
        self.lengths, before = [self.lengths[row] for row in rows], self.width
        if not rows:
            self._cache = None
            return
        first, at = before - self.width, torch.tensor(rows, device=self.model.device)
        self._cache = self.model.combine([self._cache], lambda parts: parts[0][at, ..., first:, :])

    def _join(self, new: Batch) -> None:
        """Add the rows of another batch after these."""
        width = max(self.width, new.width)
        if self.lengths:
            caches = [self._cache, new._cache]
            self._cache = self.model.combine(caches, lambda parts: torch.cat([_padded(part, width) for part in parts]))
        else:
            self._cache = new._cache
        self.lengths = self.lengths + new.lengths

    def _pass(self, tokens: Tensor, positions: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        """Run tokens ``(B, S)``, after which rows have these lengths; None for one more than before."""
        after = [length + 1 for length in self.lengths] if lengths is None else list(lengths)
        width, real = max(after), None
        if min(after) < width:
            first = torch.tensor([width - length for length in after], device=tokens.device)
            real = torch.arange(width, device=tokens.device) >= first[:, None]  # (B, T + S)
        with torch.no_grad():
            logits = self.model.logits(tokens, positions, real, self._cache)
        self.lengths = after
        return logits


def _padded(part: Tensor, width: int) -> Tensor:
    """Return keys or values ``(B, nh, T, ·)`` with zeros before them, ``(B, nh, width, ·)``."""
    missing = width - part.shape[-2]
    return F.pad(part, (0, 0, missing, 0)) if missing else part
