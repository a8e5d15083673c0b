"""The registry of head kinds: those of this package, what a program registers, and what packages bring."""

from __future__ import annotations

import copyreg
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import get_args

from torch import nn

from qiskit_qattn.errors import ConfigError, counted, unknown_name
from qiskit_qattn.library.attention_circuit import AttentionCircuit
from qiskit_qattn.library.catalog import ALIASES, CATALOG, attention_circuit, register_circuit
from qiskit_qattn.library.pairs import Comparison
from qiskit_qattn.nn.controls import FourierValues, LinearValues, QuadraticValues, TensorTrainValues, UnitLinear
from qiskit_qattn.nn.head_kind import HeadKind, Score
from qiskit_qattn.nn.pair_kinds import PAIR_KINDS
from qiskit_qattn.nn.quixer import QUIXER, REFLECTIONS
from qiskit_qattn.nn.value_kinds import VALUE_KINDS
from qiskit_qattn.untrusted import shown

GROUP = "qiskit_qattn.heads"


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
        ConfigError: For a name that cannot stand in a ``heads`` string or is taken by another kind, a kind with
            neither a circuit nor a value map, pairs whose queries and keys are not linear or have another score, or a
            score of states without pairs.
    """
    if not isinstance(kind, HeadKind):
        raise ConfigError(f"register_head takes a HeadKind, got {shown(kind)}, as in HeadKind('mine', circuit='zz').")
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
            raise unknown_name(f"{field} of head kind {kind.name!r}:", str(getattr(kind, field)), allowed)
    if kind.circuit is not None and kind.recipe is None and kind.circuit not in CATALOG:
        raise unknown_name(f"circuit of head kind {kind.name!r}:", kind.circuit, CATALOG)
    if (pairs := kind.pairs) is not None:
        if kind.projections != "v" or kind.mixer is not None:
            raise ConfigError(f"Head kind {kind.name!r} compares linear queries and keys: projections must be 'v'.")
        if pairs.comparison not in get_args(Comparison):
            raise unknown_name(f"comparison of head kind {kind.name!r}:", str(pairs.comparison), get_args(Comparison))
        if kind.score != pairs.score:
            raise ConfigError(f"Head kind {kind.name!r}: the score of pairs {pairs.comparison!r} is {pairs.score!r}.")
        if pairs.circuit is not None and pairs.circuit not in CATALOG:
            raise unknown_name(f"circuit of pairs of head kind {kind.name!r}:", pairs.circuit, CATALOG)
    elif kind.score in ("overlap", "complex"):
        raise ConfigError(f"Head kind {kind.name!r}: score {kind.score!r} is of states; give pairs, which make them.")
    maps = kind.values is not None or kind.mixer is not None
    if kind.circuit is None and not (maps and (kind.num_features is not None or kind.whole_token)):
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


def _reduced(kind: HeadKind) -> tuple[Callable[[str], HeadKind], tuple[str]]:
    return head_kind, (kind.name,)


copyreg.pickle(HeadKind, _reduced)  # a kind pickles and copies as its name


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
        raise ConfigError(f"heads lists {counted(len(strings), 'layer')}, but n_layer is {n_layer}.")
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
        control="quadratic",
    ),
    HeadKind(
        "qisa-v2",
        "qisa-v2",
        "qkv",
        "qisa",
        whole_token=True,
        summary="amplitude encoding; q, k, v all circuits",
        control="quadratic",
    ),
    HeadKind("qisa-v3", "qisa-v3", summary="linear q, k; v an amplitude-encoded circuit", control="quadratic"),
    HeadKind(
        "qsann",
        "qsann",
        "qkv",
        "gaussian",
        qk="first",
        summary="QSANN: q, k one ⟨Z₀⟩, Gaussian score",
        control="rff",
    ),
    HeadKind("zz", "zz", summary="linear q, k; v a ZZ feature map with real amplitudes", control="rff"),
    HeadKind(
        "angle",
        "angle",
        "qkv",
        qk="qubits",
        own_maps=True,
        summary="RX angles; q, k, v each their own circuit",
        control="mps",
    ),
    HeadKind(
        "orthogonal",
        "orthogonal",
        "qkv",
        qubits=lambda head_size: head_size,
        summary="q, k, v orthogonal matrices of the unit vector: RBS pyramids in unary encoding",
        control="unit-linear",
    ),
    HeadKind(
        "frozen",
        "qisa-v3",
        trainable=False,
        summary="control: qisa-v3 with its circuit left at random",
        control="quadratic",
    ),
    HeadKind(
        "butterfly",
        "butterfly",
        "qkv",
        qubits=lambda head_size: head_size,
        summary="as orthogonal, with RBS in a butterfly of log₂ h layers",
        control="unit-linear",
    ),
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
        values=lambda shape: UnitLinear((3, shape.count), shape.head_size, shape.head_size, spread=shape.spread),
        num_features=lambda shape: shape.head_size,
    ),
    HeadKind(
        "mps",
        summary="control: v a Fourier series whose coefficients are a matrix product state",
        values=lambda shape: TensorTrainValues(shape.count, shape.num_qubits, shape.head_size, spread=shape.spread),
        num_features=lambda shape: shape.num_qubits,
    ),
    QUIXER,
    REFLECTIONS,
    *PAIR_KINDS,
    *VALUE_KINDS,
):
    register_head(_kind)
