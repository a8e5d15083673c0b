"""The kinds of attention head: which of q, k and v are linear, which are circuits, and how they are scored."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn import functional as F

from qiskit_qattn.errors import ConfigError, unknown_name
from qiskit_qattn.library.attention_circuit import AttentionCircuit
from qiskit_qattn.library.catalog import ALIASES, CATALOG, Recipe, attention_circuit, register_circuit
from qiskit_qattn.nn.controls import FourierValues, LinearValues, QuadraticValues, TensorTrainValues, UnitLinear
from qiskit_qattn.nn.heads import QuantumHead

GROUP = "qiskit_qattn.heads"
Score = Literal["dot", "gaussian", "qisa"]
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
        spread: Of the values at the start; that of a linear value map.
    """

    count: int
    width: int
    head_size: int
    num_qubits: int
    circuit: AttentionCircuit | None = None
    spread: float = _VALUE_SPREAD


@dataclass(frozen=True)
class HeadKind:
    """A kind of head. Register it with :func:`register_head`.

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
        recipe: Of a circuit that the catalog does not hold; registering the kind adds it there.
        values: Builds the value map of a classical kind: a module from ``(H, N, F)`` to ``(H, N, h)``.
        num_features: F, how many numbers of a token's projection a head of a classical kind takes.
        qubits: Gives n for a head size, in place of the setting ``num_qubits``.
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
    recipe: Recipe | None = None
    values: Callable[[HeadShape], nn.Module] | None = None
    num_features: Callable[[HeadShape], int] | None = None
    qubits: Callable[[int], int] | None = None

    def __reduce__(self) -> tuple[Callable[[str], HeadKind], tuple[str]]:
        """Pickle and copy a kind as its name."""
        return head_kind, (self.name,)

    @property
    def encodes_token(self) -> bool:
        """Whether its circuit encodes the whole token."""
        return self.circuit is not None and self.whole_token

    def build(self, shape: HeadShape) -> nn.Module:
        """Return the value map of all heads of this kind in a layer.

        It takes :meth:`rows` to values, shape ``(H, N, h)``, or to q, k and v, shape ``(3, H, N, h)``.
        """
        if shape.circuit is not None:
            heads = (shape.count,) if self.projections == "v" else (3, shape.count)
            return QuantumHead(shape.circuit, heads, gain=shape.spread, trainable=self.trainable)
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
        rows = features.flatten(0, 1)
        if self.own_maps:
            return rows.unflatten(-1, (3, count, -1)).permute(1, 2, 0, 3)
        return rows.unflatten(-1, (count, -1)).transpose(0, 1)  # q, k, v share one encoding


@cache
def head_circuit(name: str, num_qubits: int, reps: int | None, observables: tuple[str, ...] | int) -> AttentionCircuit:
    """Return one circuit of the catalog for all layers that ask for it, so that their unitaries are formed together.

    Args:
        name: Its name in the catalog.
        num_qubits: Its qubits.
        reps: Its ansatz layers; None takes its own.
        observables: The Pauli strings that it measures, or how many of the catalog's choice.
    """
    if isinstance(observables, int):
        return attention_circuit(name, num_qubits, reps=reps, num_observables=observables)
    return attention_circuit(name, num_qubits, reps=reps, observables=observables)


_KINDS: dict[str, HeadKind] = {}
HEAD_KINDS: Mapping[str, HeadKind] = MappingProxyType(_KINDS)  # what is registered so far, for reading


def register_head(kind: HeadKind) -> HeadKind:
    """Make a kind of head known by its name, and return it.

    A package registers its kinds when it is installed: each is an entry point of the group ``qiskit_qattn.heads``,
    under the kind's name, that names a :class:`HeadKind`.

    Raises:
        ConfigError: For a name that cannot stand in a ``heads`` string or is taken by another kind, or a kind with
            neither a circuit nor a value map.
    """
    if not re.fullmatch(r"[\w-]+", kind.name) or kind.name in ALIASES:
        raise ConfigError(f"A head kind's name is of letters, digits, '_' and '-', and no alias; got {kind.name!r}.")
    if hasattr(nn.ModuleDict, kind.name) or kind.name == "training":
        raise ConfigError(
            f"A head kind cannot be called {kind.name!r}, which torch's modules use; choose another name."
        )
    for field, allowed in (
        ("projections", ("v", "qkv")),
        ("score", get_args(Score)),
        ("qk", ("first", "qubits", "all")),
    ):
        if getattr(kind, field) not in allowed:
            raise unknown_name(f"{field} of head kind {kind.name!r}", str(getattr(kind, field)), allowed)
    if kind.circuit is not None and kind.recipe is None and kind.circuit not in CATALOG:
        raise unknown_name(f"circuit of head kind {kind.name!r}", kind.circuit, CATALOG)
    if kind.circuit is None and (kind.values is None or (kind.num_features is None and not kind.whole_token)):
        raise ConfigError(f"Head kind {kind.name!r} needs a circuit, or values and num_features.")
    if _KINDS.get(kind.name, kind) != kind:
        raise ConfigError(f"Head kind {kind.name!r} is registered already, as {_KINDS[kind.name]}.")
    if kind.recipe is not None and kind.circuit is not None:
        register_circuit(kind.circuit, kind.recipe)
    _KINDS[kind.name] = kind
    return kind


def list_heads() -> list[str]:
    """Return the names of all kinds of head: ours, what was registered here, and what installed packages bring."""
    return list(dict.fromkeys([*_KINDS, *_installed()]))


def head_kind(name: str) -> HeadKind:
    """Return the kind of a name or alias.

    Raises:
        UnknownNameError: For an unknown name; the message lists the known ones.
        ConfigError: For an installed kind that cannot be loaded.
    """
    name = ALIASES.get(name, name)
    if name not in _KINDS and name in _installed():
        register_head(_load(_installed()[name]))
    if name not in _KINDS:
        raise unknown_name("head kind", name, [*list_heads(), *ALIASES])
    return _KINDS[name]


@cache
def _installed() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _load(entry: EntryPoint) -> HeadKind:
    package = "an unknown package" if entry.dist is None else entry.dist.name
    try:
        kind = entry.load()
    except (Exception, SystemExit) as error:  # whatever a third party's module raises when it is imported
        raise ConfigError(
            f"Head kind {entry.name!r} of {package} cannot be loaded from {entry.value!r}: {error}"
        ) from error
    if not isinstance(kind, HeadKind) or kind.name != entry.name:
        raise ConfigError(f"Head kind {entry.name!r} of {package}: {entry.value!r} must be a HeadKind of that name.")
    return kind


def parse_heads(heads: str | Sequence[str], n_layer: int, n_head: int) -> list[dict[str, int]]:
    """Parse ``kind:count,…``, one string for all layers or one per layer.

    Returns:
        For each layer, the number of heads of each kind, aliases resolved.

    Raises:
        UnknownNameError: For an unknown kind.
        ConfigError: For a malformed string, counts that do not sum to ``n_head``, or a list of another length than
            ``n_layer``.
    """
    if not isinstance(heads, str) and not (isinstance(heads, Sequence) and all(isinstance(h, str) for h in heads)):
        raise ConfigError(f"heads must be a string 'kind:count,…' or a list of them, one per layer; got {heads!r}.")
    strings = [heads] * n_layer if isinstance(heads, str) else list(heads)
    if len(strings) != n_layer:
        raise ConfigError(f"heads lists {len(strings)} layers, but n_layer is {n_layer}.")
    return [_parse_layer(text, n_head) for text in strings]


def _parse_layer(text: str, n_head: int) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name, count in parse_counts(text, n_head, f"heads per layer, but n_head is {n_head}"):
        counts[name] = counts.get(name, 0) + count
    return counts


def parse_counts(text: str, total: int, but: str) -> list[tuple[str, int]]:
    """Parse ``kind:count,…``; return each kind, aliases resolved, with its count.

    Args:
        text: The string.
        total: What the counts sum to.
        but: How the error for another sum goes on after the sum.

    Raises:
        UnknownNameError: For an unknown kind.
        ConfigError: For a malformed string, or counts of another sum.
    """
    counts = []
    for item in text.split(","):
        match = re.fullmatch(r"\s*([\w-]+)\s*:\s*(\d{1,9})\s*", item)
        if match is None or int(match[2]) < 1:
            raise ConfigError(f"heads={text!r}: expected 'kind:count,…' with counts of at least 1, got {item!r}.")
        counts.append((head_kind(match[1]).name, int(match[2])))
    if (given := sum(count for _, count in counts)) != total:
        raise ConfigError(f"heads={text!r} has {given} {but}.")
    return counts


for _kind in (
    HeadKind(
        "qisa-v1",
        "qisa-v1",
        "qkv",
        "qisa",
        qk="first",
        whole_token=True,
        summary="amplitude encoding; q, k one ⟨Z₀⟩",
    ),
    HeadKind("qisa-v2", "qisa-v2", "qkv", "qisa", whole_token=True, summary="amplitude encoding; q, k, v all circuits"),
    HeadKind("qisa-v3", "qisa-v3", summary="linear q, k; v an amplitude-encoded circuit"),
    HeadKind("qsann", "qsann", "qkv", "gaussian", qk="first", summary="QSANN: q, k one ⟨Z₀⟩, Gaussian score"),
    HeadKind("zz", "zz", summary="linear q, k; v a ZZ feature map with real amplitudes"),
    HeadKind("angle", "angle", "qkv", qk="qubits", own_maps=True, summary="RX angles; q, k, v each their own circuit"),
    HeadKind(
        "orthogonal",
        "orthogonal",
        "qkv",
        qubits=lambda head_size: head_size,
        summary="q, k, v orthogonal matrices of the unit vector: RBS pyramids in unary encoding",
    ),
    HeadKind("frozen", "qisa-v3", trainable=False, summary="control: qisa-v3 with its circuit left at random"),
    HeadKind(
        "classical",
        summary="control: linear q, k, v",
        values=lambda shape: LinearValues(),
        num_features=lambda shape: shape.head_size,
    ),
    HeadKind(
        "quadratic",
        summary="control: v a quadratic form of the unit vector",
        values=lambda shape: QuadraticValues(shape.count, 2**shape.num_qubits, shape.head_size),
        num_features=lambda shape: 2**shape.num_qubits,
    ),
    HeadKind(
        "rff",
        whole_token=True,
        summary="control: v random Fourier features with a learned readout",
        values=lambda shape: FourierValues(shape.count, shape.width, shape.head_size),
    ),
    HeadKind(
        "unit-linear",
        projections="qkv",
        summary="control: q, k, v free linear maps of the unit vector",
        values=lambda shape: UnitLinear(shape.count, shape.head_size, spread=shape.spread),
        num_features=lambda shape: shape.head_size,
    ),
    HeadKind(
        "mps",
        summary="control: v a Fourier series whose coefficients are a matrix product state",
        values=lambda shape: TensorTrainValues(shape.count, shape.num_qubits, shape.head_size, spread=shape.spread),
        num_features=lambda shape: shape.num_qubits,
    ),
):
    register_head(_kind)
