"""A kind of attention head: which of q, k and v are linear, which are circuits, and how they are scored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from qiskit_qattn.library.attention_circuit import AttentionCircuit
from qiskit_qattn.library.catalog import Recipe
from qiskit_qattn.nn.heads import QuantumHead
from qiskit_qattn.nn.pairs import Pairing

Score = Literal["dot", "gaussian", "qisa", "overlap", "complex"]
_VALUE_SPREAD = 0.25  # of a linear value map at nanoGPT's initialisation: 0.02 * sqrt(128)


@dataclass(frozen=True)
class HeadShape:
    """The sizes that the heads of one kind in a layer are built for.

    Attributes:
        count: Number of heads, H.
        width: Width of the tokens, d.
        head_size: Width of a head's values, h.
        num_qubits: n, of the circuits, or of the index of the vectors of length 2ⁿ that a classical kind takes.
        circuit: The circuit of a quantum kind, with h observables.
        spread: Standard deviation of the initial values; that of a linear value map.
        reps: Ansatz layers of circuits; None takes each one's own.
    """

    count: int
    width: int
    head_size: int
    num_qubits: int
    circuit: AttentionCircuit | None = None
    spread: float = _VALUE_SPREAD
    reps: int | None = None


@dataclass(frozen=True)
class HeadKind:
    """A kind of head. Register it with :func:`~qiskit_qattn.nn.kinds.register_head`.

    Attributes:
        name: Its name in ``heads`` strings.
        circuit: The catalog entry that it runs, or None for a classical kind.
        projections: ``v``: q and k are linear and v is the kind's own map. ``qkv``: q, k and v are three circuits.
        score: How queries and keys give weights.
        qk: Which expectations are q and k where those are circuits: the first, ⟨Z₀⟩; one per qubit; or all.
        own_maps: Whether q, k and v each have a linear map of their own to their circuit's angles.
        whole_token: Whether the value map takes the token itself, without a linear map.
        trainable: Whether circuit weights are trained.
        summary: What it is, in a line.
        control: The kind without a circuit that computes functions of the same form, against which a gain is judged.
        recipe: Builds a circuit that the catalog does not hold; registering the kind adds it there.
        values: Builds the value map of a classical kind: a module from ``(H, N, F)`` to ``(H, N, h)``.
        num_features: F, how many numbers of a token's projection a head of a classical kind takes.
        qubits: Gives n for a head size, in place of the setting ``num_qubits``.
        mixer: Builds a module that mixes positions itself, in place of scores and values, for kinds that have no
            queries and keys. It is called with the features of all S positions so far, shape ``(B, H, S, F)``, with T,
            and with which positions are no padding, shape ``(B, S)`` or None; it returns the outputs of the last T
            positions, shape ``(B, H, T, h)``, of which each depends on its own prefix only.
        pairs: How linear queries and keys become states, which ``score`` compares.
        measured: How many observables a circuit of n qubits has, where a learned linear map takes all of them to the h
            values; None: h, each with a gain.
        activation: Applied to the projected numbers before they enter the map.
    """

    name: str
    circuit: str | None = None
    projections: Literal["v", "qkv"] = "v"
    score: Score = "dot"
    qk: Literal["first", "qubits", "all"] = "all"
    own_maps: bool = False
    whole_token: bool = False
    trainable: bool = True
    summary: str = ""
    control: str = ""
    recipe: Recipe | None = None
    values: Callable[[HeadShape], nn.Module] | None = None
    num_features: Callable[[HeadShape], int] | None = None
    qubits: Callable[[int], int] | None = None
    mixer: Callable[[HeadShape], nn.Module] | None = None
    pairs: Pairing | None = None
    measured: Callable[[int], int] | None = None
    activation: Callable[[Tensor], Tensor] | None = None

    @property
    def circuits(self) -> tuple[str, ...]:
        """The names of its circuits: in the catalog, and of pairs as :func:`pair_circuit` names them."""
        pairs = self.pairs.circuit_name if self.pairs is not None else None
        return tuple(name for name in (self.circuit, pairs) if name is not None)

    @property
    def encodes_token(self) -> bool:
        """Whether its circuit encodes the whole token."""
        return self.circuit is not None and self.whole_token

    def build(self, shape: HeadShape) -> nn.Module:
        """Return the value map of all heads of this kind in a layer, or their mixer.

        A value map takes :meth:`rows` to values, shape ``(H, N, h)``, or to q, k and v, shape ``(3, H, N, h)``.
        """
        if self.mixer is not None:
            return self.mixer(shape)
        if shape.circuit is not None:
            heads = (shape.count,) if self.projections == "v" else (3, shape.count)
            outputs = None if self.measured is None else shape.head_size
            return QuantumHead(shape.circuit, heads, gain=shape.spread, trainable=self.trainable, outputs=outputs)
        assert self.values is not None
        return self.values(shape)

    def inputs(self, shape: HeadShape) -> int:
        """Return how many numbers the map of one head takes."""
        if shape.circuit is not None:
            return shape.circuit.encoding.num_features
        if self.whole_token:
            return shape.width
        assert self.num_features is not None
        return self.num_features(shape)

    def num_observables(self, head_size: int, num_qubits: int) -> int:
        """Return how many observables its circuit has."""
        return head_size if self.measured is None else self.measured(num_qubits)

    def features(self, shape: HeadShape) -> int:
        """Return how many numbers of a token's projection one head takes, beside linear q and k."""
        return 0 if self.whole_token else self.inputs(shape) * (3 if self.own_maps else 1)

    def qk_width(self, shape: HeadShape) -> int | None:
        """Return how many of a circuit's expectations are its query and key; None for all."""
        if shape.circuit is None:
            return None
        return {"first": 1, "qubits": shape.circuit.num_qubits, "all": None}[self.qk]

    def rows(self, features: Tensor, x: Tensor, count: int, token_width: int) -> Tensor:
        """Return what the value map takes, a row for each token: shape ``(H, N, F)``, or ``(3, H, N, F)``.

        Args:
            features: This kind's part of the tokens' projection, shape ``(B, T, ·)``; N is B T.
            x: The tokens, shape ``(B, T, d)``.
            count: H.
            token_width: What :meth:`inputs` gave: a token that the map takes itself is padded with zeros to it.
        """
        if self.whole_token:
            return F.pad(x, (0, token_width - x.shape[-1])).flatten(0, 1).unsqueeze(0)  # one for all heads
        rows = features.flatten(0, 1) if self.activation is None else self.activation(features.flatten(0, 1))
        if self.own_maps:
            return rows.unflatten(-1, (3, count, -1)).permute(1, 2, 0, 3)
        return rows.unflatten(-1, (count, -1)).transpose(0, 1)  # q, k, v share one encoding
