from __future__ import annotations

import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import pytest

from qiskit_qattn.untrusted import as_type, one_line, printable, read_bytes, read_json, read_toml, shown


def test_what_acts_on_a_terminal_is_escaped():
    assert printable("\x1b]0;owned\x07") == r"\x1b]0;owned\x07"
    assert printable("a\r\x08b\x9b\x7f") == r"a\r\x08b\x9b\x7f"
    assert printable("\u202egpj.exe") == r"\u202egpj.exe"
    assert printable("half \ud83d") == r"half \ud83d"


def test_text_stays_text():
    text = "two\nlines\tand ψ, 量子, 😀, 👩‍🔬 and \\ too"
    assert printable(text) == text
    assert one_line(" a\n\x1bb  ") == r"a \x1bb"


def test_every_character_is_printable_or_escaped():
    for code in (*range(0x100), *range(0x2000, 0x2070), 0xD800, 0xDFFF):
        assert printable(printable(chr(code))) == printable(chr(code))
        if unicodedata.category(chr(code)) in ("Cc", "Cs", "Zl", "Zp") and chr(code) not in "\n\t":
            assert printable(chr(code)).isascii() and printable(chr(code)).isprintable()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("/dev/zero", "no regular file"),
        ("pipe", "no regular file"),
        (".", "directory"),
        ("a\0b", "NUL"),
        ("x" * 5000, "too long"),
        ("half \ud83d", "Unicode"),
        ("no such file", "No such file"),
    ],
)
def test_what_is_no_file_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, told: str):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    with pytest.raises(OSError) as error:
        read_bytes(name)
    assert told in str(error.value.strerror)


def test_a_larger_file_is_not_read(tmp_path: Path):
    with (tmp_path / "large").open("wb") as stream:
        stream.truncate(2**40)
    with pytest.raises(OSError, match=r"1,099,511,627,776 bytes"):
        read_bytes(tmp_path / "large")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[" * 100_000, "nested too deeply"),
        ("9" * 5000, "digits"),
        ("[NaN]", "not finite"),
        ("[1e999]", "not finite"),
        ("[-Infinity]", "not finite"),
        ("{", "Expecting"),
        (b"\xff", "UTF-8"),
    ],
)
def test_what_is_no_json_is_a_value_error(tmp_path: Path, content: str | bytes, told: str):
    (tmp_path / "x").write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ValueError, match=told):
        read_json(tmp_path / "x")


@pytest.mark.parametrize("content", ["a = " + "[" * 100_000, "a = " + "9" * 5000, "a = ", "\xff"])
def test_what_is_no_toml_is_a_value_error(tmp_path: Path, content: str):
    (tmp_path / "x").write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError):
        read_toml(tmp_path / "x")


class Item(TypedDict):
    name: str
    sizes: list[int] | None


@dataclass
class Whole:
    share: float
    items: dict[str, Item]
    label: str | list[str] = "none"


RIGHT: dict[str, Any] = {"share": 1, "items": {"a": {"name": "b", "sizes": [1], "more": 2}}, "label": ["x"]}


def test_plain_values_become_the_types_they_are_told_to_be():
    whole = as_type(RIGHT, Whole)
    assert whole == Whole(1.0, {"a": {"name": "b", "sizes": [1], "more": 2}}, ["x"])  # type: ignore[typeddict-unknown-key]
    assert type(whole.share) is float


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"share": True}, "share is True, but must be a number"),
        ({"share": 10**400}, "share"),
        ({"share": "1"}, "share is '1', but must be a number"),
        ({"items": []}, "items is [], but must be an object"),
        ({"items": {"a": {"name": "b"}}}, "missing key 'items.a.sizes'"),
        ({"items": {"a": {"name": 1, "sizes": None}}}, "items.a.name is 1, but must be a string"),
        ({"items": {"a": {"name": "b", "sizes": [1, 2.5]}}}, "items.a.sizes[1] is 2.5, but must be a whole number"),
        ({"label": [None]}, "label[0] is None, but must be a string"),
        ({"other": 1}, "other is not known"),
    ],
)
def test_another_type_is_told_with_its_place(change: dict[str, Any], told: str):
    with pytest.raises(ValueError) as error:
        as_type({**RIGHT, **change}, Whole)
    assert told in str(error.value)
    assert len(str(error.value)) < 200


def test_a_number_without_digits_is_shown():
    assert shown(10**5000) == "a number of 16,610 bits"
    assert len(shown("x" * 1000)) < 60


@pytest.mark.parametrize("text", [r'a = "\ud83d"', r'a = "\ude00\ud83d"', r'a = "\\\ud83dx"', r'a = "\ud83d\ude00'])
def test_what_is_no_surrogate_pair_is_still_no_toml(tmp_path: Path, text: str):
    (tmp_path / "file.toml").write_text(text)
    with pytest.raises(ValueError, match=r"line 1|end of document"):
        read_toml(tmp_path / "file.toml")


def test_a_literal_text_stays_as_it_is(tmp_path: Path):
    (tmp_path / "file.toml").write_text(r"a = '\ud83d\ude00'")
    assert read_toml(tmp_path / "file.toml") == {"a": r"\ud83d\ude00"}
