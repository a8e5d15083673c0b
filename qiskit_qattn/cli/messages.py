"""Messages about jobs on devices, shown while a command works, and the text that it generates meanwhile."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from qiskit_qattn.cli.remaining import Clock, Remaining
from qiskit_qattn.untrusted import one_line, printable

LOGGER = "qiskit_qattn.backends"


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


def counting(total: int, what: str = "tokens", clock: Clock = time.monotonic) -> Callable[[], None]:
    """Return a function to be called after each of ``total`` items, which says how long the rest of them takes.

    It is said where that is more than a minute, when three items are there, and again when half of that time is left.
    """
    remaining, numbers = Remaining(total, clock=clock), count(1)

    def done() -> None:
        number = next(numbers)
        remaining.reach(number)
        if left := remaining.news():
            logging.getLogger(LOGGER).info("about %s left for %d of %d %s", left, total - number, total, what)

    return done


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
