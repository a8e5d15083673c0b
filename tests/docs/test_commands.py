"""Command lines in the documentation: every command, option and make target in them exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from qiskit_qattn.cli.app import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md", *ROOT.glob("docs/**/*.md")]
UsageError = typer.BadParameter.__mro__[1]  # typer may bring its own click
_LINE = re.compile(r"^\s*(?:\$ )?(?!docker )(?:\S+ )*?((?:\.venv/bin/)?qattn .+|make .+)$", re.MULTILINE)
_SPAN = re.compile(r"(?<!`)`(qattn [^`]+|make [^`]+)`(?!`)")
TARGETS = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)


def command_lines(page):
    """Return the command lines of a page's code blocks, and the commands named within its sentences."""
    text = page.read_text("utf-8")
    blocks = re.findall(r"```(?:console|sh|bash)\n(.*?)```", text, re.DOTALL)
    rest = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    blocks += re.findall(r"^(?: {4}.+\n)+", rest, re.MULTILINE)
    return [line for block in blocks for line in _LINE.findall(block)], _SPAN.findall(rest)


def check(line):
    """Raise unless the command line can be parsed; nothing is run."""
    words = shlex.split(line.split(" # ")[0])
    if words[0] == "make":
        for word in words[1:]:
            name, given, value = word.partition("=")
            assert given or name in TARGETS, name
            assert all((ROOT / path).exists() for path in value.split() if path.startswith("tests/")), value
        return
    command, rest = typer.main.get_command(app), words[1:]
    context = typer.Context(command, info_name="qattn")
    while rest and hasattr(command, "commands"):
        assert rest[0] in command.commands, rest[0]
        command, rest = command.commands[rest[0]], rest[1:]
    if rest != ["--help"]:  # which every command has, and which would be shown
        command.make_context(command.name, rest, parent=context)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_command_lines_can_be_parsed(page):
    lines, spans = command_lines(page)
    for line in lines:
        check(line)
    for span in spans:
        try:
            check(span)
        except UsageError as error:  # a sentence may name a command, or an option, without what follows
            assert type(error).__name__ in ("MissingParameter", "BadOptionUsage"), span


def test_there_are_command_lines_to_check():
    found = [line for page in PAGES for line in command_lines(page)[0]]
    assert any("qattn train" in line for line in found) and any(line.startswith("make ") for line in found)


@pytest.mark.parametrize(
    "line",
    ["qattn train --no-such-option", "qattn trian", "qattn generate", "make no-such-target", "make test ARGS=tests/no"],
)
def test_a_mistake_is_found(line):
    with pytest.raises((AssertionError, UsageError)):
        check(line)
