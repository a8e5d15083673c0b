"""What comes from outside: files, read with bounds and checked types, and text, made safe to show."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
import re
import reprlib
import stat
import tomllib
import types
import typing
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")

MOST_TEXT = 2**30  # bytes of a corpus
MOST_RECORD = 2**28  # bytes of a JSON file: a history of a million steps
MOST_SETTINGS = 2**20  # bytes of a TOML file

#: All control characters but line break and tab, marks that reorder text, line separators, halves of surrogate pairs.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_PAIR = re.compile(r"(?i)((?<!\\)(?:\\\\)*)(\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2})")  # after no open backslash
#: What a value of each type is called in an error.
TYPE_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "a string",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}


def printable(text: str) -> str:
    r"""Return a text in which what could act on a terminal is escaped, such as ``\x1b``; line breaks and tabs stay."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def shown(value: Any) -> str:
    """Return a short ``repr`` of a value that was given, for an error."""
    try:
        return reprlib.repr(value)
    except ValueError:  # of a number with more digits than Python writes
        return f"a number of {value.bit_length():,} bits" if isinstance(value, int) else f"a {type(value).__name__}"


def one_line(text: str) -> str:
    """Return :func:`printable` text with each run of white space as one space."""
    return printable(" ".join(text.split()))


def read_bytes(path: str | os.PathLike[str], most: int = MOST_RECORD) -> bytes:
    """Return the content of a regular file.

    Args:
        path: The file.
        most: The largest size that is read, in bytes.

    Raises:
        OSError: For anything else: a name that no file can have, a folder, a device, a pipe, a larger file. Its
            ``strerror`` says which.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as stream:
            found = os.fstat(stream.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.EINVAL, "it is no regular file")
            if found.st_size > most:
                raise OSError(errno.EFBIG, f"it has {found.st_size:,} bytes, and at most {most:,} are read")
            return stream.read()
    except UnicodeEncodeError as error:
        raise OSError(errno.EILSEQ, "its name is not Unicode text") from error
    except ValueError as error:
        raise OSError(errno.EINVAL, "its name has a NUL character") from error


def _without_waiting(name: str, flags: int) -> int:
    """Open a file; a pipe to which nobody writes is opened too, instead of waiting for a writer."""
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))


def read_json(path: str | os.PathLike[str], kind: Callable[..., T] | Any = Any, *, most: int = MOST_RECORD) -> Any:
    """Return the content of a JSON file.

    Args:
        path: The file.
        kind: The type that it must have, as for :func:`as_type`.
        most: The largest size that is read, in bytes.

    Raises:
        OSError: If it cannot be read; see :func:`read_bytes`.
        ValueError: If it is not JSON, holds a number that is not finite, or has another type.
    """

    def parse(text: str) -> Any:
        return json.loads(text, parse_float=_finite, parse_constant=_finite)

    return as_type(_parsed(read_bytes(path, most), parse), kind)


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the content of a TOML file.

    Escaped surrogate pairs, as JSON has them and early versions wrote them, are read too.

    Raises:
        OSError: If it cannot be read; see :func:`read_bytes`.
        ValueError: If it is not TOML.
    """

    def parse(text: str) -> dict[str, Any]:
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            joined = _PAIR.sub(lambda found: found[1] + json.loads(f'"{found[2]}"'), text)
            if joined == text:
                raise
            return tomllib.loads(joined)

    return _parsed(read_bytes(path, MOST_SETTINGS), parse)


def _parsed(content: bytes, parse: Callable[[str], T]) -> T:
    try:
        return parse(content.decode("utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 text: {error.reason} at byte {error.start}") from error


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"it holds the number {shown(text)}, which is not finite")
    return number


def as_type(value: Any, kind: Any, where: str = "") -> Any:
    """Return a plain value, as JSON has it, as the type that a hint names.

    Objects become dataclasses, of which every field is needed, and lists, objects and typed dicts are checked item by
    item; a typed dict may hold more than its keys. A whole number is taken for a number, and nothing else is converted.

    Args:
        value: The value.
        kind: ``Any``, a plain type, a dataclass, a typed dict, or a list, dict or union of these.
        where: The name of the value, for the error.

    Raises:
        ValueError: For another type; the message says where.
    """
    if kind is Any:
        return value
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        kinds = [argument for argument in arguments if argument is not type(None)]
        for kind in kinds[:-1]:
            with suppress(ValueError):
                return as_type(value, kind, where)
        return as_type(value, kinds[-1], where)
    if origin is list and type(value) is list:
        return [as_type(item, arguments[0], f"{where}[{i}]") for i, item in enumerate(value)]
    if origin is dict and type(value) is dict:
        return {key: as_type(item, arguments[1], _inside(where, key)) for key, item in value.items()}
    if (dataclasses.is_dataclass(kind) or typing.is_typeddict(kind)) and type(value) is dict:
        return _as_record(value, kind, where)
    if kind is float and type(value) is int and abs(value) < 2**63:
        return float(value)
    if origin is None and type(value) is kind:
        return value
    words = TYPE_WORDS.get(origin or kind, "an object")
    raise ValueError(f"{where or 'it'} is {shown(value)}, but must be {words}")


def _as_record(value: dict[str, Any], kind: Any, where: str) -> Any:
    hints = typing.get_type_hints(kind)
    if typing.is_typeddict(kind):
        needed = kind.__required_keys__
    else:
        needed = hints.keys()
        for key in value.keys() - needed:
            raise ValueError(f"{_inside(where, key)} is not known")
    for key in sorted(needed - value.keys()):
        raise ValueError(f"missing key {_inside(where, key)!r}")
    found = {key: as_type(item, hints[key], _inside(where, key)) for key, item in value.items() if key in hints}
    return {**value, **found} if typing.is_typeddict(kind) else kind(**found)


def _inside(where: str, key: str) -> str:
    name = key if isinstance(key, str) and len(key) < 40 else shown(key)
    return f"{where}.{name}" if where else name
