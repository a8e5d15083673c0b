"""Help texts of the commands, what is said of a command line that cannot be read, and lines that fit a terminal.

Options stand under the heading of their panel, with their texts over the whole width: typer's own tables leave a column
of 20 characters on a terminal of 80, and cut words and commands' descriptions.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from textwrap import fill
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

_COLUMN = 30  # characters of the column of options


def say(text: str, *, err: bool = False) -> None:
    """Print a text; on a terminal its lines end between words, elsewhere they stay as they are."""
    stream = sys.stderr if err else sys.stdout
    if stream.isatty():
        width = shutil.get_terminal_size().columns
        lines = (fill(line, width, break_long_words=False, break_on_hyphens=False) for line in text.splitlines())
        text = "\n".join(lines)
    typer.echo(text, err=err)


class HelpCommand(TyperCommand):
    """A command whose help groups options by their panels."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the parts of the usage line; an argument that is required stands without braces."""
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options."""
        _write_options(self.get_params(ctx), ctx, formatter)


class HelpGroup(TyperGroup):
    """Commands whose help gives the whole first paragraph of each."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options, then the commands."""
        _write_options(self.get_params(ctx), ctx, formatter)
        self.format_commands(ctx, formatter)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands, each with what it does."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, _first_paragraph(command.help)) for name, command in self.commands.items()])


def _write_options(params: Iterable[Any], ctx: Any, formatter: Any) -> None:
    """Write arguments and options under their headings."""
    panels: dict[str, list[tuple[str, str]]] = {}
    for param in sorted(params, key=lambda param: param.param_type_name != "argument"):
        if (record := param.get_help_record(ctx)) is not None:
            usual = "Arguments" if param.param_type_name == "argument" else "Options"
            panels.setdefault(getattr(param, "rich_help_panel", None) or usual, []).append(record)
    for name, rows in panels.items():
        with formatter.section(name):
            formatter.write_dl(rows, col_max=_COLUMN)


def _first_paragraph(text: str | None) -> str:
    return " ".join((text or "").strip().partition("\n\n")[0].split())


def misuse(error: typer.BadParameter) -> str:
    """Return in a sentence what is wrong with a command line, with the nearest option for one that does not exist."""
    given = getattr(error, "option_name", None)
    if given is None or not hasattr(error, "possibilities") or error.ctx is None:
        return error.format_message().replace("Value error, ", "", 1)  # pydantic's, with which typer reads values
    params = error.ctx.command.get_params(error.ctx)
    near = nearest_options(given, [name for param in params for name in (*param.opts, *param.secondary_opts)])
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return f"No such option: {given}.{hint}"


def nearest_options(given: str, known: Sequence[str]) -> list[str]:
    """Return the options that somebody may have meant: by their initials, by one of their words, else by spelling.

    Args:
        given: What was given, such as ``--lr``.
        known: The options that there are.
    """
    word = given.lstrip("-").replace("_", "-").lower()
    names = {name.lstrip("-"): name for name in known if name.startswith("--")}
    tests = (
        lambda name: name == word or "".join(part[0] for part in name.split("-")) == word,
        lambda name: len(word) > 2 and name.startswith(word),
        lambda name: len(word) > 2 and (word in name.split("-") or set(word.split("-")) > set(name.split("-"))),
    )
    for test in tests:
        if found := [full for name, full in names.items() if test(name)]:
            return found[:3]
    return [names[name] for name in get_close_matches(word, names, n=1, cutoff=0.7)]
