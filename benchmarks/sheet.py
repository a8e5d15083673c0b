"""Tables for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rows import Row, number


@dataclass(frozen=True)
class Sheet:
    """A table of text; ``notes`` follow it, ``picture`` is a file beside the results."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    picture: str = ""

    def markdown(self) -> str:
        lines = [f"## {self.title}", ""]
        if self.picture:
            lines += [f"![{self.title}]({self.picture})", ""]
        lines += ["| " + " | ".join(self.header) + " |", "|" + " --- |" * len(self.header)]
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        lines += ["", *(f"- {note}" for note in self.notes)] if self.notes else []
        return "\n".join(lines) + "\n"

    def show(self, console: Console) -> None:
        table = Table(title=self.title, title_justify="left")
        for i, name in enumerate(self.header):
            table.add_column(name, justify="left" if i < 2 else "right", overflow="fold")
        for row in self.rows:
            table.add_row(*row)
        console.print(table)
        for note in self.notes:
            console.print(f"  {note}", highlight=False)


def ratio_sheet(title: str, rows: Sequence[Row]) -> Sheet:
    """Return the rows as one table; notes of rows become numbered footnotes."""
    notes = list(dict.fromkeys(row.note for row in rows if row.note))
    cells = []
    for row in rows:
        mark = f" [{notes.index(row.note) + 1}]" if row.note else ""
        spread = f"{number(row.figure.low)} – {number(row.figure.high)}"
        goal = "" if row.goal is None else f"{row.goal} {'✓' if row.goal.met(row.figure.median) else '✗'}"
        figure = f"{number(row.figure.median)} {row.unit}"
        cells.append((row.case + mark, row.against, row.ours, row.theirs, figure, spread, goal))
    header = ("case", "against", "ours", "theirs", "figure", "quartiles", "goal")
    return Sheet(title, header, cells, [f"[{i}] {note}" for i, note in enumerate(notes, start=1)])
