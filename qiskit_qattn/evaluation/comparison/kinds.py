"""The kinds of a comparison: how a list of them is read, and what distinguishes two.

A kind is a kind of head (``qisa``), or a mix of them as in ``heads`` (``qisa:2,classical:2``). In a comparison of
custom models, those that a user's build function returns, it is any name that the function understands, written the
same way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from qiskit_qattn.errors import ConfigError
from qiskit_qattn.nn.kinds import head_kind

_LONGEST = 100  # characters of a kind, which names a folder
_CUSTOM = re.compile(r"\w[\w.-]*(:\w[\w.-]*)?")
_COUNTED = re.compile(r"([\w-]+):([0-9]{1,9})")


def split_kinds(text: str) -> list[str]:
    """Return the kinds that a text lists.

    Kinds are separated by commas, semicolons or white space. Items with a count that follow one another after commas
    are one mix: ``qisa,rff;qisa:2,classical:2`` are three kinds.
    """
    found: list[str] = []
    for part in re.split(r"[;\s]+", re.sub(r"\s*,\s*", ",", text)):
        mixed = False
        for item in filter(None, part.split(",")):
            if mixed and ":" in item:
                found[-1] += f",{item}"
            else:
                found.append(item)
            mixed = ":" in item
    return found


def joined_kinds(kinds: Sequence[str]) -> str:
    """Return kinds as a text that :func:`split_kinds` reads."""
    mixed = any(":" in kind for kind in kinds)
    return (";" if mixed else ",").join(kinds)


def parse_kinds(text: str, reference: str, *, custom: bool = False) -> tuple[tuple[str, ...], str]:
    """Return the kinds that a text lists, the reference first, and the reference; all under the names given.

    Args:
        text: The kinds, as for :func:`split_kinds`.
        reference: One kind; it is added if the text does not list it.
        custom: Whether a user's build function interprets them, so that they need not be kinds of head.

    Raises:
        UnknownNameError: For an unknown kind.
        ConfigError: For a kind named twice, or no kind besides the reference.
    """
    identity = _custom_identity if custom else _identity
    named: dict[str, str] = {}
    for name in split_kinds(text):
        if (same := named.get(identity(name))) is not None:
            raise ConfigError(f"--kinds {text!r} names one kind twice: {same} and {name}.")
        named[identity(name)] = name
    against = split_kinds(reference)
    if len(against) != 1:
        raise ConfigError(f"--reference {reference!r} must be one kind, such as classical or qisa:2,classical:2.")
    chosen = named.pop(identity(against[0]), against[0])
    if not named:
        raise ConfigError(f"--kinds {text!r} names no kind to compare with the reference {chosen}.")
    return (chosen, *named.values()), chosen


def kind_heads(kind: str, n_head: int) -> str:
    """Return the ``heads`` of a model of ``n_head`` heads per layer of this kind."""
    return kind if ":" in kind else f"{kind}:{n_head}"


def head_counts(kind: str) -> dict[str, int]:
    """Return the kinds of head in a kind by their own names, with their numbers; 0 for one that all heads are of.

    Raises:
        UnknownNameError: For an unknown kind of head.
        ConfigError: For another form.
    """
    if ":" not in kind:
        return {head_kind(kind).name: 0}
    counts: dict[str, int] = {}
    for item in kind.split(","):
        match = _COUNTED.fullmatch(item)
        if match is None or int(match[2]) < 1:
            raise ConfigError(f"The kind {kind!r}: expected 'kind:count,…' with counts of at least 1, got {item!r}.")
        name = head_kind(match[1]).name
        counts[name] = counts.get(name, 0) + int(match[2])
    return counts


def has_circuit(kind: str) -> bool:
    """Return whether some head of a kind is a circuit."""
    return any(head_kind(name).circuits for name in head_counts(kind))


def control_name(kind: str) -> str | None:
    """Return the dequantised control of a kind: the same heads without circuits.

    Returns:
        Its name; None for a kind without circuits, or with a head that has no control.
    """
    heads = [(head_kind(name), count) for name, count in head_counts(kind).items()]
    if not any(head.circuits for head, _ in heads) or any(head.circuits and not head.control for head, _ in heads):
        return None
    counts: dict[str, int] = {}
    for head, count in heads:
        name = head.control if head.circuits else head.name
        counts[name] = counts.get(name, 0) + count
    return ",".join(f"{name}:{count}" if count else name for name, count in counts.items())


def control_of(kind: str, among: Iterable[str]) -> str | None:
    """Return which of some kinds is the dequantised control of one, by the name it has among them; None if none is."""
    name = control_name(kind)
    return None if name is None else next((other for other in among if _identity(other) == _identity(name)), None)


def comparisons(kinds: Sequence[str], reference: str, *, custom: bool = False) -> list[tuple[str, str]]:
    """Return what is compared in a study: each kind with the reference, and each circuit with its control.

    Args:
        kinds: The kinds, the reference among them.
        reference: The reference.
        custom: Whether a user's build function interprets them, so that nothing is known of circuits.
    """
    return [
        (kind, against)
        for kind in kinds
        for against in dict.fromkeys((reference, None if custom else control_of(kind, kinds)))
        if against is not None and against != kind
    ]


def folder_name(kind: str) -> str:
    """Return a kind as a part of a file name that every system takes; different kinds have different ones."""
    return kind.replace(":", "=").replace(",", "+")


def _identity(kind: str) -> str:
    """Return a text that is the same for two names of one kind."""
    counts = head_counts(kind)
    if len(counts) == 1:
        return next(iter(counts))  # the number of heads of a layer, if it is given, is the model's
    return ",".join(f"{name}:{count}" for name, count in sorted(counts.items()))


def _custom_identity(kind: str) -> str:
    """Check the name of a kind of custom models, and return it without case, which some file systems ignore."""
    if len(kind) > _LONGEST or not all(_CUSTOM.fullmatch(item) for item in kind.split(",")):
        raise ConfigError(
            f"The kind {kind[:_LONGEST]!r} must consist of letters, digits and _ . -, as in name or name:2,other:2, and"
            f" have at most {_LONGEST} characters."
        )
    return kind.casefold()
