"""The backend string: ``name[:target][?key=value&…]``, parsed in this one place."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from qiskit_qattn.errors import ConfigError, unknown_name

_FORM = re.compile(r"(?P<name>[A-Za-z][\w-]*)(?::(?P<target>[^?\s]+))?(?:\?(?P<options>\S*))?")


@dataclass(frozen=True)
class BackendSpec:
    """A parsed backend string; ``str(spec)`` is its normal form, with options in alphabetical order."""

    name: str
    target: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> BackendSpec:
        """Parse a backend string.

        Raises:
            ConfigError: For a string that is not of the form ``name[:target][?key=value&…]``.
        """
        match = _FORM.fullmatch(text.strip())
        if match is None:
            raise ConfigError(f"{text!r} is no backend string; expected name[:target][?key=value&…].")
        options: dict[str, str] = {}
        for item in filter(None, (match["options"] or "").split("&")):
            key, equals, value = item.partition("=")
            if not (key and equals and value):
                raise ConfigError(f"Backend option {item!r} in {text!r} must be of the form key=value.")
            if key in options:
                raise ConfigError(f"Backend option {key!r} is given twice in {text!r}.")
            options[key] = value
        return cls(match["name"].lower(), match["target"], dict(sorted(options.items())))

    def __str__(self) -> str:
        """Return the normal form."""
        target = f":{self.target}" if self.target else ""
        options = "&".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.name}{target}" + (f"?{options}" if options else "")

    def check_options(self, known: Mapping[str, str]) -> None:
        """Raise :class:`UnknownNameError` for an option that is not in ``known`` (names and what they mean)."""
        for key in self.options:
            if key not in known:
                raise unknown_name(f"option of backend {self.name!r}", key, known)

    def integer(self, key: str, *, minimum: int, maximum: int = 2**31 - 1) -> int | None:
        """Return an integer option, or None where it is absent.

        Raises:
            ConfigError: If it is no integer between ``minimum`` and ``maximum``.
        """
        text = self.options.get(key)
        if text is None:
            return None
        if not re.fullmatch(r"-?\d{1,100}", text) or not minimum <= int(text) <= maximum:
            raise ConfigError(
                f"Backend option {key} must be an integer of at least {minimum} and at most {maximum}, got {text!r}."
            )
        return int(text)
