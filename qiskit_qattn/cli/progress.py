"""What is shown while a command works: the progress of training, and messages about jobs on devices."""

from __future__ import annotations

import logging
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Column
from rich.text import Text

from qiskit_qattn.cli.remaining import LONG, Clock, Remaining, RunTime, duration
from qiskit_qattn.training.progress import Progress
from qiskit_qattn.untrusted import one_line, printable

if TYPE_CHECKING:
    from qiskit_qattn.training.checkpoint import Validation

LOGGER = "qiskit_qattn.backends"


@contextmanager
def make_progress(console: Console | None = None) -> Iterator[LineProgress]:
    """Yield a bar where ``console`` is a terminal, and lines where it is not."""
    console = console or Console()
    if not console.is_terminal:
        yield LineProgress(console)
        return
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=24),  # the only one that gets narrower where there is little room
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(table_column=Column(no_wrap=True)),
        LeftColumn(table_column=Column(no_wrap=True)),
    )
    with _BarsAndMessage(*columns, console=console, refresh_per_second=4) as bars:
        yield BarProgress(console, bars)


class LeftColumn(ProgressColumn):
    """The time left of a task whose field ``clock`` has a method ``left`` that returns it in seconds."""

    def render(self, task: Task) -> Text:
        """Return it in words."""
        left = task.fields["clock"].left()
        return Text("" if left is None or task.finished else f"{duration(left)} left", style="dim")


class _BarsAndMessage(Bars):
    """Bars, with the last message of a device below them."""

    message: StatusMessage | None = None

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yield the bars and the message."""
        yield from super().get_renderables()
        if self.message is not None:
            yield self.message.line(self.console.width - 1)


class LineProgress(Progress):
    """One line per validation, for log files too."""

    def __init__(self, console: Console) -> None:
        self.console, self.clock, self._told = console, RunTime(), False

    def planned(self, phases: int, final: float) -> None:
        """Expect so many models."""
        self.clock.planned(phases, final)

    def step_done(self, step: int, loss: float | None, tokens_per_second: float) -> None:
        """Note the time, and say once how long all of it will take if that is more than a minute."""
        self.clock.stepped(step)
        if not self._told and self.clock.known:
            self._told, left = True, self.clock.left() or 0.0
            if left > LONG:
                self.message(f"about {duration(left)} left, for all steps and validations")

    def final_validation(self, done: int, total: int) -> None:
        """Note how far the final validation is."""
        self.clock.validating(done, total)

    def device_message(self, text: str, level: int) -> None:
        """Print a message of a device to stderr."""
        typer.echo(text, err=True)

    def message(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=not self.console.is_terminal)

    def phase_started(self, name: str, step: int, max_steps: int) -> None:
        """Print the name and the steps of a model."""
        self.clock.started(step, max_steps)
        self.message(f"{name}: {'resuming at' if step else 'training from'} step {step} to {max_steps}")

    def validated(self, found: Validation, tokens_per_second: float) -> None:
        """Print the figures of a validation, and the time that is left where that is long."""
        self.clock.validated()
        parts = [
            f"step {found.step:>6}",
            f"train {found.train_loss:.4f}" if found.train_loss is not None else "train   –   ",
            f"val {found.val_loss:.4f}",
        ]
        if found.val_loss_last_position is not None:
            parts.append(f"last position {found.val_loss_last_position:.4f}")
        if tokens_per_second:
            parts.append(f"{tokens_per_second:,.0f} tokens/s")
        if self._told and (left := self.clock.left()) is not None and left > LONG:
            parts.append(f"{duration(left)} left")
        self.message("  ".join(parts))

    def phase_finished(self, name: str, val_loss: float, val_loss_last_position: float | None) -> None:
        """Print the final validation."""
        self.clock.finished()
        last = "" if val_loss_last_position is None else f", last position {val_loss_last_position:.4f}"
        self.message(f"{name}: validation loss {val_loss:.4f}{last}")


class BarProgress(LineProgress):
    """The same lines above a bar with step, losses, speed and remaining time."""

    def __init__(self, console: Console, bars: _BarsAndMessage) -> None:
        super().__init__(console)
        self.bars = bars
        self.task: TaskID | None = None
        self.train = self.val = "–"

    def device_message(self, text: str, level: int) -> None:
        """Show a message of a device below the bars, a warning permanently above them."""
        if level >= logging.WARNING:
            self.message(text)
        else:
            self.bars.message = StatusMessage(text)

    def phase_started(self, name: str, step: int, max_steps: int) -> None:
        """Start a bar."""
        self.clock.started(step, max_steps)
        self.task = self.bars.add_task(name, total=max_steps, completed=step, figures="", clock=self.clock)
        self.train = self.val = "–"

    def step_done(self, step: int, loss: float | None, tokens_per_second: float) -> None:
        """Move the bar."""
        super().step_done(step, loss, tokens_per_second)
        if loss is not None:
            self.train = f"{loss:.3f}"
        self._show(completed=step, figures=self._figures(tokens_per_second))

    def validated(self, found: Validation, tokens_per_second: float) -> None:
        """Print the figures, and show them in the bar."""
        super().validated(found, tokens_per_second)
        self.val = f"{found.val_loss:.3f}"
        self._show(figures=self._figures(tokens_per_second))

    def final_validation(self, done: int, total: int) -> None:
        """Show the progress of the final validation."""
        super().final_validation(done, total)
        self._show(figures=f"validating the whole split {done}/{total}")

    def phase_finished(self, name: str, val_loss: float, val_loss_last_position: float | None) -> None:
        """Show the final figures in the bar."""
        self.bars.message = None
        self._show(figures=f"val {val_loss:.4f}")
        super().phase_finished(name, val_loss, val_loss_last_position)

    def _figures(self, tokens_per_second: float) -> str:
        speed = f"  {tokens_per_second:,.0f} tok/s" if tokens_per_second else ""
        return f"train {self.train}  val {self.val}{speed}"

    def _show(self, *, completed: int | None = None, figures: str) -> None:
        if self.task is not None:
            self.bars.update(self.task, completed=completed, figures=figures)


@contextmanager
def watch_jobs(out: Console | None = None, err: Console | None = None) -> Iterator[Callable[[str], None]]:
    """Yield a function that writes text to stdout; until the block ends, messages about jobs go to stderr.

    On a terminal the last message is shown below the text, with its age; elsewhere each message is a line.
    """
    out, err = out or Console(), err or Console(stderr=True)
    if err.is_terminal and not err.is_dumb_terminal:
        line = _StatusLine(out if out.is_terminal else err, both=out.is_terminal)
        with line.running(), device_messages(line.show):
            yield line.write
    else:
        with device_messages(lambda message, _: typer.echo(message, err=True)):
            yield lambda text: typer.echo(shown_text(text), nl=False)


class TokenTime:
    """Says how long the rest of a text takes where that is more than a minute.

    It is said when three tokens are there, and again when half of that time is left.

    Args:
        total: The number of tokens.
        clock: Returns the time in seconds.
    """

    def __init__(self, total: int, clock: Clock = time.monotonic) -> None:
        self._clock, self._done, self._told = Remaining(total, clock=clock), 0, math.inf

    def token_done(self) -> None:
        """Note that there is one more token."""
        self._done += 1
        self._clock.reach(self._done)
        if self._clock.known and LONG < (left := self._clock.left() or 0.0) < self._told / 2:
            self._told, total = left, int(self._clock.total)
            rest = total - self._done
            logging.getLogger(LOGGER).info("about %s left for %d of %d tokens", duration(left), rest, total)


def shown_text(text: str) -> str:
    """Return a model's text as it goes to stdout: printable on a terminal, unchanged in a file."""
    return printable(text) if sys.stdout.isatty() else text


