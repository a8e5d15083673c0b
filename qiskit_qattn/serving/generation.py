"""One text as it is generated, as the event loop that asked for it sees it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from qiskit_qattn.errors import QattnError
from qiskit_qattn.serving.accounts import Meter, Tally
from qiskit_qattn.serving.sampling import Sampling

Finish = Literal["stop", "length"]


@dataclass(frozen=True)
class Piece:
    """The next part of a text.

    Attributes:
        text: The characters.
        tokens: The tokens drawn since the last piece; those of a stop string or an end token are among them.
        finish_reason: ``stop`` or ``length`` in the last piece, otherwise None.
    """

    text: str
    tokens: list[int]
    finish_reason: Finish | None = None


@dataclass(frozen=True)
class Usage:
    """The number of tokens of a prompt and, so far, of its completion."""

    prompt_tokens: int
    completion_tokens: int


class Generation:
    """One text as it is generated: an asynchronous iterator of :class:`Piece`, for one task to read.

    A reader that is slower than the model gets longer pieces; the model does not wait for it.

    Args:
        prompt: The prompt's tokens.
        sampling: How the text is drawn.
        meter: Records which backends computed its passes.
        wake: Wakes the model's thread after a change.

    Attributes:
        prompt: The prompt's tokens.
        sampling: How the text is drawn.
        submitted: When it was submitted; all times are those of ``time.monotonic``.
        first_token: When its first token was drawn, or None.
        ended: When it ended, or None.
        cancelled: Whether it was cancelled.
        drawn: The number of tokens drawn so far.
        tally: What its passes have done so far.
        loop: The event loop in which it was submitted.
    """

    def __init__(self, prompt: list[int], sampling: Sampling, meter: Meter, wake: Callable[[], None]) -> None:
        self.prompt, self.sampling = prompt, sampling
        self.submitted = time.monotonic()
        self.first_token: float | None = None
        self.ended: float | None = None
        self.cancelled, self.drawn, self.tally = False, 0, Tally()
        self.loop = asyncio.get_running_loop()
        self._meter, self._wake = meter, wake
        self._ready = asyncio.Event()
        self._text, self._tokens = "", list[int]()
        self._finish: Finish | None = None
        self._error: QattnError | None = None
        self._over = False

    @property
    def usage(self) -> Usage:
        """The number of tokens of its prompt and, so far, of its text."""
        return Usage(len(self.prompt), self.drawn)

    @property
    def backends(self) -> dict[str, Any]:
        """Where its passes were computed, as plain data.

        ``heads``: of every head its ``layer``, number ``head`` there, ``kind``, and how many ``calls`` of its circuits
        each backend computed; of a classical head, its passes. ``calls``: those of all circuits, each once. ``falls``:
        calls that went from one backend to the next, with the first reason and their ``count``. ``cost``: by device the
        jobs, seconds on the processor and US dollars of its passes, each divided by the requests that shared the
        pass. ``passes``: how many there were. ``shared``: the most requests that shared one.
        """
        return self._meter.summary(self.tally)

    def cancel(self) -> None:
        """End it now; its place in the batch is free from the next pass on."""
        self.cancelled = self._over = True
        self._ready.set()
        self._wake()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Piece:
        """Return the next piece.

        Raises:
            GenerationError: If a pass of the model failed; its cause is that error.
            StoppedError: If the engine stopped before the end.
        """
        await self._ready.wait()
        if self._tokens or self._finish:
            piece = Piece(self._text, self._tokens, self._finish)
            self._text, self._tokens, self._finish = "", [], None
            if not self._over:
                self._ready.clear()
            return piece
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    def apply(self, update: Update) -> None:
        """Add what the model's thread has for it; called in its event loop."""
        if not self._over:
            self._text += update.text
            self._tokens += update.tokens
            self._finish, self._error = update.finish, update.error
            self._over = bool(update.finish or update.error)
            self._ready.set()


@dataclass
class Update:
    """What the model's thread has for a generation: some text, its end, or the error that ended it."""

    generation: Generation
    text: str = ""
    tokens: list[int] = field(default_factory=list)
    finish: Finish | None = None
    error: QattnError | None = None


def deliver(updates: Sequence[Update]) -> None:
    """Apply updates to their generations, each in its own event loop; called from any thread."""
    loops: dict[asyncio.AbstractEventLoop, list[Update]] = {}
    for update in updates:
        loops.setdefault(update.generation.loop, []).append(update)
    for loop, own in loops.items():
        try:
            loop.call_soon_threadsafe(_apply, own)
        except RuntimeError:  # the loop is closed: nobody reads them
            for update in own:
                update.generation.cancelled = True


def _apply(updates: Sequence[Update]) -> None:
    for update in updates:
        update.generation.apply(update)
