"""``qattn reproduce``: run a published claim again, and compare the results."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qiskit_qattn.cli.help import say
from qiskit_qattn.cli.options import TRAINING, require

if TYPE_CHECKING:
    from qiskit_qattn.evaluation.reproduction.runs import Reproduction


def command(
    claim: Annotated[
        str,
        typer.Argument(
            metavar="CLAIM", help="qisa-leak, gpt-nano, qisa-speed, nanogpt, qasa or qasa-circuit.", show_default=False
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="The folder of the runs and the report.", show_default="runs/reproduce-CLAIM")
    ] = None,
    data: Annotated[
        str, typer.Option(help="tinyshakespeare, shakespeare, or the path of a UTF-8 text file.")
    ] = "tinyshakespeare",
    steps: Annotated[
        int | None,
        typer.Option(help="Training steps, rounds of timing, or pairs of states.", min=1, show_default="the claim's"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights and batches.", min=0, max=2**32 - 1)] = 0,
) -> None:
    """Run a published claim again, and print the published results, ours, and why they differ.

    qisa-leak: a 13 times lower cross-entropy, and the causality check that its model fails. gpt-nano: Qiskit GPT nano's
    losses, parameters and throughput. qisa-speed: how much slower QISA's layers are. nanogpt: 1.88 on tinyshakespeare.
    qasa: a circuit's forecasts of a chaotic map. qasa-circuit: that circuit's entanglement and expressibility.
    Trained models are kept: the same command continues where it stopped. A few steps or rounds are timed first, to say
    how long a long reproduction will take.
    """
    require(TRAINING, "train")
    from qiskit_qattn.cli.progress import make_progress
    from qiskit_qattn.evaluation.reproduction.claims import reproduce, write_report
    from qiskit_qattn.evaluation.reproduction.runs import Options
    from qiskit_qattn.training.progress import TrainingInterrupted

    folder = out or Path("runs") / f"reproduce-{claim}"
    try:
        with make_progress() as progress:
            found = reproduce(claim, Options(folder, data, steps, seed), progress)
    except TrainingInterrupted as stop:
        say(f"Stopped at step {stop.step} of {stop.folder.name}; the same command continues.", err=True)
        raise typer.Exit(128 + stop.signal) from stop
    changed = {"--data": data if data != "tinyshakespeare" else None, "--steps": steps, "--seed": seed or None}
    flags = [f"{name} {shlex.quote(str(value))}" for name, value in changed.items() if value is not None]
    write_report(folder, found, " ".join(["qattn reproduce", claim, *flags]))
    _show(found)
    say(f"report: {folder / 'report.md'}")


def _show(found: Reproduction) -> None:
    """Print the table and the reasons."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from qiskit_qattn.untrusted import printable

    console = Console(highlight=False)
    shown = Table(title=found.title, caption=f"Source of the claim: {found.source}", title_justify="left")
    for index, name in enumerate(found.head):
        shown.add_column(name, justify="left" if index == 0 else "right")
    for row in found.rows:
        shown.add_row(*(escape(printable(cell.replace("`", ""))) for cell in row))
    console.print()
    if found.shortened:
        console.print(f"[yellow]{escape(found.shortened)}[/yellow]")
    console.print(shown)
    console.print("\nWhy they differ")
    for reason in found.reasons:
        console.print(f"- {escape(printable(reason))}")
