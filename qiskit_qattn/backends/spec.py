"""The backend string: ``name[:target][?key=value&…]``, and groups and chains of them, parsed in this one place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self, cast, get_args
from urllib.parse import quote, unquote

from qiskit_qattn.errors import ConfigError, unknown_name
from qiskit_qattn.untrusted import shown

_FORM = re.compile(r"(?P<name>[A-Za-z][\w-]*)(?::(?P<target>[^?\s]+))?(?:\?(?P<options>\S*))?")
_NUMBER = re.compile(r"[+-]?\d{1,15}(\.\d{0,15})?([eE][+-]?\d{1,2})?")
_PLAIN = "/:,.;+*@!$'()[]"  # what quoting leaves alone besides letters, digits and -_~

End = Literal["raise", "classical"]
ARROW, PLUS = "->", "+"
_BETWEEN = re.compile(r"(?:^|\s)\+(?=\s|$)")  # with spaces around it: values may hold a plus sign


@dataclass(frozen=True)
class BackendSpec:
    """A parsed backend string.

    ``str(spec)`` is its normal form: the name in lower case, options in alphabetical order, and numbers written one
    way, so that ``p1=1e-3`` and ``p1=0.0010`` are the same. In values ``%26`` stands for ``&``, and ``%20`` for a
    space, as in URLs. Strings of the same form with another meaning are subclasses.
    """

    noun: ClassVar[str] = "backend"
    example: ClassVar[str] = "statevector?shots=1024"

    name: str
    target: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a string.

        Raises:
            ConfigError: For one that is not of the form ``name[:target][?key=value&…]``, such as a chain.
        """
        if not isinstance(text, str):
            raise ConfigError(f"A {cls.noun} is named by a string such as {cls.example!r}, got {shown(text)}.")
        match = _FORM.fullmatch(text.strip())
        option = f"{cls.noun.capitalize()} option"
        if cls.noun != BackendSpec.noun:
            if match is None or match["target"]:
                raise ConfigError(f"{text!r} is no {cls.noun} string; expected name[?key=value&…].")
        elif ARROW in text or _BETWEEN.search(text):
            what = "chain" if ARROW in text else "group"
            raise ConfigError(
                f"{text!r} is a {what} of backends, and one is expected here. Models and heads take {what}s, and close "
                f"their sessions after a with statement: with model.to_backend({text!r})."
            )
        if match is None:
            hint = f" Backends of a group have spaces around the {PLUS}." if PLUS in text else ""
            raise ConfigError(f"{text!r} is no backend string; expected name[:target][?key=value&…].{hint}")
        options: dict[str, str] = {}
        for item in filter(None, (match["options"] or "").split("&")):
            key, equals, value = item.partition("=")
            if not (key and equals and value):
                raise ConfigError(f"{option} {item!r} in {text!r} must be of the form key=value.")
            if key in options:
                raise ConfigError(f"{option} {key!r} is given twice in {text!r}.")
            options[key] = _normal(unquote(value))
        return cls(match["name"].lower(), match["target"], dict(sorted(options.items())))

    def __str__(self) -> str:
        """Return the normal form."""
        target = f":{self.target}" if self.target else ""
        options = "&".join(f"{key}={quote(value, safe=_PLAIN)}" for key, value in self.options.items())
        return f"{self.name}{target}" + (f"?{options}" if options else "")

    def check_options(self, known: Mapping[str, str]) -> None:
        """Raise :class:`UnknownNameError` for an option that is not in ``known`` (names and what they mean)."""
        for key in self.options:
            if key not in known:
                raise unknown_name(f"option of {self.noun} {self.name!r}:", key, known)

    def refuse(self, keys: Iterable[str], why: str) -> None:
        """Raise :class:`ConfigError` for the first of ``keys`` that is given, in words such as "is for AWS devices"."""
        for key in keys:
            if key in self.options:
                raise ConfigError(f"Backend option {key} {why}, but the target of {str(self)!r} is {self.target}.")

    def integer(self, key: str, *, minimum: int, maximum: int = 2**31 - 1) -> int | None:
        """Return an integer option, or None where it is absent.

        Raises:
            ConfigError: If it is no integer between ``minimum`` and ``maximum``.
        """
        text = self.options.get(key)
        if text is None:
            return None
        if not re.fullmatch(r"-?\d{1,100}", text) or not minimum <= int(text) <= maximum:
            option = f"{self.noun.capitalize()} option {key}"
            raise ConfigError(f"{option} must be an integer of at least {minimum} and at most {maximum}, got {text!r}.")
        return int(text)


