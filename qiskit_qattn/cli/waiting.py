"""What ``qiskit_qattn.backends`` logs of jobs, shown while text is written."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

LOGGER = "qiskit_qattn.backends"


@contextmanager
def watch_jobs(out: Console | None = None, err: Console | None = None) -> Iterator[Callable[[str], None]]:
    """Yield what writes text to stdout; until the block ends, messages about jobs go to stderr.

    On a terminal the last message stands below the text, with its age; elsewhere each message is a line.
    """
    out, err = out or Console(), err or Console(stderr=True)
    if err.is_terminal and not err.is_dumb_terminal:
        line = _StatusLine(out if out.is_terminal else err, both=out.is_terminal)
        with line.running(), device_messages(line.show):
            yield line.write
    else:
        with device_messages(lambda message, _: typer.echo(message, err=True)):
            yield lambda text: typer.echo(text, nl=False)


class StatusMessage:
    """The last word of a device, with its age."""

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
        both: Whether the text goes there too; its last line is then kept above the message.
    """

    def __init__(self, console: Console, both: bool) -> None:
        self.console, self.both = console, both
        self.text, self.message = "", StatusMessage("")
        self.live = Live(get_renderable=self._render, console=console, transient=True, redirect_stdout=both)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Show the line until the block ends, and leave the text alone."""
        try:
            with self.live:
                yield
        finally:
            if self.text:
                typer.echo(self.text, nl=False)

    def write(self, text: str) -> None:
        """Write text to stdout."""
        if not self.both:
            typer.echo(text, nl=False)
            return
        done, newline, self.text = (self.text + text).rpartition("\n")
        if newline:
            self.live.refresh()  # without what now goes above it
            self.console.print(Text(done), soft_wrap=True)

    def show(self, message: str, level: int) -> None:
        """Show a message; a warning stays."""
        if level >= logging.WARNING:
            self.console.print(Text(message), soft_wrap=True)
        else:
            self.message = StatusMessage(message)

    def _render(self) -> RenderableType:
        parts = [Text(self.text)] if self.text else []
        if self.message.text:
            parts.append(self.message.line(self.console.width - 1))
        return Group(*parts)


def _fitted(line: str, width: int) -> str:
    """Return a line of at most ``width`` characters; what is left out is in the middle, as ids of jobs are."""
    if len(line) <= width:
        return line
    tail = min(45, width // 2)
    return f"{line[: width - tail - 1]}…{line[-tail:]}"


class _Handler(logging.Handler):
    def __init__(self, show: Callable[[str, int], None]) -> None:
        super().__init__(logging.INFO)
        self.receive = show

    def emit(self, record: logging.LogRecord) -> None:
        self.receive(record.getMessage(), record.levelno)


@contextmanager
def device_messages(show: Callable[[str, int], None]) -> Iterator[None]:
    """Pass on what devices say, with its level in ``logging``, until the block ends."""
    logger, handler = logging.getLogger(LOGGER), _Handler(show)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(min(level or logging.INFO, logging.INFO))
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
