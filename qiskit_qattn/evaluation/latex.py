"""The tables of a report in LaTeX, converted from its Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from qiskit_qattn.errors import missing_dependency
from qiskit_qattn.evaluation.drawing import PAPER
from qiskit_qattn.training.files import write_text, writing

_HEAD = "% Tables of the report beside this folder. They need the package booktabs.\n"
_NUMBER = re.compile(r"[+−\-–±×*%,.\dkMinfae ]*|\S+ to \S+")  # what a column that is set flush right holds
_MINUS = re.compile(r"(?<![\w}])-(?=[\d.])")


def write_document(folder: Path, markdown: str) -> None:
    """Write a report as ``report.md``, and its tables as ``paper/tables.tex``.

    Raises:
        RunFolderError: If they cannot be written.
        MissingDependencyError: If ``markdown-it-py``, which Rich needs, or ``pylatexenc`` is not installed.
    """
    write_text(folder / "report.md", markdown)
    with writing(folder):
        (folder / PAPER).mkdir(parents=True, exist_ok=True)
    write_text(folder / PAPER / "tables.tex", latex_tables(markdown))


def latex_tables(markdown: str) -> str:
    """Return every table of a Markdown document as a LaTeX ``tabular``, with its heading as a comment.

    Raises:
        MissingDependencyError: If ``markdown-it-py``, which Rich needs, or ``pylatexenc`` is not installed.
    """
    try:
        from markdown_it import MarkdownIt
    except ModuleNotFoundError as error:
        raise missing_dependency("markdown-it-py", "train") from error
    parts, heading, rows, row = [_HEAD], "", [], []  # type: ignore[var-annotated]
    tokens = iter(MarkdownIt("commonmark", {"html": False}).enable("table").parse(markdown))
    for token in tokens:
        if token.type == "heading_open":
            heading = next(tokens).content
        elif token.type == "table_open":
            rows = []
        elif token.type == "tr_open":
            row = []
        elif token.type in ("th_open", "td_open"):
            row.append("".join(_cell(next(tokens))))
        elif token.type == "tr_close":
            rows.append(row)
        elif token.type == "table_close":
            parts.append(f"% {' '.join(heading.split())}\n{_tabular(rows)}")
    return "\n".join(parts)


def _cell(token: Any) -> Iterator[str]:
    """Yield the parts of a cell."""
    for part in token.children or ():
        if part.type == "strong_open":
            yield r"\textbf{"
        elif part.type == "strong_close":
            yield "}"
        elif part.type == "code_inline":
            yield rf"\texttt{{{_escaped(part.content)}}}"
        elif part.type in ("text", "softbreak"):
            yield _MINUS.sub("$-$", _escaped(part.content))


def _escaped(text: str) -> str:
    """Return a text as LaTeX that shows it."""
    try:
        from pylatexenc.latexencode import UnicodeToLatexEncoder
    except ModuleNotFoundError as error:
        raise missing_dependency("pylatexenc", "train") from error
    encoder = UnicodeToLatexEncoder(unknown_char_policy="unihex", unknown_char_warning=False)
    return str(encoder.unicode_to_latex(text))


def _tabular(rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose first row is its head."""
    head, *body = rows
    columns = "".join("r" if i and all(_is_number(row[i]) for row in body) else "l" for i in range(len(head)))
    lines = [_protected(" & ".join(row)) + r" \\" for row in rows]
    begin, end = rf"\begin{{tabular}}{{{columns}}}", r"\end{tabular}"
    return "\n".join([begin, r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule", end, ""])


def _protected(line: str) -> str:
    """Return a line that is not taken for an option of the command before it, which a bracket or a star is."""
    return f"{{}}{line}" if line.startswith(("[", "*")) else line


def _is_number(cell: str) -> bool:
    """Return whether a cell holds a number, an interval or a dash."""
    text = re.sub(r"\\(textbf|pm|texttimes|textendash|ensuremath|%)|[{}$\\]", "", cell)
    return _NUMBER.fullmatch(text) is not None