@dataclass(frozen=True)
class BackendGroup:
    """Backends that share the work; at least two, none of them twice.

    Raises:
        ConfigError: For a backend that is there twice, whatever its options.
    """

    members: tuple[BackendSpec, ...]

    def __post_init__(self) -> None:
        names = [str(BackendSpec(each.name, each.target)) for each in self.members]
        plain = [name if each.target else str(each) for name, each in zip(names, self.members, strict=True)]
        check_distinct(plain, str(self))

    def __str__(self) -> str:
        """Return the normal form."""
        return f" {PLUS} ".join(map(str, self.members))


def check_distinct(devices: Iterable[str], group: str) -> None:
    """Raise :class:`ConfigError` if a device is twice in a group."""
    seen: set[str] = set()
    for device in devices:
        if device in seen:
            raise ConfigError(f"{device} is in the group {group!r} more than once; name each device once.")
        seen.add(device)


@dataclass(frozen=True)
class BackendChain:
    """Backends to try one after another, and what to do when the last has failed.

    Attributes:
        links: The backends, or groups of them, first choice first; at least one.
        end: ``raise`` the last error, or compute the ``classical`` twin of the head.
    """

    links: tuple[BackendSpec | BackendGroup, ...]
    end: End = "raise"

    @property
    def specs(self) -> list[tuple[BackendSpec, ...]]:
        """The backends of each link."""
        return [each.members if isinstance(each, BackendGroup) else (each,) for each in self.links]

    def __str__(self) -> str:
        """Return the normal form, which leaves ``raise`` out."""
        last = [] if self.end == "raise" else [self.end]
        return f" {ARROW} ".join([*map(str, self.links), *last])


def parse_chain(text: str) -> BackendChain:
    """Parse backend strings with ``->`` between them; the last may be ``classical``, or ``raise``, the default.

    A link may be a group, backend strings with ``+`` and spaces around it between them.

    Raises:
        ConfigError: For an empty or malformed link, one with the same device twice, or ``raise`` or ``classical``
            anywhere but at the end.
    """
    if not isinstance(text, str):
        raise ConfigError(f"A backend is named by a string such as {BackendSpec.example!r}, got {shown(text)}.")
    parts = [part.strip() for part in text.split(ARROW)]
    end: End = "raise"
    if len(parts) > 1 and parts[-1].lower() in get_args(End):
        end = cast("End", parts.pop().lower())
    if "" in parts:
        raise ConfigError(f"{text!r} has an empty link; expected backend strings with {ARROW} between them.")
    return BackendChain(tuple(_parse_link(part, text) for part in parts), end)


def _parse_link(text: str, chain: str) -> BackendSpec | BackendGroup:
    parts = [part.strip() for part in _BETWEEN.split(text)]
    if "" in parts:
        raise ConfigError(
            f"{chain!r} has an empty place in a group; expected backend strings with {PLUS} between them."
        )
    for part in parts:
        if part.lower() in get_args(End):
            raise ConfigError(
                f"{part!r} in {chain!r} is no backend; it can only end a chain, as in statevector {ARROW} {part}."
            )
    specs = tuple(BackendSpec.parse(part) for part in parts)
    return specs[0] if len(specs) == 1 else BackendGroup(specs)


def _normal(value: str) -> str:
    """Return the one way to write a number; other values stay as they are."""
    if not _NUMBER.fullmatch(value):
        return value
    return repr(float(value) + 0.0).removesuffix(".0")
