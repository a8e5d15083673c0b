"""Causal self-attention whose heads may be of different kinds."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qiskit_qattn.nn.cache import KeyValueCache
from qiskit_qattn.nn.config import GPTConfig
from qiskit_qattn.nn.controls import FourierValues, LinearValues, QuadraticValues
from qiskit_qattn.nn.folding import FoldedPass, FusedLayer, Projected, fold, is_plain
from qiskit_qattn.nn.heads import FusedHead, QuantumHead, fuse_heads, run_heads
from qiskit_qattn.nn.kinds import HEAD_KINDS, HeadKind, Score
from qiskit_qattn.simulation.derivatives import torch_must_see

_NOTHING_FUSED = FusedLayer()
_VALUE_SPREAD = 0.25  # of a linear value map at nanoGPT's initialisation: 0.02 * sqrt(128)


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
    """

    def __init__(self, config: GPTConfig, counts: dict[str, int]) -> None:
        super().__init__()
        self.n_embd, self.head_size, self.dropout = config.n_embd, config.head_size, config.dropout
        kinds = {name: HEAD_KINDS[name] for name in counts}
        self.value_kinds = [name for name, kind in kinds.items() if kind.projections == "v"]
        self.circuit_kinds = [name for name, kind in kinds.items() if kind.projections == "qkv"]
        self.counts = {name: counts[name] for name in self.value_kinds + self.circuit_kinds}
        self.num_linear = sum(counts[name] for name in self.value_kinds)
        self.maps = nn.ModuleDict({name: _value_map(config, kinds[name], counts[name]) for name in self.counts})
        features = {name: counts[name] * _num_features(config, kind) for name, kind in kinds.items()}
        self.sizes = [2 * self.num_linear * self.head_size, *(features[name] for name in self.counts)]
        self.c_attn = nn.Linear(config.n_embd, sum(self.sizes), bias=config.bias) if sum(self.sizes) else None
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)

    def forward(
        self,
        x: Tensor,
        cache: KeyValueCache | None = None,
        fused: FusedLayer | None = None,
        shared: FoldedPass | None = None,
    ) -> Tensor:
        """Return attention's output, shape ``(B, T, d)``.

        Args:
            x: Tokens, shape ``(B, T, d)``.
            cache: Keys and values of the tokens that come before, to which those of ``x`` are added.
            fused: What of this layer does not depend on data, where it was formed already.
            shared: What the layers of a pass share; the output holds only if that does at the end.
        """
        if fused is None:
            fused = self.fuse(x.shape[:-1].numel(), cached=cache is not None)
        projected = self._project_all(x, cache, fused, shared)
        if projected is not None:
            queries_and_keys, v = projected
            y = self._attend_linear(queries_and_keys, v.transpose(1, 2), cache)
        else:
            y = self._run_heads(x, cache, fused)
        y = y.transpose(1, 2).reshape(x.shape)
        if projected is None or not fused.projects_out:
            y = self.c_proj(y)
        elif self.c_proj.bias is not None:
            y = y + self.c_proj.bias
        return F.dropout(y, self.dropout, self.training)

    def fuse(self, rows: int, cached: bool = False) -> FusedLayer:
        """Return what of this layer alone does not depend on data; with gradients its heads form that as they run."""
        if torch.is_grad_enabled():
            return _NOTHING_FUSED
        heads = {name: head for name, head in self.maps.items() if isinstance(head, QuantumHead) and head.fusible}
        return self.fold({name: fuse_heads([head])[0] for name, head in heads.items()}, rows, cached)

    def fold(self, heads: Mapping[str, FusedHead], rows: int, cached: bool = False) -> FusedLayer:
        """Return what of this layer does not depend on data, for inference on ``rows`` tokens at once.

        Args:
            heads: What :func:`fuse_heads` gave for each kind of head.
            rows: B times T.
            cached: Whether a cache will keep values: then the output map stays apart from a single head's.
        """
        positions = {
            i: heads[name]
            for i, name in enumerate(self.counts, 1)
            if name in heads
            and HEAD_KINDS[name].projections == "v"
            and cast(QuantumHead, self.maps[name]).amplitude
            and is_plain(self.maps[name], QuantumHead)
        }
        if self.c_attn is None or not is_plain(self.c_attn, nn.Linear) or torch.is_grad_enabled():
            return FusedLayer(heads)
        if len(positions) < len(self.counts) - ("classical" in self.counts):
            return FusedLayer(heads)
        if not positions:
            return FusedLayer(heads, whole=True)
        # A single head's values go to the output map directly.
        single = list(self.counts.values()) == [1] and not cached and is_plain(self.c_proj, nn.Linear)
        if single:
            positions = {i: replace(head, signs=_mapped(head.signs, self.c_proj)) for i, head in positions.items()}
        linear = self.c_attn
        projection = fold(linear.weight, linear.bias, self.sizes, positions, self.head_size, rows)
        return FusedLayer(heads, projection, single and projection is not None, whole=projection is not None)

    def folded_from(self) -> tuple[list[Tensor], list[Hashable]]:
        """Return the weights, and what else, that the result of :meth:`fold` depends on; none without quantum heads."""
        heads = [head for head in self.maps.values() if isinstance(head, QuantumHead)]
        weights: list[Tensor | None] = []
        others: list[Hashable] = []
        for head in heads:
            weights += head.weight, head.gain
            others += head.placed[1], is_plain(head, QuantumHead)
        for linear in (self.c_attn, self.c_proj) if heads else ():
            plain = linear is not None and is_plain(linear, nn.Linear)
            if linear is not None and plain:  # what is not is called, and its weights are not kept
                weights += linear.weight, linear.bias
            others.append(plain)
        return [weight for weight in weights if weight is not None], others

    def _project_all(
        self, x: Tensor, cache: KeyValueCache | None, fused: FusedLayer, shared: FoldedPass | None
    ) -> Projected | None:
        """Return queries, keys and values where one projection gives them all: of classical or folded heads."""
        keeps = cache is not None and fused.projects_out  # a pass that is not folded would map them once more
        if fused.projection is not None and not keeps and not torch_must_see():
            return fused.projection(x, shared)
        if self.c_attn is None or list(self.counts) != ["classical"]:
            return None
        queries_and_keys, values = self._project(x)
        return queries_and_keys, values.unflatten(-1, (-1, self.head_size))

    def _project(self, x: Tensor) -> Sequence[Tensor]:
        """Return queries and keys, then each kind's features, all ``(B, T, ·)``."""
        if self.c_attn is None:
            return [x[..., :0]] * len(self.sizes)
        return self.c_attn(x).split(self.sizes, -1)

    def _run_heads(self, x: Tensor, cache: KeyValueCache | None, fused: FusedLayer) -> Tensor:
        """Project, measure and attend kind by kind; shape ``(B, n_head, T, h)``."""
        projected = self._project(x)
        features = dict(zip(self.counts, projected[1:], strict=True))
        measured = self._measure(features, x, fused)
        outputs = []
        if self.num_linear:
            values = [self._values(name, features[name], x, measured) for name in self.value_kinds]
            v = torch.cat(values, 1) if len(values) > 1 else values[0]  # (B, nh, T, h)
            outputs.append(self._attend_linear(projected[0], v, cache))
        for name in self.circuit_kinds:
            q, k, v = self._circuits(name, measured[name], x)
            outputs.append(self._attend(name, q, k, v, HEAD_KINDS[name].score, cache))
        return torch.cat(outputs, 1) if len(outputs) > 1 else outputs[0]

    def _attend_linear(self, queries_and_keys: Tensor, v: Tensor, cache: KeyValueCache | None) -> Tensor:
        q, k = queries_and_keys.unflatten(-1, (2, self.num_linear, self.head_size)).permute(2, 0, 3, 1, 4)
        return self._attend("linear", q, k, v, "dot", cache)

    def _attend(self, part: str, q: Tensor, k: Tensor, v: Tensor, score: Score, cache: KeyValueCache | None) -> Tensor:
        if cache is not None:
            k, v = cache.extend(part, k, v)
        return causal_attention(q, k, v, score, self.dropout if self.training else 0.0)

    def _measure(self, features: Mapping[str, Tensor], x: Tensor, fused: FusedLayer) -> dict[str, Tensor]:
        """Return the values of each quantum kind, ``(nh, B * T, h)`` or ``(3, nh, B * T, h)``; one device, one job."""
        calls = {
            name: (head, self._rows(name, features[name], x), fused.heads.get(name))
            for name in self.counts
            if isinstance(head := self.maps[name], QuantumHead)
        }
        return dict(zip(calls, run_heads(list(calls.values())), strict=True)) if calls else {}

    def _rows(self, name: str, features: Tensor, x: Tensor) -> Tensor:
        """Return what one kind's map takes, a row for each token: shape ``(nh, B * T, ·)``, q, k, v ahead of it."""
        kind, head = HEAD_KINDS[name], self.maps[name]
        if kind.whole_token:
            assert isinstance(head, QuantumHead)
            return F.pad(x, (0, head.num_features - self.n_embd)).flatten(0, 1).unsqueeze(0)
        rows = features.flatten(0, 1)
        if kind.own_maps:
            return rows.unflatten(-1, (3, self.counts[name], -1)).permute(1, 2, 0, 3)
        return rows.unflatten(-1, (self.counts[name], -1)).transpose(0, 1)  # q, k, v share one encoding

    def _values(self, name: str, features: Tensor, x: Tensor, measured: Mapping[str, Tensor]) -> Tensor:
        """Return the values of one kind whose q and k are linear, shape ``(B, nh, T, h)``."""
        value_map = self.maps[name]
        if isinstance(value_map, LinearValues):
            return features.unflatten(-1, (self.counts[name], self.head_size)).transpose(1, 2)
        if name in measured:
            values = measured[name]
        elif isinstance(value_map, FourierValues):
            values = value_map(x.flatten(0, 1))
        else:
            values = value_map(self._rows(name, features, x))  # (nh, B * T, h)
        return values.unflatten(1, x.shape[:2]).transpose(0, 1)

    def _circuits(self, name: str, measured: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return q, k and v of one kind that computes each by a circuit, shapes ``(B, nh, T, ·)``."""
        head = self.maps[name]
        assert isinstance(head, QuantumHead)
        q, k, v = measured.unflatten(-2, x.shape[:2]).transpose(1, 2)  # each (B, nh, T, h)
        width = {"first": 1, "qubits": head.circuit.num_qubits, "all": None}[HEAD_KINDS[name].qk]
        return q[..., :width], k[..., :width], v


def _mapped(signs: Tensor | None, output: nn.Linear) -> Tensor:
    """Return the signs of a single head with the output map behind them."""
    assert signs is not None
    return signs @ output.weight.mT.to(signs.dtype)


def _num_features(config: GPTConfig, kind: HeadKind) -> int:
    """Return how many projected features one head of a kind takes besides linear q and k."""
    if kind.name == "classical":
        return config.head_size
    if kind.name == "rff" or kind.whole_token:
        return 0
    if kind.name == "quadratic":
        return 2 ** config.kind_qubits(kind)
    encoding = config.circuit(kind).encoding
    return encoding.num_features * (3 if kind.own_maps else 1)


def _value_map(config: GPTConfig, kind: HeadKind, count: int) -> nn.Module:
    """Return the module that computes a kind's own part."""
    if kind.name == "classical":
        return LinearValues()
    if kind.name == "quadratic":
        return QuadraticValues(count, 2 ** config.kind_qubits(kind), config.head_size)
    if kind.name == "rff":
        return FourierValues(count, config.n_embd, config.head_size)
    heads = (count,) if kind.projections == "v" else (3, count)
    return QuantumHead(config.circuit(kind), heads, gain=_VALUE_SPREAD, trainable=kind.trainable)
