"""``qattn backends``: the backends and their options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from qiskit_qattn.errors import BackendError
from qiskit_qattn.untrusted import printable

if TYPE_CHECKING:
    from qiskit_qattn.backends.registry import Registration


def command(
    name: Annotated[
        str | None, typer.Argument(metavar="BACKEND", help="A backend, to list its options.", show_default=False)
    ] = None,
) -> None:
    """List the backends, or describe the options of one.

    A backend string is name[:target][?option=value&option=value…].
    """
    from qiskit_qattn.backends.registry import registration

    console = Console(highlight=False)
    if name is None:
        console.print(_table())
        console.print(Text("qattn backends NAME describes the options of a backend.", style="dim"))
    else:
        console.print(_details(registration(name.lower())))


def _table() -> Table:
    """Return all backends, one per row; those that are not installed say how to install them."""
    from qiskit_qattn.backends.registry import list_backends, registration

    table = Table(box=SIMPLE_HEAD, pad_edge=False, leading=1)
    table.add_column("backend", no_wrap=True, style="bold")
    table.add_column("runs circuits on", ratio=3)
    table.add_column("options", ratio=2)
    for name in list_backends():
        try:
            found = registration(name)
        except BackendError as error:  # a broken package must not hide the others
            table.add_row(_text(name), _text(str(error), "red"), Text(""))
            continue
        about = [_text(found.provider.summary)]
        if found.provider.targets:
            about.append(_text(f"target: {found.provider.targets}", "dim"))
        if found.provider.missing():
            about.append(_text(_install(found), "yellow"))
        table.add_row(_text(name), Group(*about), _text(", ".join(found.provider.options)))
    return table


def _details(found: Registration) -> Group:
    """Return the target and the options of a backend."""
    provider = found.provider
    about = printable(f": {provider.summary}. From the package {found.package}.")
    lines = [Text.assemble((printable(found.name), "bold"), about)]
    if provider.targets:
        lines.append(_text(f"Target: {provider.targets}."))
    if provider.missing():
        lines.append(_text(_install(found) + ".", "yellow"))
    options = Table(box=SIMPLE_HEAD, pad_edge=False)
    options.add_column("option", no_wrap=True, style="bold")
    options.add_column("meaning")
    for key, meaning in provider.options.items():
        options.add_row(_text(key), _text(meaning))
    return Group(*lines, options) if provider.options else Group(*lines, Text("It has no options."))


def _text(text: str, style: str = "") -> Text:
    """Return a text of a package, other people's too."""
    return Text(printable(str(text)), style=style)


def _install(found: Registration) -> str:
    return f'not installed: {", ".join(found.provider.missing())}; pip install "{found.requirement}"'
