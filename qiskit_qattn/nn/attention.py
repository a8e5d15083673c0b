"""Causal self-attention whose heads may be of different kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qiskit_qattn.nn.config import GPTConfig
from qiskit_qattn.nn.heads import run_heads
from qiskit_qattn.nn.kinds import Score, head_kind
from qiskit_qattn.simulation.statevector import Fused


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


def causal_attention(q: Tensor, k: Tensor, v: Tensor, score: Score, dropout: float = 0.0) -> Tensor:
    r"""Return :math:`\sum_{j \le i} w_{ij} v_j`, where the weights of each row i sum to 1.

    - ``dot``: :math:`\mathrm{softmax}_j(q_i \cdot k_j / \sqrt{h})`
    - ``gaussian``: :math:`\mathrm{softmax}_j(-\lVert q_i - k_j \rVert^2)`
    - ``qisa``: :math:`\mathrm{softmax}_j(\exp(-\lVert q_i - k_j \rVert^2))`

    Later keys are masked before the softmax.

    Args:
        q: Queries of the last S of T tokens, shape ``(B, nh, S, h)``.
        k: Keys of all T tokens, shape ``(B, nh, T, h)``.
        v: Values of all T tokens, shape ``(B, nh, T, hv)``.
        score: Which of the three.
        dropout: Probability of dropping a weight.

    Source: Vaswani et al. 2017, equation (1); Li et al., arXiv 2205.05625, equation (6); arXiv 2603.03318.
    """
    steps, total = q.shape[-2], k.shape[-2]
    if score == "qisa":
        future = ~_causal_mask(steps, total, q.device)
        squares = (q * q).sum(-1, keepdim=True) + (k * k).sum(-1)[..., None, :]
        distance = (squares - 2 * q @ k.transpose(-1, -2)).clamp_min(0)  # (B, nh, S, T)
        weights = torch.exp(-distance).masked_fill(future, -torch.inf).softmax(-1)
        return F.dropout(weights, dropout) @ v
    if score == "gaussian":
        # −‖q − k‖² = 2 q·k − ‖k‖² − ‖q‖², and the softmax over j does not see ‖q‖²
        q = torch.cat([2 * q, torch.ones_like(q[..., :1])], -1)
        k = torch.cat([k, -(k * k).sum(-1, keepdim=True)], -1)
    mask = _causal_mask(steps, total, q.device) if 1 < steps < total else None  # one new token sees all others
    scale = 1.0 if score == "gaussian" else None
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=steps == total, scale=scale
    )


def _causal_mask(steps: int, total: int, device: torch.device) -> Tensor:
    """Return which of ``total`` keys each of the last ``steps`` queries may see."""
    return torch.ones(steps, total, dtype=torch.bool, device=device).tril(total - steps)


class CausalSelfAttention(nn.Module):
    """Multi-head attention over heads of the kinds in ``counts``.

    One linear map projects tokens to what all heads need: queries and keys of the heads where those are linear, then
    each kind's features. Kinds whose q, k and v are circuits of their own follow.

    Args:
        config: The model's shape.
        counts: Number of heads of each kind in this layer.

    Attributes:
        maps: The value map of each kind, a :class:`QuantumHead` or the module of a classical kind.
        sizes: How many numbers of the projection are queries and keys, and how many are each kind's features.
    """

    def __init__(self, config: GPTConfig, counts: dict[str, int]) -> None:
        super().__init__()
        self.n_embd, self.head_size, self.dropout = config.n_embd, config.head_size, config.dropout
        self.kinds = {name: head_kind(name) for name in counts}
        self.value_kinds = [name for name, kind in self.kinds.items() if kind.projections == "v"]
        self.circuit_kinds = [name for name, kind in self.kinds.items() if kind.projections == "qkv"]
        self.counts = {name: counts[name] for name in self.value_kinds + self.circuit_kinds}
        self.num_linear = sum(counts[name] for name in self.value_kinds)
        shapes = {name: config.head_shape(self.kinds[name], count) for name, count in self.counts.items()}
        self.maps = nn.ModuleDict({name: self.kinds[name].build(shape) for name, shape in shapes.items()})
        self.qk_widths = {name: self.kinds[name].qk_width(shape) for name, shape in shapes.items()}
        self.token_widths = {name: self.kinds[name].token_width(shape) for name, shape in shapes.items()}
        features = [shape.count * self.kinds[name].features(shape) for name, shape in shapes.items()]
        self.sizes = [2 * self.num_linear * self.head_size, *features]
        self.c_attn = nn.Linear(config.n_embd, sum(self.sizes), bias=config.bias) if sum(self.sizes) else None
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)

    def extra_repr(self) -> str:
        """Return the heads and their size, for ``print(model)``."""
        heads = ",".join(f"{name}:{count}" for name, count in self.counts.items())
        return f"heads={heads!r}, head_size={self.head_size}"

    def forward(
        self, x: Tensor, cache: KeyValueCache | None = None, unitaries: Mapping[str, Fused] | None = None
    ) -> Tensor:
        """Return attention's output, shape ``(B, T, d)``.

        Args:
            x: Tokens, shape ``(B, T, d)``.
            cache: Keys and values of the tokens that come before, to which those of ``x`` are added.
            unitaries: Those of the heads' circuits by kind, where they were formed already.
        """
        queries_and_keys, *features = self._project(x)
        values = self._head_values(x, features, unitaries or {})
        outputs = []
        if self.num_linear:
            q, k = queries_and_keys.unflatten(-1, (2, self.num_linear, -1)).permute(2, 0, 3, 1, 4)  # each (B, nh, T, h)
            v = [values[name].transpose(0, 1) for name in self.value_kinds]  # each (B, nh of the kind, T, h)
            outputs.append(self._attend("linear", q, k, torch.cat(v, 1) if len(v) > 1 else v[0], "dot", cache))
        for name in self.circuit_kinds:
            q, k, v = values[name].transpose(1, 2)  # each (B, nh, T, h)
            width = self.qk_widths[name]
            outputs.append(self._attend(name, q[..., :width], k[..., :width], v, self.kinds[name].score, cache))
        y = torch.cat(outputs, 1) if len(outputs) > 1 else outputs[0]  # (B, n_head, T, h)
        return F.dropout(self.c_proj(y.transpose(1, 2).reshape(x.shape)), self.dropout, self.training)

    def _project(self, x: Tensor) -> Sequence[Tensor]:
        """Return queries and keys, then each kind's features, all ``(B, T, ·)``."""
        if self.c_attn is None:
            return [x[..., :0]] * len(self.sizes)
        return self.c_attn(x).split(self.sizes, -1)

    def _head_values(self, x: Tensor, features: Sequence[Tensor], unitaries: Mapping[str, Fused]) -> dict[str, Tensor]:
        """Return what each kind's map makes of its features: ``(nh, B, T, h)``, or q, k, v ``(3, nh, B, T, h)``."""
        calls = {}
        for (name, module), part in zip(self.maps.items(), features, strict=True):
            calls[name] = module, self.kinds[name].rows(part, x, self.counts[name], self.token_widths[name])
        return {name: found.unflatten(-2, x.shape[:2]) for name, found in run_heads(calls, unitaries).items()}

    def _attend(self, part: str, q: Tensor, k: Tensor, v: Tensor, score: Score, cache: KeyValueCache | None) -> Tensor:
        if cache is not None:
            k, v = cache.extend(part, k, v)
        return causal_attention(q, k, v, score, self.dropout if self.training else 0.0)
