r"""Attention maps: the weights :math:`w_{ij}` with which position i reads position j, of every head of a model.

What is measured of a map, each a mean over its rows and sequences, in nats where it is an entropy:

- entropy: :math:`H_i = -\sum_j w_{ij} \log w_{ij}`, and relative to that of a uniform row, :math:`H_i / \log n_i`,
  where row i sees :math:`n_i` keys: i + 1 if the map is causal; rows of one key are left out;
- distance: :math:`\sum_j w_{ij} |i - j|`, how far back a head reads;
- divergence of two heads: Jensen and Shannon's of their rows, :math:`H((w + w')/2) - (H(w) + H(w'))/2`, from 0 for
  equal maps to log 2 for maps that share no key.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import torch
from torch import Tensor, nn

from qiskit_qattn.errors import ConfigError
from qiskit_qattn.evaluation.attention_calls import watched
from qiskit_qattn.nn.inference import evaluating
from qiskit_qattn.nn.kinds import head_kind

FIGURES = ("entropy", "relative_entropy", "distance")


@dataclass(frozen=True, eq=False)
class AttentionMap:
    """The map of one head in one call of its layer.

    Attributes:
        layer: Number of the layer, in the order of the calls.
        name: Its path in the model.
        head: Number of the head in its layer.
        kind: Its kind.
        backend: Where its circuit ran; ``torch`` if it has none.
        weights: After the softmax, shape ``(B, L, S)``, NaN in a row that sees no key, such as padding; None for a head
            that mixes tokens without weights.
    """

    layer: int
    name: str
    head: int
    kind: str
    backend: str
    weights: Tensor | None

    @property
    def quantum(self) -> bool:
        """Whether it has a circuit."""
        return bool(head_kind(self.kind).circuits)

    @property
    def label(self) -> str:
        """What it is, in a line."""
        text = f"layer {self.layer}, head {self.head}: {self.kind} on {self.backend}"
        return text if self.weights is not None else f"{text} (no weights)"

    @property
    def causal(self) -> bool:
        """Whether no position reads a later one."""
        w = self.weights
        return w is not None and w.shape[-2] == w.shape[-1] and not bool(w.nan_to_num().triu(1).any())

    def figures(self) -> dict[str, float | None]:
        """Return :data:`FIGURES`; None for what is not defined, as a distance in cross-attention."""
        w = self.weights
        if w is None:
            return dict.fromkeys(FIGURES)
        w = w.double()
        rows, keys = w.shape[-2:]
        entropy = _entropy(w)  # (B, L)
        seen = torch.arange(1, rows + 1, device=w.device) if self.causal else torch.full((rows,), keys, device=w.device)
        several = seen > 1
        relative = entropy[:, several] / seen[several].double().log()
        steps = torch.arange(max(rows, keys), device=w.device)
        distance = (w * (steps[:rows, None] - steps[:keys]).abs()).sum(-1) if rows == keys else w.new_empty(0)
        return dict(zip(FIGURES, map(_mean, (entropy, relative, distance)), strict=True))


@dataclass(frozen=True, eq=False)
class AttentionMaps(Sequence[AttentionMap]):
    """The maps of all heads of a model, layer by layer.

    Attributes:
        maps: The maps, in the order of layers and heads.
    """

    maps: tuple[AttentionMap, ...]

    @overload
    def __getitem__(self, index: int) -> AttentionMap: ...
    @overload
    def __getitem__(self, index: slice) -> AttentionMaps: ...
    def __getitem__(self, index: int | slice) -> AttentionMap | AttentionMaps:
        """Return a map, or some of them."""
        return AttentionMaps(self.maps[index]) if isinstance(index, slice) else self.maps[index]

    def __len__(self) -> int:
        """Return the number of heads of all layers."""
        return len(self.maps)

    def select(self, layer: int | None = None, head: int | None = None) -> AttentionMaps:
        """Return the maps of a layer, of a head's number, or of both.

        Raises:
            ConfigError: If there are none.
        """
        for name, given in (("layer", layer), ("head", head)):
            there = sorted({getattr(each, name) for each in self.maps})
            if given is not None and given not in there:
                raise ConfigError(f"There is no {name} {given}; there are {', '.join(map(str, there))}.")
        found = [m for m in self.maps if layer in (None, m.layer) and head in (None, m.head)]
        if not found:
            raise ConfigError(f"Layer {layer} has no head {head}.")
        return AttentionMaps(tuple(found))

    def layers(self) -> dict[int, AttentionMaps]:
        """Return the maps of each layer."""
        numbers = dict.fromkeys(each.layer for each in self.maps)
        return {number: self.select(number) for number in numbers}

    def figures(self) -> list[dict[str, Any]]:
        """Return a row for each head: what it is, its entropies and its distance."""
        return [
            {
                "layer": each.layer,
                "head": each.head,
                "kind": each.kind,
                "quantum": each.quantum,
                "backend": each.backend,
                "name": each.name,
                **each.figures(),
            }
            for each in self.maps
        ]

    def divergences(self) -> list[dict[str, Any]]:
        """Return the divergence of each two heads of a layer, in nats; ``mixed``: one has a circuit, one has none."""
        rows = []
        for layer, maps in self.layers().items():
            drawn = [each for each in maps if each.weights is not None]
            for i, first in enumerate(drawn):
                for second in drawn[i + 1 :]:
                    rows.append(
                        {
                            "layer": layer,
                            "heads": [first.head, second.head],
                            "kinds": [first.kind, second.kind],
                            "mixed": first.quantum != second.quantum,
                            "divergence": divergence(first, second),
                        }
                    )
        return rows

    def quantum_from_classical(self) -> dict[int, float | None]:
        """Return each layer's mean divergence of a quantum and a classical head; None where it lacks either."""
        found: dict[int, list[float]] = {layer: [] for layer in self.layers()}
        for row in self.divergences():
            found[row["layer"]] += [row["divergence"]] if row["mixed"] else []
        return {layer: sum(each) / len(each) if each else None for layer, each in found.items()}


