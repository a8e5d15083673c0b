"""Attention: scores, masks and mixing, and the causal self-attention of a GPT over heads of different kinds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qiskit_qattn.nn.config import GPTConfig
from qiskit_qattn.nn.head_groups import HeadGroup, measured
from qiskit_qattn.nn.head_kind import Score
from qiskit_qattn.nn.heads import run_heads
from qiskit_qattn.nn.kinds import head_kind
from qiskit_qattn.nn.mixed_heads import MixedHeads
from qiskit_qattn.nn.overlaps import complex_attention, overlaps
from qiskit_qattn.nn.sampling import sampled_mean
from qiskit_qattn.simulation.statevector import Fused

Mix = Callable[..., Tensor]  # weights, values and dropout=… to their weighted mean


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

    def extended(self, group: HeadGroup) -> HeadGroup:
        """Append the keys and values of heads, and return the heads with all of them."""
        k, v = self.extend(group.name, group.k, group.v)
        return group._replace(k=k, v=v)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    score: Score,
    mask: Tensor | None = None,
    *,
    causal: bool = False,
    dropout: float = 0.0,
    need_weights: bool = False,
    mix: Mix | None = None,
) -> tuple[Tensor, Tensor | None]:
    r"""Return :math:`\sum_j w_{ij} v_j`, where the weights of each row i sum to 1, and the weights where asked for.

    - ``dot``: :math:`\mathrm{softmax}_j(q_i \cdot k_j / \sqrt{h})`
    - ``gaussian``: :math:`\mathrm{softmax}_j(-\lVert q_i - k_j \rVert^2)`
    - ``qisa``: :math:`\mathrm{softmax}_j(\exp(-\lVert q_i - k_j \rVert^2))`
    - ``overlap``: :math:`\mathrm{softmax}_j(|\langle q_i | k_j \rangle|^2)`
    - ``complex``: :math:`w_{ij} \propto \langle q_i | k_j \rangle`, whose moduli sum to 1 and are the weights returned

    For the last two, queries, keys and, for the last one, values are of complex numbers, real parts before imaginary
    ones (:mod:`qiskit_qattn.nn.overlaps`).

    The mask acts before the softmax. A row that may see no key is 0, or NaN where weights are asked for, as in torch's
    ``MultiheadAttention``.

    Args:
        q: Queries, shape ``(B, nh, S, h)``.
        k: Keys, shape ``(B, nh, T, h)``.
        v: Values, shape ``(B, nh, T, hv)``.
        score: Which of these.
        mask: Which keys each query may see, or what is added to the softmax's argument; broadcasts with
            ``(B, nh, S, T)``.
        causal: Query i sees the first i + 1 keys; instead of a mask.
        dropout: Probability of dropping a weight.
        need_weights: Whether to return the weights, after dropout, shape ``(B, nh, S, T)``.
        mix: Takes weights and values to an estimate of the sum, as a :class:`~qiskit_qattn.nn.sampling.SampledMean`
            does; weights are then returned before dropout, and those of a row that may see no key are 0.

    Source: Vaswani et al. 2017, equation (1); Li et al., arXiv 2205.05625, equation (6); arXiv 2603.03318; Chen et al.,
    arXiv 2503.19002.
    """
    scale = q.shape[-1] ** -0.5
    if score == "gaussian":
        # −‖q − k‖² = 2 q·k − ‖k‖² − ‖q‖², and the softmax over j does not see ‖q‖²
        q = torch.cat([2 * q, torch.ones_like(q[..., :1])], -1)
        k = torch.cat([k, -(k * k).sum(-1, keepdim=True)], -1)
        scale = 1.0
    if score in ("dot", "gaussian") and not need_weights and mix is None:
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal, scale=scale)
        return y, None
    if causal:
        mask = causal_mask(q.shape[-2], k.shape[-2], q.device)
    if score == "complex":
        return complex_attention(q, k, v, mask, dropout, need_weights=need_weights)
    if score == "qisa":
        squares = (q * q).sum(-1, keepdim=True) + (k * k).sum(-1)[..., None, :]
        logits = torch.exp(-(squares - 2 * q @ k.transpose(-1, -2)).clamp_min(0))  # (B, nh, S, T)
    elif score == "overlap":
        logits = overlaps(q, k).square().sum(-3)
    else:
        logits = (q * scale) @ k.transpose(-1, -2)
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask
    if (need_weights and mix is None) or causal or mask is None:  # a causal row sees at least one key
        weights = logits.softmax(-1)
    else:
        empty = (logits == -torch.inf).all(-1, keepdim=True)
        weights = logits.masked_fill(empty, 0.0).softmax(-1).masked_fill(empty, 0.0)
    if mix is not None:
        return mix(weights, v, dropout=dropout), weights
    if dropout:
        weights = F.dropout(weights, dropout)
    return weights @ v, weights


def causal_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    score: Score,
    dropout: float = 0.0,
    real: Tensor | None = None,
    mix: Mix | None = None,
) -> Tensor:
    r"""Return :func:`attend`'s :math:`\sum_{j \le i} w_{ij} v_j`.

    Args:
        q: Queries of the last S of T tokens, shape ``(B, nh, S, h)``.
        k: Keys of all T tokens, shape ``(B, nh, T, h)``.
        v: Values of all T tokens, shape ``(B, nh, T, hv)``.
        score: As for :func:`attend`.
        dropout: Probability of dropping a weight.
        real: Which of the T tokens are no padding, shape ``(B, T)``; None for all.
        mix: As for :func:`attend`.
    """
    steps, total = q.shape[-2], k.shape[-2]
    if real is not None:
        return attend(q, k, v, score, _seen(steps, total, q.device, real), dropout=dropout, mix=mix)[0]
    if steps == total:  # a branch, since the comparison itself is no bool where torch.compile lets lengths vary
        return attend(q, k, v, score, causal=True, dropout=dropout, mix=mix)[0]
    mask = causal_mask(steps, total, q.device, total - steps) if steps > 1 else None  # one sees all others
    return attend(q, k, v, score, mask, dropout=dropout, mix=mix)[0]


def causal_mask(steps: int, total: int, device: torch.device, before: int = 0) -> Tensor:
    """Return which of ``total`` keys each of ``steps`` queries may see, where ``before`` keys come before the first."""
    return torch.ones(steps, total, dtype=torch.bool, device=device).tril(before)


def _seen(steps: int, total: int, device: torch.device, real: Tensor | None) -> Tensor:
    """Return which of ``total`` keys each of the last ``steps`` tokens may see, ``(B or 1, 1, S, T)``."""
    mask = causal_mask(steps, total, device, total - steps)
    return mask[None, None] if real is None else mask & real[:, None, None, :]


class CausalSelfAttention(MixedHeads, nn.Module):
    """Multi-head attention over heads of the kinds in ``counts``.

    One linear map projects tokens to what all heads need: queries and keys of the heads where those are linear, then
    each kind's features. Kinds whose q, k and v are circuits of their own follow.

    Args:
        config: The model's shape.
        counts: Number of heads of each kind in this layer.

    Attributes:
        sizes: How many numbers of the projection are queries and keys, and how many are each kind's features.
    """

    def __init__(self, config: GPTConfig, counts: dict[str, int]) -> None:
        super().__init__()
        self.n_embd, self.head_size, self.dropout = config.n_embd, config.head_size, config.dropout
        shapes = self._build_heads({name: config.head_shape(head_kind(name), counts[name]) for name in counts})
        self.token_widths = {name: self.kinds[name].inputs(shape) for name, shape in shapes.items()}
        features = [shape.count * self.kinds[name].features(shape) for name, shape in shapes.items()]
        self.sizes = [2 * self.num_linear * self.head_size, *features]
        self.c_attn = nn.Linear(config.n_embd, sum(self.sizes), bias=config.bias) if sum(self.sizes) else None
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.sampling = sampled_mean(config.sampling, self.kinds.values())

    def extra_repr(self) -> str:
        """Return the heads and their size, for ``print(model)``."""
        heads = ",".join(f"{name}:{count}" for name, count in self.counts.items())
        return f"heads={heads!r}, head_size={self.head_size}"

    def forward(
        self,
        x: Tensor,
        cache: KeyValueCache | None = None,
        unitaries: Mapping[str, Fused] | None = None,
        real: Tensor | None = None,
        rows: Tensor | None = None,
    ) -> Tensor:
        """Return attention's output, shape ``(B, T, d)``.

        Args:
            x: Tokens, shape ``(B, T, d)``.
            cache: Keys and values of the tokens that come before, to which those of ``x`` are added.
            unitaries: The unitaries of the heads' circuits by kind, if they were formed already.
            real: Which tokens are not padding, including those in the cache, shape ``(B, S)``; None for all.
            rows: A number of each token, by which sampled attention draws, shape ``(B or 1, T)``; None for its place.
        """
        queries_and_keys, *rest = self._project(x)
        features = dict(zip(self.maps, rest, strict=True))
        values = self._head_values(x, features, unitaries or {})
        q, k = queries_and_keys.unflatten(-1, (2, self.num_linear, self.head_size)).permute(2, 0, 3, 1, 4)
        groups = list(self._head_groups(q, k, values))
        if cache is not None:
            groups = [cache.extended(group) for group in groups]
        if any(group.pairs is not None for group in groups):
            groups = measured(groups, _seen(x.shape[1], groups[0].v.shape[-2], x.device, real))
        outputs, first = [], 0
        for group in groups:
            mix = None if self.sampling is None else partial(self.sampling, rows=rows, first_head=first)
            outputs.append(self._attend(group.name, group.q, group.k, group.v, group.score, real, mix))
            first += group.q.shape[1]
        outputs += [self._mix_positions(name, x, features[name], cache, real) for name in self.mixer_kinds]
        # each (B, nh, T, h)
        y = torch.cat(outputs, 1) if len(outputs) > 1 else outputs[0]  # (B, n_head, T, h)
        return F.dropout(self.c_proj(y.transpose(1, 2).reshape(x.shape)), self.dropout, self.training)

    def _project(self, x: Tensor) -> Sequence[Tensor]:
        """Return queries and keys, then each kind's features, all ``(B, T, ·)``."""
        if self.c_attn is None:
            return [x[..., :0]] * len(self.sizes)
        return self.c_attn(x).split(self.sizes, -1)

    def _head_values(
        self, x: Tensor, features: Mapping[str, Tensor], unitaries: Mapping[str, Fused]
    ) -> dict[str, Tensor]:
        """Return what each kind's map makes of its features: ``(nh, B, T, h)``, or q, k, v ``(3, nh, B, T, h)``."""
        kinds = self.value_kinds + self.circuit_kinds
        calls = {name: (self.maps[name], self._rows(name, x, features[name])) for name in kinds}
        return {name: found.unflatten(-2, x.shape[:2]) for name, found in run_heads(calls, unitaries).items()}

    def _rows(self, name: str, x: Tensor, features: Tensor) -> Tensor:
        """Return what a kind's map takes, a row for each token: ``(nh, B * T, F)``, or ``(3, nh, B * T, F)``."""
        return self.kinds[name].rows(features, x, self.counts[name], self.token_widths[name])

    def _mix_positions(
        self, name: str, x: Tensor, features: Tensor, cache: KeyValueCache | None, real: Tensor | None
    ) -> Tensor:
        """Return the outputs of a kind that mixes positions, ``(B, nh, T, h)``; the cache keeps features as keys."""
        rows = self._rows(name, x, features).unflatten(1, x.shape[:2])  # (nh or 1, B, T, F)
        rows = rows.transpose(0, 1).clone(memory_format=torch.contiguous_format)
        if cache is not None:
            rows, _ = cache.extend(name, rows, rows[..., :0])
        return self.maps[name](rows, x.shape[1], real)

    def _attend(
        self,
        part: str,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        score: Score,
        real: Tensor | None = None,
        mix: Mix | None = None,
    ) -> Tensor:
        return causal_attention(q, k, v, score, self.dropout if self.training else 0.0, real, mix)
