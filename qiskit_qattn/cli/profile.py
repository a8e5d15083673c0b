"""``qattn profile``: where the time and the memory of a run's steps go."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qiskit_qattn.cli import options
from qiskit_qattn.untrusted import printable

if TYPE_CHECKING:
    from qiskit_qattn.backends.registry import Backend
    from qiskit_qattn.cli.devices import Quote


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder with a checkpoint.", show_default=False)],
    steps: Annotated[
        int,
        typer.Option(help="Training steps; a few are traced, the rest show whether memory leaks.", min=4, max=10**6),
    ] = 60,
    out: Annotated[
        Path | None, typer.Option(help="The folder to write, which must not exist yet.", show_default="RUN/profile")
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="Where the circuits run, as a backend string.", show_default="the run's")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Agree to any cost of a paid device.")] = False,
) -> None:
    """Train RUN for some more steps from its newest checkpoint, and report where their time and memory go.

    RUN is not changed: the steps, losses and weights are thrown away. The folder --out gets profile.md with tables and
    a plot, trace.json for Perfetto, and memray.bin if memray is installed. On a paid device, the cost is shown first,
    and nothing is sent without a budget in the backend string, as in ?budget=5usd, or --yes.
    """
    options.require(options.TRAINING, "train")
    options.quiet_profiler()
    from rich.console import Console

    from qiskit_qattn.cli.devices import open_devices
    from qiskit_qattn.cli.messages import device_messages
    from qiskit_qattn.cli.progress import make_progress
    from qiskit_qattn.evaluation.profile_report import phase_table
    from qiskit_qattn.evaluation.profile_run import profile_run
    from qiskit_qattn.training.run import saved_config

    folder = run / "profile" if out is None else out
    text = saved_config(run).backend if backend is None else backend
    with (
        open_devices(text, yes=yes, cost=partial(_cost, run, steps)) as (target, _),
        make_progress(Console(stderr=True)) as progress,
        device_messages(progress.device_message),
    ):
        profile = profile_run(run, folder, steps=steps, backend=target, progress=progress)
    typer.echo(phase_table(profile["costs"]))
    typer.echo("\n" + profile["leak"]["verdict"])
    typer.echo(printable(f"profile: {folder / 'profile.md'}"))


def _cost(run: Path, steps: int, backend: Backend) -> Quote:
    """Return the cost of the steps on a paid device, to be shown, and that of its first job."""
    from qiskit_qattn.cli.devices import parts_table
    from qiskit_qattn.evaluation.device_cost import training_cost
    from qiskit_qattn.evaluation.profile_run import newest_checkpoint
    from qiskit_qattn.training.data import load_corpus
    from qiskit_qattn.training.run import saved_config

    config = saved_config(run)
    done = int(newest_checkpoint(run).name.removeprefix("step-"))
    corpus = load_corpus(config.data, config.model.block_size, split=config.split)
    parts, first = training_cost(config.replace(max_steps=done + steps), corpus, backend, start=done)
    own = {"training steps": parts["training steps"]}
    return parts_table(f"Cost of {steps:,} steps on {backend.name}, about", backend, own), first