class StatusMessage:
    """The last message of a device, with its age."""

    def __init__(self, text: str) -> None:
        self.text, self._since = text, time.monotonic()

    def line(self, width: int) -> Text:
        """Return it as a line of at most ``width`` characters."""
        age = int(time.monotonic() - self._since)
        return Text(_fitted(self.text + (f" ({age} s ago)" if age else ""), width), style="dim")


class _StatusLine:
    """The last line of a terminal.

    Args:
        console: The terminal.
        both: Whether the text is written there too; its last line is then part of the display.
    """

    def __init__(self, console: Console, both: bool) -> None:
        self.console, self.both = console, both
        self.text, self.message = "", StatusMessage("")
        self.live = Live(get_renderable=self._render, console=console, transient=True, redirect_stdout=both)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Show the line until the block ends; the text remains."""
        try:
            with self.live:
                yield
        finally:
            if self.text:
                typer.echo(self.text, nl=False)

    def write(self, text: str) -> None:
        """Write text to stdout."""
        text = shown_text(text)
        if not self.both:
            typer.echo(text, nl=False)
            return
        done, newline, self.text = (self.text + text).rpartition("\n")
        if newline:
            self.live.refresh()  # without the text that is printed above it
            self.console.print(Text(done), soft_wrap=True)

    def show(self, message: str, level: int) -> None:
        """Show a message; a warning remains."""
        if level >= logging.WARNING:
            self.console.print(Text(message))
        else:
            self.message = StatusMessage(message)

    def _render(self) -> RenderableType:
        parts = [Text(self.text)] if self.text else []
        if self.message.text:
            parts.append(self.message.line(self.console.width - 1))
        return Group(*parts)


def _fitted(line: str, width: int) -> str:
    """Return a line of at most ``width`` characters; a long one is cut in the middle."""
    if len(line) <= width:
        return line
    tail = min(45, width // 2)
    return f"{line[: width - tail - 1]}…{line[-tail:]}"


class _Handler(logging.Handler):
    def __init__(self, show: Callable[[str, int], None]) -> None:
        super().__init__(logging.INFO)
        self.receive = show

    def emit(self, record: logging.LogRecord) -> None:
        self.receive(one_line(getattr(record, "brief", None) or record.getMessage()), record.levelno)


@contextmanager
def device_messages(show: Callable[[str, int], None]) -> Iterator[None]:
    """Pass the messages of devices, with their level in ``logging``, to ``show`` until the block ends.

    A fall from one backend to the next is one of them, so that its Python warning is not shown as well.
    """
    from qiskit_qattn.nn.audit import FallbackWarning

    logger, handler = logging.getLogger(LOGGER), _Handler(show)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(min(level or logging.INFO, logging.INFO))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FallbackWarning)
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
