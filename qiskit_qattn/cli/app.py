"""The command line: its commands, and how errors are printed."""

from __future__ import annotations

import errno
import os
import shlex
from typing import Annotated, Any, cast

import typer
from typer.core import TyperGroup

from qiskit_qattn import __version__
from qiskit_qattn.cli import (
    backends,
    compare,
    crosstalk,
    draw,
    draw_attention,
    estimate,
    export,
    finetune,
    generate,
    jobs,
    noise_sweep,
    report,
    reproduce,
    run_on_device,
    train,
)
from qiskit_qattn.errors import QattnError
from qiskit_qattn.untrusted import one_line

_LONGEST = 1500  # characters of an error
_UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[1])  # typer may bring its own click


class _Group(TyperGroup):
    """Commands whose errors end in one line on stderr and exit code 2; ``QATTN_DEBUG=1`` shows the traceback."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the options before the command."""
        if not args:
            return super().parse_args(ctx, args)  # shows the help
        try:
            return super().parse_args(ctx, args)
        except _UsageError as error:
            raise _misused(error) from error

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except _UsageError as error:
            raise _misused(error) from error
        except QattnError as error:
            if os.environ.get("QATTN_DEBUG"):
                raise
            text = " ".join([str(error), *getattr(error, "__notes__", ())])
            typer.echo("error: " + _shortened(one_line(text)), err=True)
            raise typer.Exit(2) from error
        except OSError as error:  # of a name that no file can have, say
            if os.environ.get("QATTN_DEBUG") or error.errno == errno.EPIPE or error.filename is None:
                raise
            typer.echo(f"error: Cannot use {_shortened(repr(error.filename))}: {error.strerror}.", err=True)
            raise typer.Exit(2) from error
        except KeyboardInterrupt as error:
            stopped_at, number = getattr(error, "folder", None), getattr(error, "signal", 2)
            if stopped_at is not None:
                typer.echo(f"{error} Resume with: qattn train --resume --out {shlex.quote(str(stopped_at))}", err=True)
            else:
                typer.echo("Interrupted.", err=True)
            raise typer.Exit(128 + number) from error


def _misused(error: typer.BadParameter) -> typer.Exit:
    """Print in one line what is wrong with the command line, and return the exit."""
    hint = f" See {error.ctx.command_path} --help." if error.ctx else ""
    typer.echo("error: " + _shortened(one_line(error.format_message())).rstrip(".") + "." + hint, err=True)
    return typer.Exit(2)


def _shortened(text: str) -> str:
    """Return a text that may quote what was given, at most :data:`_LONGEST` characters of it."""
    half = _LONGEST // 2
    return text if len(text) <= _LONGEST else f"{text[:half]}…{text[-half:]}"


app = typer.Typer(
    name="qattn",
    cls=_Group,
    help="Train, run and examine transformers with quantum attention heads.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("train")(train.command)
app.command("generate")(generate.command)
app.command("export")(export.command)
app.command("estimate")(estimate.command)
app.add_typer(jobs.app, name="jobs")
app.command("draw")(draw.command)
app.command("draw-attention")(draw_attention.command)
app.command("backends")(backends.command)
app.command("compare")(compare.command)
app.command("crosstalk")(crosstalk.command)
app.command("finetune")(finetune.command)
app.command("noise-sweep")(noise_sweep.command)
app.command("reproduce")(reproduce.command)
app.command("run-on-device")(run_on_device.command)
app.command("report")(report.command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"qattn {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options before a command."""