def divergence(first: AttentionMap, second: AttentionMap) -> float:
    """Return the mean Jensen-Shannon divergence of the rows of two maps of one call, in nats: 0 to log 2."""
    assert first.weights is not None and second.weights is not None
    p, q = first.weights.double(), second.weights.double()
    found = _entropy((p + q) / 2) - (_entropy(p) + _entropy(q)) / 2
    return min(max(_mean(found) or 0.0, 0.0), math.log(2))


def attention_maps(model: nn.Module, tokens: Any) -> AttentionMaps:
    r"""Return the weights after the softmax of every head in one call of a model, without gradients.

    The call is in evaluation mode; modes are restored, and the model stays as it is. Heads keep their backends: on a
    device the call costs what any call does. Weights are those that the heads give values with, also where a fused
    kernel never writes them down: they are formed for this call only.

    Args:
        model: A :class:`GPT`, or any module that holds :class:`QuantumMultiheadAttention` or torch's own, or a Hugging
            Face model with replaced attention.
        tokens: What the model takes: tokens, shape ``(B, T)`` or ``(T,)``, or other tensors; a tuple of arguments; or a
            mapping of named ones.

    Returns:
        A sequence of :class:`AttentionMap`, whose ``weights`` have the shape ``(B, T, T)``, and their figures.

    Raises:
        ConfigError: For a model without such attention, or one that did not call it.
    """
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model must be a torch.nn.Module, got {type(model).__name__}.")
    with evaluating(model), torch.no_grad(), watched(model) as calls:
        call_model(model, tokens)
    if not calls:
        raise ConfigError(
            f"{type(model).__name__} did not call its heads; a Hugging Face model calls them after "
            f"set_attn_implementation('quantum')."
        )
    found = [
        AttentionMap(layer, call.name, head, kind, call.backends[kind], weights)
        for layer, call in enumerate(calls)
        for head, (kind, weights) in enumerate(zip(call.kinds, call.weights, strict=True))
    ]
    return AttentionMaps(tuple(found))


def call_model(model: nn.Module, tokens: Any) -> None:
    """Call a model with a tensor on its device, a tuple of arguments, or a mapping of named ones."""
    if isinstance(tokens, Mapping):
        model(**tokens)
    elif isinstance(tokens, tuple):
        model(*tokens)
    elif isinstance(tokens, Tensor):
        device = next(model.parameters(), tokens).device
        unbatched = tokens.ndim == 1 and not tokens.is_floating_point()
        model((tokens[None] if unbatched else tokens).to(device))
    else:
        raise ConfigError(f"tokens must be a tensor, a tuple or a mapping of them, got {type(tokens).__name__}.")


def _entropy(w: Tensor) -> Tensor:
    """Return the entropy of each row in nats, shape ``(B, L)``."""
    return torch.special.entr(w).sum(-1)


def _mean(values: Tensor) -> float | None:
    """Return the mean of what is a number; None where there is nothing."""
    kept = values[~values.isnan()]
    return float(kept.mean()) if kept.numel() else None
