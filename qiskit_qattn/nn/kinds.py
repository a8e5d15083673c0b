"""The kinds of attention head: which of q, k and v are linear, which are circuits, and how they are scored."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from qiskit_qattn.errors import ConfigError, unknown_name
from qiskit_qattn.library.catalog import ALIASES

Score = Literal["dot", "gaussian", "qisa"]


@dataclass(frozen=True)
class HeadKind:
    """A kind of head.

    Attributes:
        name: Its name in ``heads`` strings.
        circuit: The catalog entry it runs, or None for a classical kind.
        projections: ``v``: q and k are linear and v is the kind's own map. ``qkv``: q, k and v are three circuits.
        score: How queries and keys give weights.
        qk: Which expectations are q and k where those are circuits: the first, ⟨Z₀⟩; one a qubit; or all.
        own_maps: Whether q, k and v each have a linear map of their own to their circuit's angles.
        whole_token: Whether the token itself is encoded, without a linear map.
        trainable: Whether circuit weights are trained.
        summary: What it is, in a line.
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


_ALL = (
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
    HeadKind("frozen", "qisa-v3", trainable=False, summary="control: qisa-v3 with its circuit left at random"),
    HeadKind("classical", summary="control: linear q, k, v"),
    HeadKind("quadratic", summary="control: v a quadratic form of the unit vector"),
    HeadKind("rff", summary="control: v random Fourier features with a learned readout"),
)
HEAD_KINDS = {kind.name: kind for kind in _ALL}


def parse_heads(heads: str | Sequence[str], n_layer: int, n_head: int) -> list[dict[str, int]]:
    """Parse ``kind:count,…``, one string for all layers or one a layer.

    Returns:
        For each layer, the number of heads of each kind, aliases resolved.

    Raises:
        UnknownNameError: For an unknown kind.
        ConfigError: For a malformed string, counts that do not sum to ``n_head``, or a list of another length than
            ``n_layer``.
    """
    if not isinstance(heads, str) and not (isinstance(heads, Sequence) and all(isinstance(h, str) for h in heads)):
        raise ConfigError(f"heads must be a string 'kind:count,…' or a list of them, one a layer; got {heads!r}.")
    strings = [heads] * n_layer if isinstance(heads, str) else list(heads)
    if len(strings) != n_layer:
        raise ConfigError(f"heads lists {len(strings)} layers, but n_layer is {n_layer}.")
    return [_parse_layer(text, n_head) for text in strings]


def _parse_layer(text: str, n_head: int) -> dict[str, int]:
    counts: dict[str, int] = {}
    for item in text.split(","):
        match = re.fullmatch(r"\s*([\w-]+)\s*:\s*(\d+)\s*", item)
        if match is None or int(match[2]) < 1:
            raise ConfigError(f"heads={text!r}: expected 'kind:count,…' with counts of at least 1, got {item!r}.")
        name = ALIASES.get(match[1], match[1])
        if name not in HEAD_KINDS:
            raise unknown_name("head kind", name, [*HEAD_KINDS, *ALIASES])
        counts[name] = counts.get(name, 0) + int(match[2])
    if sum(counts.values()) != n_head:
        raise ConfigError(f"heads={text!r} has {sum(counts.values())} heads a layer, but n_head is {n_head}.")
    return counts
