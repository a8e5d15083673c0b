"""Attention heads of several kinds in one layer: their modules, and the groups that are scored alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast, get_args

import torch
from torch import Tensor, nn

from qiskit_qattn.nn.head_groups import HeadGroup
from qiskit_qattn.nn.head_kind import HeadShape, Score
from qiskit_qattn.nn.heads import QuantumHead
from qiskit_qattn.nn.kinds import head_kind
from qiskit_qattn.nn.pairs import PairHead, PairScores
from qiskit_qattn.nn.sampling import SampledMean


class MixedHeads:
    """Attention whose heads are of several kinds: of linear queries and keys, then of others, then mixers.

    Attributes:
        kinds: The kinds, in the order of the heads.
        counts: How many heads are of each kind.
        maps: The value map of each kind, a :class:`QuantumHead` or the module of a classical kind.
        value_kinds: The kinds whose queries and keys are linear.
        circuit_kinds: The kinds whose queries, keys and values are circuits.
        mixer_kinds: The kinds that mix positions without queries and keys.
        scores: The modules that compare queries and keys, for kinds whose scores come from pairs.
        num_linear: The number of heads of ``value_kinds``.
        sampling: Estimates the mean of the values from drawn keys; None for exact attention.
    """

    maps: nn.ModuleDict
    scores: nn.ModuleDict
    sampling: SampledMean | None

    def _build_heads(self, shapes: Mapping[str, HeadShape]) -> dict[str, HeadShape]:
        """Build the value maps; return the shapes in the order of the heads."""
        kinds = {name: head_kind(name) for name in shapes}
        self.mixer_kinds = [name for name, kind in kinds.items() if kind.mixer is not None]
        scored = {name: kind for name, kind in kinds.items() if kind.mixer is None}
        linear = [name for name, kind in scored.items() if kind.projections == "v"]
        order = get_args(Score).index
        self.value_kinds = sorted(linear, key=lambda name: (kinds[name].pairs is not None, order(kinds[name].score)))
        self.circuit_kinds = [name for name, kind in scored.items() if kind.projections == "qkv"]
        self.kinds = {name: kinds[name] for name in self.value_kinds + self.circuit_kinds + self.mixer_kinds}
        shapes = {name: shapes[name] for name in self.kinds}
        self.counts = {name: shape.count for name, shape in shapes.items()}
        self.num_linear = sum(self.counts[name] for name in self.value_kinds)
        self._linear_groups: list[tuple[Score, list[str], slice]] = []  # of kinds with one score, which heads
        start = 0
        paired = [name for name in self.value_kinds if self.kinds[name].pairs is not None]
        plain = [name for name in self.value_kinds if name not in paired]
        for score in dict.fromkeys(self.kinds[name].score for name in plain):
            names = [name for name in plain if self.kinds[name].score == score]
            end = start + sum(self.counts[name] for name in names)
            self._linear_groups.append((score, names, slice(start, end)))
            start = end
        self.maps = nn.ModuleDict({name: self.kinds[name].build(shape) for name, shape in shapes.items()})
        self._pair_heads: dict[str, slice] = {}  # which heads
        self.scores = nn.ModuleDict()
        for name in paired:
            pairing, shape = self.kinds[name].pairs, shapes[name]
            assert pairing is not None
            self.scores[name] = pairing.build(shape.count, shape.head_size, shape.reps)
            self._pair_heads[name] = slice(start, start := start + self.counts[name])
        self.qk_widths = {name: self.kinds[name].qk_width(shape) for name, shape in shapes.items()}
        return shapes

    def circuits(self, kind: str) -> list[QuantumHead]:
        """Return the modules that run the circuits of a kind: of its values, and of its scores."""
        both = [part[kind] for part in (self.maps, self.scores) if kind in part]
        return [module for module in both if isinstance(module, QuantumHead)]

    def _head_groups(self, q: Tensor, k: Tensor, values: Mapping[str, Any]) -> Iterator[HeadGroup]:
        """Yield the heads in groups that :func:`attend` takes.

        Args:
            q: Queries of heads where those are linear, shape ``(B, num_linear, T, h)``.
            k: Their keys.
            values: What the maps gave for each kind: values ``(nh, B, T, h)``, or q, k and v, each of that shape.
        """
        for score, names, heads in self._linear_groups:
            v = [values[name].transpose(0, 1) for name in names]  # each (B, nh of the kind, T, h)
            yield HeadGroup(f"linear-{score}", score, q[:, heads], k[:, heads], torch.cat(v, 1) if v[1:] else v[0])
        for name, heads in self._pair_heads.items():
            pairs = cast(PairScores, self.scores[name])
            features = pairs.encode(q[:, heads], k[:, heads])
            circuits = None if pairs.exact else cast(PairHead, pairs)
            yield HeadGroup(name, self.kinds[name].score, *features, values[name].transpose(0, 1), circuits)
        for name in self.circuit_kinds:
            q, k, v = (part.transpose(0, 1) for part in values[name])
            width = self.qk_widths[name]
            yield HeadGroup(name, self.kinds[name].score, q[..., :width], k[..., :width], v)
