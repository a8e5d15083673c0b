"""``qattn noise-sweep``: the loss of a trained model against noise and against shots."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from qiskit_qattn.cli.help import say
from qiskit_qattn.cli.options import TRAINING, require
from qiskit_qattn.errors import ConfigError

if TYPE_CHECKING:
    from qiskit_qattn.evaluation.noise_sweep.plan import NoiseSweep, Point

T = TypeVar("T", int, float)


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run folder of a trained model.", show_default=False)],
    noise: Annotated[
        str, typer.Option(help="depolarizing, amplitude_damping, phase_damping or readout.")
    ] = "depolarizing",
    p: Annotated[str, typer.Option("--p", help="Noise strengths from 0 to 1, separated by commas; or none.")] = (
        "0,0.001,0.003,0.01,0.03"
    ),
    shots: Annotated[str, typer.Option(help="Numbers of shots, separated by commas; or none.")] = "100,1000,10000",
    backend: Annotated[
        list[str] | None,
        typer.Option(help="Also measure on this simulator, a backend string; may be repeated.", show_default=False),
    ] = None,
    mitigation: Annotated[
        str,
        typer.Option(
            help="Also mitigate errors at each p above 0 and on each backend: trex, zne, trex+zne or none, separated by"
            " commas."
        ),
    ] = "none",
    aware_steps: Annotated[
        int, typer.Option(help="Also train a copy for this many steps with noise, and one without; 0: neither.", min=0)
    ] = 0,
    aware_p: Annotated[
        float | None, typer.Option(help="The noise strength of that training.", show_default=False)
    ] = None,
    windows: Annotated[int, typer.Option(help="Windows of validation text measured at each point.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed of the sampling.", min=0, max=2**32 - 1)] = 0,
    out: Annotated[Path | None, typer.Option(help="The folder of the report.", show_default="RUN-noise")] = None,
) -> None:
    """Measure the validation loss of RUN's model at noise strengths and numbers of shots, and with mitigated errors.

    All points use the same windows of text. With --aware-steps, copies of the model are trained further, with noise and
    without. RUN is not changed. The same command with the same --out continues where it stopped; a longer list of
    strengths or shots adds points. Parts of the work are timed first, to say how long a long sweep will take.
    """
    require(TRAINING, "train")
    from qiskit_qattn.evaluation.noise_sweep.plan import NoiseSweep

    sweep = NoiseSweep(
        run=run,
        out=out or run.parent / f"{run.resolve().name}-noise",
        noise=noise,
        strengths=_numbers("--p", p, float),
        shots=_numbers("--shots", shots, int),
        backends=tuple(backend or ()),
        mitigations=_mitigations(mitigation),
        aware_steps=aware_steps,
        aware_strength=aware_p,
        windows=windows,
        seed=seed,
    )
    try:
        _run(sweep)
    except KeyboardInterrupt as stop:
        say(f"Interrupted. The results so far are in {str(sweep.out)!r}; the same command continues.", err=True)
        raise typer.Exit(128 + getattr(stop, "signal", 2)) from stop
    say(f"report: {sweep.out / 'report.md'}")


def _run(sweep: NoiseSweep) -> None:
    """Train the copies of the model, measure all points, and show the progress."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from qiskit_qattn.cli.progress import LeftColumn, make_progress
    from qiskit_qattn.cli.remaining import LONG, Remaining, duration
    from qiskit_qattn.evaluation.noise_sweep.report import NAMES
    from qiskit_qattn.evaluation.noise_sweep.sweep import measure, missing, open_sweep, train_models
    from qiskit_qattn.evaluation.noise_sweep.timing import point_seconds, training_seconds

    console = Console()
    run, record = open_sweep(sweep)
    left = len(missing(sweep, record))
    if left < len(sweep.points()):
        console.print(f"{len(sweep.points()) - left} of {len(sweep.points())} points are done", highlight=False)
    expected = point_seconds(sweep, run, record)
    with make_progress(console) as training:
        training.forecast(lambda: [*training_seconds(sweep, run), sum(expected)])
        models = train_models(sweep, run, training)
    with Progress(
        TextColumn("[bold]measuring"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        LeftColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as bars:
        clock = Remaining(sum(expected))
        task = bars.add_task("", total=sum(expected), clock=clock)
        waiting = list(expected)

        def advance(share: float) -> None:
            bars.advance(task, share * waiting[0])
            clock.reach(bars.tasks[task].completed)

        def tell(point: Point, found: dict[str, Any]) -> None:
            del waiting[0]
            bars.update(task, completed=sum(expected) - sum(waiting))
            clock.reach(bars.tasks[task].completed)
            line = f"{NAMES[point.model]:>11}, {point.label:>12}: {_figures(point, found)}"
            line += f", {duration(rest)} left" if (rest := clock.left() or 0.0) > LONG else ""
            console.print(line, highlight=False, markup=False, soft_wrap=not console.is_terminal)

        measure(sweep, run, models, record, on_point=tell, on_progress=advance)


def _figures(point: Point, found: dict[str, Any]) -> str:
    """Return the results of a point as text."""
    from qiskit_qattn.evaluation.noise_sweep.report import change_words, loss_words

    if point.strength is None and point.shots is None and not point.on:
        return f"loss {loss_words(found)}"
    return f"loss {loss_words(found)}, change {change_words(found['change'], found['change_standard_error'])}"


def _mitigations(text: str) -> tuple[str, ...]:
    """Return the mitigations of a list such as ``none,trex,trex+zne``, as backend strings have them."""
    items = (item.strip().replace("+", ",") for item in text.split(","))
    return tuple(dict.fromkeys(item for item in items if item not in ("", "none")))


def _numbers(flag: str, text: str, kind: type[T]) -> tuple[T, ...]:
    """Return the numbers of a comma-separated list; none for ``none``.

    Raises:
        ConfigError: For anything else.
    """
    if text.strip() in ("", "none"):
        return ()
    try:
        return tuple(kind(item) for item in text.split(","))
    except ValueError:
        what = "whole numbers" if kind is int else "numbers"
        raise ConfigError(f"{flag} takes {what} separated by commas, or none; got {text!r}.") from None
