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
        finish_reason: In the last piece ``stop`` or ``length``, otherwise None.
    """

    text: str
    tokens: list[int]
    finish_reason: Finish | None = None


@dataclass(frozen=True)
class Usage:
    """How many tokens a request has, its completion so far."""

    prompt_tokens: int
    completion_tokens: int


class Generation:
    """One text as it is generated: an asynchronous iterator of :class:`Piece`, for one task to read.

    A reader that is slower than the model gets longer pieces; the model does not wait for it.

    Args:
        prompt: The prompt's tokens.
        sampling: How the text is drawn.
        meter: Knows what its passes were computed on.
        wake: Tells the model's thread that something changed.

    Attributes:
        prompt: As given.
        sampling: As given.
        submitted: When it was submitted; this and the other times are on the clock of ``time.monotonic``.
        first_token: When its first token was drawn, or None.
        ended: When it ended, or None.
        cancelled: Whether it was cancelled.
        drawn: How many tokens were drawn so far.
        tally: What its passes did so far.
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
        """How many tokens it has."""
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
        return self._meter.told(self.tally)

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

    def take(self, told: Told) -> None:
        """Take what the model's thread has for it, in the event loop."""
        if not self._over:
            self._text += told.text
            self._tokens += told.tokens
            self._finish, self._error = told.finish, told.error
            self._over = bool(told.finish or told.error)
            self._ready.set()


@dataclass
class Told:
    """What the model's thread has for a generation: some text, its end, or the error that ended it."""

    generation: Generation
    text: str = ""
    tokens: list[int] = field(default_factory=list)
    finish: Finish | None = None
    error: QattnError | None = None


def tell(told: Sequence[Told]) -> None:
    """Hand texts and ends to the event loops of their generations, from any thread."""
    loops: dict[asyncio.AbstractEventLoop, list[Told]] = {}
    for each in told:
        loops.setdefault(each.generation.loop, []).append(each)
    for loop, some in loops.items():
        try:
            loop.call_soon_threadsafe(_take, some)
        except RuntimeError:  # it was closed: nobody reads them
            for each in some:
                each.generation.cancelled = True


def _take(told: Sequence[Told]) -> None:
    for each in told:
        each.generation.take(each)
