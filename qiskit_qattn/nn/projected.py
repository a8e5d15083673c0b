"""Heads of any kind whose queries, keys and values are projected already: vectors of ``head_dim`` numbers each."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qiskit_qattn.errors import ConfigError
from qiskit_qattn.nn.attention import attend, causal_mask
from qiskit_qattn.nn.config import projected_shape
from qiskit_qattn.nn.head_groups import measured
from qiskit_qattn.nn.head_kind import HeadKind, HeadShape
from qiskit_qattn.nn.heads import HeadEncoding, run_heads
from qiskit_qattn.nn.kinds import head_kind, parse_counts
from qiskit_qattn.nn.mixed_heads import MixedHeads
from qiskit_qattn.nn.sampling import sampled_mean
from qiskit_qattn.untrusted import shown


class ProjectedHeads(MixedHeads):
    """Heads in the place of another library's: its projections stay, and each head takes its own part of them.

    Attributes:
        heads: The kinds and their counts, in the order of the heads, aliases resolved.
        num_heads: H.
        head_dim: h.
        encodings: The learned maps to angles, of the kinds that take angles.
    """

    heads: str
    num_heads: int
    head_dim: int
    encodings: nn.ModuleDict

    def _build_projected(
        self,
        heads: str,
        num_heads: int,
        head_dim: int,
        num_qubits: int | None,
        reps: int | None,
        sampling: str | None,
    ) -> None:
        """Build the value maps and encodings.

        Raises:
            UnknownNameError, ConfigError, CircuitError: For heads, qubits, layers or sampling that cannot be.
        """
        listed = _parse_heads(heads, num_heads)
        self.heads = ",".join(f"{name}:{count}" for name, count in listed)
        counts = {name: sum(count for other, count in listed if other == name) for name, _ in listed}
        shapes = self._build_heads(
            {
                name: projected_shape(head_kind(name), count, head_dim, num_qubits, reps)
                for name, count in counts.items()
            }
        )
        self.sampling = sampled_mean(sampling, self.kinds.values())
        names = [name for name, count in listed for _ in range(count)]
        order = sorted(range(num_heads), key=lambda head: list(self.kinds).index(names[head]))
        self._by_kind, self._in_string = _runs(order), _runs([order.index(head) for head in range(num_heads)])
        self._widths = {name: self.kinds[name].inputs(shape) for name, shape in shapes.items()}
        self.encodings = nn.ModuleDict(
            {
                name: HeadEncoding((3, *size) if self.kinds[name].own_maps else size)
                for name, shape in shapes.items()
                if _is_encoded(self.kinds[name], shape)
                for size in [(shape.count, head_dim, self._widths[name])]
            }
        )

    def _mix(
        self,
        inputs: Sequence[Tensor],
        mask: Tensor | None,
        padding: Tensor | None = None,
        *,
        zeros: int = 0,
        causal: bool = False,
        dropout: float = 0.0,
        need_weights: bool = False,
        scale: float | None = None,
        rows: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return what the heads give, ``(N, H, L, h)``, and their weights, ``(N, H, L, S)``, where asked for.

        Args:
            inputs: Queries ``(N, L, H, h)``, keys and values ``(N, S, H, h)``.
            mask: As for :func:`~qiskit_qattn.nn.attention.attend`, shape ``(N or 1, H or 1, L, S)``.
            padding: A mask that is added for each key, shape ``(N, S)``: vectors of keys at −∞ reach no circuit.
            zeros: How many keys and values of zeros follow the others.
            causal: Query i sees the first i + 1 keys; instead of a mask.
            dropout: Probability of dropping a weight.
            need_weights: Whether to return the weights.
            scale: The factor of products of linear queries and keys; None takes 1 / √h.
            rows: A number of each query, by which sampled attention draws, shape ``(N or 1, L)``; None for its place.
        """
        q, k, v = inputs
        if padding is not None:
            # Excluded keys are as one to a device; nothing else depends on what they held, even on NaN.
            excluded = F.pad(padding == -torch.inf, (0, k.shape[1] - padding.shape[1]))[..., None, None]
            k, v = k.masked_fill(excluded, 1.0), v.masked_fill(excluded, 1.0)
        q, k, v = (_ordered(x, 2, self._by_kind) for x in (q, k, v))
        mask = mask if mask is None or mask.shape[1] == 1 else _ordered(mask, 1, self._by_kind)
        values = self._head_values(q, k, v)
        factor = 1.0 if scale in (None, self.head_dim**-0.5) else scale * self.head_dim**0.5
        outputs, weights, start = [], [], 0
        groups = list(self._head_groups(q.transpose(1, 2), k.transpose(1, 2), values))
        if any(group.pairs is not None for group in groups):
            groups = measured(groups, _seen(q.shape[1], k.shape[1], mask, causal, q.device))
        for group in groups:
            heads = slice(start, start := start + group.q.shape[1])
            y, w = attend(
                group.q * factor if factor != 1 and group.name == "linear-dot" else group.q,
                F.pad(group.k, (0, 0, 0, zeros)) if zeros else group.k,
                F.pad(group.v, (0, 0, 0, zeros)) if zeros else group.v,
                group.score,
                mask if mask is None or mask.shape[1] == 1 else mask[:, heads],
                causal=causal,
                dropout=dropout,
                need_weights=need_weights,
                mix=None if self.sampling is None else partial(self.sampling, rows=rows, first_head=heads.start),
            )
            outputs.append(y)
            weights.append(w)
        return self._in_order(outputs), self._in_order(weights) if need_weights else None

    def _in_order(self, parts: Sequence[Any]) -> Tensor:
        """Return the groups' parts, each ``(N, nh, L, ·)``, as one of all heads in the string's order."""
        whole = parts[0] if len(parts) == 1 else torch.cat(list(parts), 1)
        return _ordered(whole, 1, self._in_string)

    def _head_values(self, q: Tensor, k: Tensor, v: Tensor) -> dict[str, Any]:
        """Return what each kind's map makes of projected vectors ``(N, ·, H, h)``, as for :meth:`_head_groups`."""
        shapes = [x.shape[:2] for x in (q, k, v)]
        lengths = [batch * steps for batch, steps in shapes]
        calls: dict[str, tuple[nn.Module, Tensor]] = {}
        start = 0
        for name, count in self.counts.items():
            heads = slice(start, start := start + count)
            if name in self.value_kinds:
                rows = v[:, :, heads].flatten(0, 1).transpose(0, 1)  # (nh, N * S, h)
            else:
                parts = [_extended(x[:, :, heads].flatten(0, 1), max(lengths)) for x in (q, k, v)]
                rows = torch.stack(parts).transpose(1, 2)  # (3, nh, rows, h)
            calls[name] = self.maps[name], self._encoded(name, rows)
        found = run_heads(calls, {})
        values: dict[str, Any] = {name: found[name].unflatten(-2, shapes[2]) for name in self.value_kinds}
        for name in self.circuit_kinds:
            values[name] = [found[name][i, :, : lengths[i]].unflatten(1, shapes[i]) for i in range(3)]
        return values

    def _encoded(self, name: str, vectors: Tensor) -> Tensor:
        """Return what the map of a kind takes, ``(..., F)``, of its heads' vectors ``(..., h)``."""
        activation = self.kinds[name].activation
        if name in self.encodings:
            vectors = self.encodings[name](vectors)
        elif missing := self._widths[name] - self.head_dim:
            vectors = F.pad(vectors, (0, missing))
        return vectors if activation is None else activation(vectors)


