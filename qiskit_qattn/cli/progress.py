"""The progress of training and of other long work: lines, or bars on a terminal."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Column
from rich.text import Text

from qiskit_qattn.cli.messages import StatusMessage
from qiskit_qattn.cli.remaining import LONG, RunTime, duration, forecast_text
from qiskit_qattn.training.progress import Progress

if TYPE_CHECKING:
    from qiskit_qattn.training.checkpoint import Validation


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
        self._last = math.inf  # seconds left when that was told last; 0 once validations tell it

    def forecast(self, seconds: Callable[[], Sequence[float] | None]) -> None:
        """Print how long the work will take, if that is long."""
        found = seconds()
        if found:
            self.clock.forecast(found)
        if text := forecast_text(found):
            self._told, self._last = found is not None, sum(found or (math.inf,))
            self.message(text)

    def counted(self, name: str, done: int, total: int) -> None:
        """Note the time, and print what is left of a long work, again after each half of it."""
        if not done:
            self.clock.started(0, total)
            return
        self.clock.stepped(done)
        self._tell_half()
        if done == total:
            self.clock.finished()

    def _tell_half(self) -> None:
        left = self.clock.left() or 0.0
        if self.clock.known and LONG < left < self._last / 2:
            self._last = left
            self.message(f"about {duration(left)} left")

    def planned(self, phases: int, final: float) -> None:
        """Expect so many models."""
        self.clock.planned(phases, final)

    def step_done(self, step: int, loss: float | None, tokens_per_second: float) -> None:
        """Note the time, and say once how long all of it will take if that is long; again after each half of it."""
        self.clock.stepped(step)
        if self._told:
            self._tell_half()
        elif self.clock.known:
            self._told, left = True, self.clock.left() or 0.0
            if left > LONG:
                self._last = left
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
        self._last = 0.0
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

    def counted(self, name: str, done: int, total: int) -> None:
        """Move the bar of a work, or start it."""
        super().counted(name, done, total)
        if not done:
            self.task = self.bars.add_task(name, total=total, figures="", clock=self.clock)
        self._show(completed=done, figures="")

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
