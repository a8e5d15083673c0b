"""Heads of a layer that are scored alike, and scores that are measured pair by pair."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from qiskit_qattn.nn.head_kind import Score
from qiskit_qattn.nn.heads import run_heads
from qiskit_qattn.nn.pairs import PairHead
from qiskit_qattn.simulation.derivatives import is_traced


class HeadGroup(NamedTuple):
    """Heads of a layer that are scored alike, with their queries, keys and values, each ``(B, nh, T, ·)``.

    Where circuits of pairs score them, ``pairs`` runs these, and queries and keys are what the circuits encode.
    """

    name: str
    score: Score
    q: Tensor
    k: Tensor
    v: Tensor
    pairs: PairHead | None = None


def measured(groups: Sequence[HeadGroup], seen: Tensor) -> list[HeadGroup]:
    """Return groups with the scores that circuits of pairs give, of all heads in one job per estimator.

    Args:
        groups: The heads of a layer.
        seen: Which keys each query sees, shape ``(B or 1, n_head or 1, S, T)``; other pairs are no circuits.
    """
    starts = accumulate((group.q.shape[1] for group in groups), initial=0)
    calls, pairs = {}, {}
    for group, start in zip(groups, starts, strict=False):
        if group.pairs is not None:
            own = seen if seen.shape[1] == 1 else seen[:, start : start + group.q.shape[1]]
            pairs[group.name] = Pairs(own, len(group.q))
            calls[group.name] = group.pairs, pairs[group.name].rows(group.q, group.k)
    scores, found = run_heads(calls, {}), []
    for group in groups:
        if group.name in scores:
            q, k = pairs[group.name].products(scores[group.name])
            group = group._replace(q=q, k=k, score="complex" if group.score == "complex" else "dot")
        found.append(group)
    return found


class Pairs:
    """Those pairs of a query and a key that some head sees, each a circuit.

    Args:
        seen: Which keys each query of each head sees, shape ``(B or 1, nh or 1, S, T)``.
        batch: B.
    """

    def __init__(self, seen: Tensor, batch: int) -> None:
        seen = seen.any(1).expand(batch, -1, -1)
        self.shape = seen.shape  # (B, S, T)
        self.at: tuple[Tensor, ...]
        if is_traced() or seen.is_meta:  # how many are seen is not known: all are compared, and masked later
            steps, total = self.shape[1:]
            n = torch.arange(seen.numel(), device=seen.device)
            self.at = n // (steps * total), n // total % steps, n % total
        else:
            self.at = seen.nonzero(as_tuple=True)

    def rows(self, q: Tensor, k: Tensor) -> Tensor:
        """Return queries ``(B, nh, S, D)`` and keys ``(B, nh, T, D)`` side by side, shape ``(nh, N, 2 * D)``."""
        batch, i, j = self.at
        return torch.cat([q.transpose(0, 1)[:, batch, i], k.transpose(0, 1)[:, batch, j]], -1)

    def products(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Return what attention takes for queries and keys so that their products are these scores.

        A query's vector is its scores, and the keys are unit vectors, as complex numbers where scores are complex.

        Args:
            scores: Shape ``(nh, N, 1)``, or real and imaginary parts, ``(nh, N, 2)``.
        """
        batch, i, j = self.at
        count, _, parts = scores.shape
        table = scores.new_zeros(count, *self.shape, parts)  # (nh, B, S, T, 1 or 2)
        table = table.index_put((torch.arange(count, device=table.device)[:, None], batch, i, j), scores)
        q = table.transpose(0, 1).movedim(-1, -2)  # (B, nh, S, 1 or 2, T)
        keys = torch.eye(self.shape[-1], dtype=q.dtype, device=q.device).expand(*q.shape[:2], -1, -1)
        if parts == 1:
            return q.squeeze(-2) * len(keys[0, 0]) ** 0.5, keys  # attention divides by this root
        return (q * q.new_tensor([[1.0], [-1.0]])).flatten(-2), F.pad(keys, (0, len(keys[0, 0])))  # ⟨q| is conjugate