def _seen(steps: int, total: int, mask: Tensor | None, causal: bool, device: torch.device) -> Tensor:
    """Return which keys each query sees, shape ``(N or 1, H or 1, L, S)``."""
    if mask is None:
        return causal_mask(steps, total, device, 0 if causal else total)[None, None]
    return (mask if mask.dtype == torch.bool else mask > -torch.inf)[..., :total]  # zeros may follow


def _parse_heads(heads: str, num_heads: int) -> list[tuple[str, int]]:
    if not isinstance(heads, str):
        raise ConfigError(f"heads must be a kind, or a string 'kind:count,…'; got {shown(heads)}.")
    if ":" not in heads and "," not in heads:
        return [(head_kind(heads.strip()).name, num_heads)]
    return parse_counts(heads, num_heads, f"heads, but num_heads is {num_heads}")


def _is_encoded(kind: HeadKind, shape: HeadShape) -> bool:
    """Whether a learned map makes what the kind takes: angles, or fewer numbers than a vector has."""
    angles = shape.circuit is not None and not shape.circuit.encoding.takes_vectors
    return angles or kind.inputs(shape) < shape.width


def _runs(order: Sequence[int]) -> list[slice]:
    """Return an order as runs of neighbours."""
    starts = [i for i, head in enumerate(order) if i == 0 or head != order[i - 1] + 1]
    return [slice(order[i], order[j - 1] + 1) for i, j in zip(starts, [*starts[1:], len(order)], strict=True)]


def _ordered(x: Tensor, axis: int, runs: Sequence[slice]) -> Tensor:
    """Return the heads along an axis in the order of the runs; a list as index would be copied to a GPU each time."""
    if len(runs) == 1:
        return x
    return torch.cat([x.narrow(axis, run.start, run.stop - run.start) for run in runs], axis)


def _extended(rows: Tensor, length: int) -> Tensor:
    """Return rows ``(n, nh, h)`` with the last one repeated: circuits of equal rows are run once."""
    missing = length - len(rows)
    if missing and len(rows):
        return torch.cat([rows, rows[-1:].expand(missing, -1, -1)])
    return F.pad(rows, (0, 0, 0, 0, 0, missing)) if missing else rows
