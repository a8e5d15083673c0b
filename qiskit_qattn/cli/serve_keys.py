"""``qattn serve-keys``: the keys of ``qattn serve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from qiskit_qattn.cli.help import HelpCommand, HelpGroup

app = typer.Typer(cls=HelpGroup, rich_markup_mode=None)
_Name = Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is.", show_default=False)]
_File = Annotated[Path, typer.Option("--keys", help="The file of keys.", envvar="QATTN_SERVE_KEYS", show_default=False)]


@app.callback(invoke_without_command=True)
def serve_keys(ctx: typer.Context) -> None:
    """Create, list or revoke the keys of qattn serve; running servers apply changes at the next request."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


@app.command("create", cls=HelpCommand)
def create(
    name: _Name,
    keys: _File,
    requests_per_minute: Annotated[
        int | None, typer.Option(help="Its own limit; 0: none.", min=0, show_default="the server's")
    ] = None,
    tokens_per_minute: Annotated[
        int | None, typer.Option(help="Its own limit; 0: none.", min=0, show_default="the server's")
    ] = None,
) -> None:
    """Create a key and print it once: the file stores only its hash, and is created if it is missing."""
    from qiskit_qattn.serving.keys import create_key

    typer.echo(create_key(keys, name, requests=requests_per_minute, tokens=tokens_per_minute))
    typer.echo(f"This is the key of {name}. It is not stored: keep it.", err=True)


@app.command("list", cls=HelpCommand)
def list_keys(keys: _File) -> None:
    """List the keys, revoked ones included."""
    from qiskit_qattn.serving.keys import read_keys

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("name", "created", "revoked", "requests/min", "tokens/min"):
        table.add_column(column, overflow="fold")
    for key in read_keys(keys):
        limits = (
            "server's" if most is None else str(most) for most in (key.requests_per_minute, key.tokens_per_minute)
        )
        table.add_row(*map(Text, (key.name, key.created or "-", key.revoked or "-", *limits)))
    Console(highlight=False).print(table)


@app.command("revoke", cls=HelpCommand)
def revoke(name: _Name, keys: _File) -> None:
    """Revoke a key."""
    from qiskit_qattn.serving.keys import revoke_key

    revoke_key(keys, name)
    typer.echo(f"The key of {name} is revoked.")
