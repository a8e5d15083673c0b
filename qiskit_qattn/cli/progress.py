"""How ``qattn train`` shows its progress: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from qiskit_qattn.cli.waiting import StatusMessage
from qiskit_qattn.training.progress import Progress
from qiskit_qattn.training.state import Validation


@contextmanager
def make_progress(console: Console | None = None) -> Iterator[LineProgress]:
    """Yield a bar where ``console`` is a terminal, and lines where it is not."""
    console = console or Console()
    if not console.is_terminal:
        yield LineProgress(console)
        return
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
        TextColumn("[dim]left"),
        TimeRemainingColumn(),
    )
    with _BarsAndMessage(*columns, console=console, refresh_per_second=4) as bars:
        yield BarProgress(console, bars)


class _BarsAndMessage(Bars):
    """Bars, with the last word of a device below them."""

    message: StatusMessage | None = None

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yield the bars and the message."""
        yield from super().get_renderables()
        if self.message is not None:
            yield self.message.line(self.console.width - 1)


class LineProgress(Progress):
    """One line a validation, which also suits a log file."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def device_message(self, text: str, level: int) -> None:
        """Print what a device says to stderr."""
        typer.echo(text, err=True)

    def message(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def phase_started(self, name: str, step: int, max_steps: int) -> None:
        """Say what starts."""
        self.message(f"{name}: {'resuming at' if step else 'training from'} step {step} to {max_steps}")

    def validated(self, found: Validation, tokens_per_second: float) -> None:
        """Print the figures of a validation."""
        parts = [
            f"step {found.step:>6}",
            f"train {found.train_loss:.4f}" if found.train_loss is not None else "train   –   ",
            f"val {found.val_loss:.4f}",
            f"last position {found.val_loss_last_position:.4f}",
        ]
        if tokens_per_second:
            parts.append(f"{tokens_per_second:,.0f} tokens/s")
        self.message("  ".join(parts))

    def phase_finished(self, name: str, val_loss: float, val_loss_last_position: float) -> None:
        """Print the last validation."""
        self.message(f"{name}: validation loss {val_loss:.4f}, last position {val_loss_last_position:.4f}")


class BarProgress(LineProgress):
    """The same lines above a bar with step, losses, speed and time left."""

    def __init__(self, console: Console, bars: _BarsAndMessage) -> None:
        super().__init__(console)
        self.bars = bars
        self.task: TaskID | None = None
        self.train = self.val = "–"

    def device_message(self, text: str, level: int) -> None:
        """Show what a device says below the bars; a warning stays above them."""
        if level >= logging.WARNING:
            self.message(text)
        else:
            self.bars.message = StatusMessage(text)

    def phase_started(self, name: str, step: int, max_steps: int) -> None:
        """Start a bar."""
        self.task = self.bars.add_task(name, total=max_steps, completed=step, figures="")
        self.train = self.val = "–"

    def step_done(self, step: int, loss: float | None, tokens_per_second: float) -> None:
        """Move the bar."""
        if loss is not None:
            self.train = f"{loss:.3f}"
        self._show(completed=step, figures=self._figures(tokens_per_second))

    def validated(self, found: Validation, tokens_per_second: float) -> None:
        """Print the figures, and keep them in the bar."""
        super().validated(found, tokens_per_second)
        self.val = f"{found.val_loss:.3f}"
        self._show(figures=self._figures(tokens_per_second))

    def final_validation(self, done: int, total: int) -> None:
        """Show how far the last validation is."""
        self._show(figures=f"validating the whole split {done}/{total}")

    def phase_finished(self, name: str, val_loss: float, val_loss_last_position: float) -> None:
        """Leave the bar full, with the last figures."""
        self.bars.message = None
        self._show(figures=f"val {val_loss:.4f}")
        super().phase_finished(name, val_loss, val_loss_last_position)

    def _figures(self, tokens_per_second: float) -> str:
        return f"train {self.train}  val {self.val}  {tokens_per_second:,.0f} tok/s"

    def _show(self, *, completed: int | None = None, figures: str) -> None:
        if self.task is not None:
            self.bars.update(self.task, completed=completed, figures=figures)
