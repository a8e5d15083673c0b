"""The command line: its commands, and how errors are printed."""

from __future__ import annotations

import errno
import os
import shlex
from typing import Annotated, Any, cast

import typer

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
    profile,
    report,
    reproduce,
    run_on_device,
    serve,
    serve_keys,
    train,
)
from qiskit_qattn.cli.help import HelpCommand, HelpGroup, misuse, say
from qiskit_qattn.errors import QattnError
from qiskit_qattn.untrusted import one_line

_LONGEST = 1500  # characters of an error
_UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[1])  # typer may bring its own click


class _Group(HelpGroup):
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
            say("error: " + _shortened(one_line(text)), err=True)
            raise typer.Exit(2) from error
        except OSError as error:  # of a name that no file can have, say
            if os.environ.get("QATTN_DEBUG") or error.errno == errno.EPIPE or error.filename is None:
                raise
            say(f"error: Cannot use {_shortened(repr(error.filename))}: {error.strerror}.", err=True)
            raise typer.Exit(2) from error
        except KeyboardInterrupt as error:
            stopped_at, number = getattr(error, "folder", None), getattr(error, "signal", 2)
            if stopped_at is not None:
                say(f"{error} Resume with: qattn train --resume --out {shlex.quote(str(stopped_at))}", err=True)
            else:
                typer.echo("Interrupted.", err=True)
            raise typer.Exit(128 + number) from error


def _misused(error: typer.BadParameter) -> typer.Exit:
    """Print in one line what is wrong with the command line, and return the exit."""
    text = _shortened(one_line(misuse(error)))
    hint = f" See {error.ctx.command_path} --help." if error.ctx else ""
    say(f"error: {text}{'' if text.endswith(('.', '?')) else '.'}{hint}", err=True)
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
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("train", cls=HelpCommand)(train.command)
app.command("generate", cls=HelpCommand)(generate.command)
app.command("export", cls=HelpCommand)(export.command)
app.command("estimate", cls=HelpCommand)(estimate.command)
app.add_typer(jobs.app, name="jobs")
app.command("draw", cls=HelpCommand)(draw.command)
app.command("draw-attention", cls=HelpCommand)(draw_attention.command)
app.command("backends", cls=HelpCommand)(backends.command)
app.command("compare", cls=HelpCommand)(compare.command)
app.command("crosstalk", cls=HelpCommand)(crosstalk.command)
app.command("finetune", cls=HelpCommand)(finetune.command)
app.command("noise-sweep", cls=HelpCommand)(noise_sweep.command)
app.command("profile", cls=HelpCommand)(profile.command)
app.command("reproduce", cls=HelpCommand)(reproduce.command)
app.command("run-on-device", cls=HelpCommand)(run_on_device.command)
app.command("report", cls=HelpCommand)(report.command)
app.command("serve", cls=HelpCommand)(serve.command)
app.add_typer(serve_keys.app, name="serve-keys")


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
