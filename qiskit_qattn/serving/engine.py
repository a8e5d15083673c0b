"""Continuous batching: requests join and leave a model's batch between its passes."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import torch
from torch import Tensor

from qiskit_qattn.errors import DataError, GenerationError, QattnError, QueueFull, StoppedError
from qiskit_qattn.serving.accounts import Meter, Tally
from qiskit_qattn.serving.batch import Batch
from qiskit_qattn.serving.models import ServedModel
from qiskit_qattn.serving.sampling import Sampling, draw
from qiskit_qattn.serving.text import StopStrings

__all__ = ["Engine", "Generation", "Piece", "Sampling", "Usage"]

Finish = Literal["stop", "length"]
_PREFILL = 8192  # tokens of new prompts, padding included, in one pass; one prompt may be longer


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
    """How many tokens a request had."""

    prompt_tokens: int
    completion_tokens: int


class Generation:
    """One text as it is generated: an asynchronous iterator of :class:`Piece`.

    A reader that is slower than the model gets longer pieces; the model does not wait for it. To be read by one task,
    of the event loop in which it was submitted.

    Attributes:
        prompt: The prompt's tokens.
        sampling: How the text is drawn.
        submitted: When it was submitted; this and the other times are on the clock of ``time.monotonic``.
        first_token: When its first token was drawn, or None.
        ended: When it ended, or None.
    """

    def __init__(self, engine: Engine, prompt: list[int], sampling: Sampling) -> None:
        self.prompt, self.sampling = prompt, sampling
        self.submitted = time.monotonic()
        self.first_token: float | None = None
        self.ended: float | None = None
        self.usage = Usage(len(prompt), 0)
        self.backends: dict[str, Any] = {}
        self._engine, self._loop = engine, asyncio.get_running_loop()
        self._ready = asyncio.Event()
        self._text, self._tokens = "", list[int]()
        self._finish: Finish | None = None
        self._error: QattnError | None = None
        self._cancelled = self._over = False

    def cancel(self) -> None:
        """End it now; its place in the batch is free from the next pass on."""
        self._cancelled = self._over = True
        self._ready.set()
        self._engine._wake()

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

    def _deliver(self, told: _Told) -> None:
        """Take what the model's thread has for it, in the event loop."""
        if not self._over:
            self._text += told.text
            self._tokens += told.tokens
            self._finish, self._error = told.finish, told.error
            self._over = bool(told.finish or told.error)
            self._ready.set()


@dataclass
class _Told:
    """What the model's thread has for a generation."""

    generation: Generation
    text: str = ""
    tokens: list[int] = field(default_factory=list)
    finish: Finish | None = None
    error: QattnError | None = None


class _Row:
    """A request in the batch, as the model's thread sees it."""

    def __init__(self, generation: Generation, model: ServedModel) -> None:
        self.generation, self.sampling = generation, generation.sampling
        self.tokens = list(generation.prompt)
        self.generator = self.sampling.generator(model.device)
        self.decoder = model.decoder(generation.prompt)
        self.stops = StopStrings(self.sampling.stop)
        self.tally = Tally()
        self.ends, self.untold = model.ends, list[int]()

    def take(self, token: int) -> _Told:
        """Return what a drawn token adds to the text."""
        self.tokens.append(token)
        self.untold.append(token)
        ended = token in self.ends
        text = "" if ended else self.stops.add(self.decoder.add(token))
        done = len(self.tokens) - len(self.generation.prompt)
        finish: Finish | None = None
        if ended or self.stops.found or done == self.sampling.max_tokens:
            text += "" if self.stops.found else self.stops.add(self.decoder.end())
            text += self.stops.end()
            finish = "stop" if ended or self.stops.found else "length"
        if not (text or finish):
            return _Told(self.generation)
        told, self.untold = self.untold, []
        return _Told(self.generation, text, told, finish)


class Engine:
    """Generates the texts of many requests with one model, whose passes they share.

    The model runs in a thread of its own. Requests wait in a queue, join the batch between two passes, and leave with
    their last token. A pass that fails ends the requests that were in it, and the engine goes on with the others.

    Args:
        model: The model.
        max_batch: Requests that are generated at the same time.
        max_queue: Requests that wait; more are refused.
        max_cached: Tokens of the batch, padding included, whose keys and values are kept: what bounds the memory.
    """

    def __init__(
        self, model: ServedModel, *, max_batch: int = 32, max_queue: int = 256, max_cached: int = 2**17
    ) -> None:
        self.model, self.max_batch, self.max_queue, self.max_cached = model, max_batch, max_queue, max_cached
        self._queue: deque[Generation] = deque()
        self._changed = threading.Condition()
        self._rows: list[_Row] = []
        self._batch, self._meter = Batch(model), Meter(model)
        self._busy = self._stopping = self._closed = False
        self._counts: Counter[str] = Counter()
        self._sizes: Counter[int] = Counter()
        self._seconds: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._run, name=f"qattn-{model.name}", daemon=True)
        self._thread.start()

    def submit(self, prompt: list[int], sampling: Sampling | None = None) -> Generation:
        """Return the generation of a text after a prompt, which waits for its turn; called in an event loop.

        Raises:
            DataError: For an empty prompt, one with tokens outside the vocabulary, or a text that is too long.
            QueueFull: If too many requests wait.
            StoppedError: If the engine stops or has stopped.
        """
        sampling = sampling or Sampling()
        self._check(prompt, sampling)
        generation = Generation(self, list(prompt), sampling)
        with self._changed:
            if self._stopping:
                raise StoppedError(f"{self.model.name} is stopping and takes no more requests.")
            waiting = sum(not each._cancelled for each in self._queue)
            if waiting >= self.max_queue:
                self._counts["refused"] += 1
                raise QueueFull(f"{waiting} requests wait for {self.model.name}, which is the most; try again later.")
            self._queue.append(generation)
            self._counts["requests"] += 1
            self._changed.notify_all()
        return generation

    def stats(self) -> dict[str, Any]:
        """Return numbers since the start, and the sizes of queue and batch now, as plain data."""
        total = self._meter.told(self._meter.total)
        names = ("requests", "refused", "stop", "length", "cancelled", "failed", "prompt_tokens", "completion_tokens")
        return {
            "queued": len(self._queue),
            "running": len(self._rows),
            "max_batch": self.max_batch,
            "max_queue": self.max_queue,
            **{name: self._counts[name] for name in names},
            "passes": total["passes"],
            "batch_sizes": dict(sorted(self._sizes.items())),
            "queue_seconds": self._seconds["queue"],
            "first_token_seconds": self._seconds["first_token"],
            "request_seconds": self._seconds["request"],
            "calls": total["calls"],
            "falls": sum(fall["count"] for fall in total["falls"]),
            "cost": total["cost"],
        }

    async def drain(self, seconds: float) -> int:
        """Take no more requests, let those there are finish for some seconds, then close; return how many did not."""
        with self._changed:
            self._stopping = True
        await asyncio.to_thread(self._wait_idle, seconds)
        left = len(self._rows) + len(self._queue)
        await asyncio.to_thread(self.close)
        return left

    def close(self) -> None:
        """Stop after the pass that runs now; unfinished requests end with :class:`StoppedError`.

        Raises:
            BackendError: If the sessions of devices cannot be closed.
        """
        with self._changed:
            self._stopping = self._closed = True
            self._changed.notify_all()
        self._thread.join()
        self.model.close()

    def _check(self, prompt: Sequence[int], sampling: Sampling) -> None:
        model, most = self.model, min(self.model.context, self.max_cached)
        if not prompt:
            raise DataError("The prompt is empty; give at least one token.")
        if not 0 <= min(prompt) <= max(prompt) < model.vocab_size:
            raise DataError(
                f"Tokens of {model.name} are 0 to {model.vocab_size - 1}, got {min(prompt)} to {max(prompt)}."
            )
        size = len(prompt) + (0 if model.rolls else sampling.max_tokens)
        if size > most:
            asked = "" if model.rolls else f" and max_tokens={sampling.max_tokens}"
            raise DataError(f"The context of {model.name} is {most} tokens, but the prompt has {len(prompt)}{asked}.")

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _wait_idle(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not (self._queue or self._rows or self._busy), seconds)

    # What follows runs in the model's thread.

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                if not self._rows:
                    self._changed.notify_all()
                self._changed.wait_for(lambda: self._queue or self._rows or self._closed)
                if self._closed:
                    break
                self._busy = True
                left, new = self._leaving(), self._joining()
            told = left + self._step(new)
            self._tell(told)
        stopped = StoppedError(f"{self.model.name} stopped before the text was finished.")
        self._tell([_Told(each, error=stopped) for each in [*(row.generation for row in self._rows), *self._queue]])
        self._rows.clear()
        self._queue.clear()

    def _leaving(self) -> list[_Told]:
        """Drop requests that were cancelled; the others stay as they are."""
        gone = [each for each in self._queue if each._cancelled]
        if gone:
            self._queue = deque(each for each in self._queue if not each._cancelled)
        kept = [i for i, row in enumerate(self._rows) if not row.generation._cancelled]
        for row in self._rows:
            if row.generation._cancelled:
                self._end(row.generation, row, "cancelled")
        self._keep(kept)
        for each in gone:
            self._end(each, None, "cancelled")
        return []

    def _joining(self) -> list[_Row]:
        """Take requests from the queue, as many as fit."""
        new: list[_Row] = []
        widest = max((self._final(row.generation) for row in self._rows), default=0)
        longest = 0
        while self._queue and len(self._rows) + len(new) < self.max_batch:
            following = self._queue[0]
            widest = max(widest, self._final(following))
            longest = max(longest, len(following.prompt))
            if (len(self._rows) + len(new) + 1) * widest > self.max_cached and (self._rows or new):
                break
            if new and (len(new) + 1) * longest > _PREFILL:
                break
            new.append(_Row(self._queue.popleft(), self.model))
            self._seconds["queue"] += time.monotonic() - following.submitted
            self._counts["prompt_tokens"] += len(following.prompt)
        return new

    def _final(self, generation: Generation) -> int:
        """Return how many tokens of a request the cache holds at most."""
        return min(self.model.context, len(generation.prompt) + generation.sampling.max_tokens)

    def _step(self, new: list[_Row]) -> list[_Told]:
        """Draw a token for each request: those in the batch, those that are new, and those whose context is full."""
        told: list[_Told] = []
        nothing = [row for row in new if row.sampling.max_tokens == 0]
        for row in nothing:
            self._end(row.generation, row, "length")
            told.append(_Told(row.generation, finish="length"))
        new = [row for row in new if row not in nothing]
        full = [i for i, length in enumerate(self._batch.lengths) if length == self.model.context]
        if full:
            half = max(1, self.model.context // 2)
            rolled = [self._rows[i] for i in full]
            self._keep([i for i in range(len(self._rows)) if i not in full])
            new = rolled + new
        else:
            half = 0
        parts: list[Tensor] = []
        if self._rows:
            rows = self._rows
            logits = self._attempt(rows, lambda: self._batch.step([row.tokens[-1] for row in rows]), told)
            if logits is None:
                self._rows, self._batch = [], Batch(self.model)
            else:
                parts.append(logits)
        if new:
            count = len(full)
            prompts = [row.tokens[-half:] if i < count else row.tokens for i, row in enumerate(new)]
            logits = self._attempt(new, lambda: self._batch.begin(prompts), told)
            if logits is not None:
                self._rows = self._rows + new
                parts.append(logits)
        if parts:
            told += self._draw(torch.cat(parts))
        return told

    def _attempt(self, rows: list[_Row], run: Callable[[], Tensor], told: list[_Told]) -> Tensor | None:
        """Return the logits of a pass, or None if it failed, which its requests are told."""
        self._sizes[len(rows)] += 1
        try:
            with self._meter.reading([row.tally for row in rows]):
                return run()
        except Exception as error:  # whatever a provider, or a model of transformers, raises
            told += self._failed(rows, error)
            return None

    def _failed(self, rows: Sequence[_Row], error: Exception) -> list[_Told]:
        told = []
        for row in rows:
            reason = " ".join(str(error).split())
            failed = GenerationError(f"A pass of {self.model.name} with {len(rows)} requests failed: {reason}")
            failed.__cause__ = error
            self._end(row.generation, row, "failed")
            told.append(_Told(row.generation, error=failed))
        return told

    def _draw(self, logits: Tensor) -> list[_Told]:
        """Draw a token for each row; those that end leave."""
        rows = self._rows
        tokens = draw(logits, [row.sampling for row in rows], [row.generator for row in rows])
        now, told = time.monotonic(), []
        for row, token in zip(rows, tokens, strict=True):
            if row.generation.first_token is None:
                row.generation.first_token = now
                self._seconds["first_token"] += now - row.generation.submitted
            each = row.take(token)
            if each.finish is not None:
                self._end(row.generation, row, each.finish)
            told.append(each)
        self._keep([i for i, each in enumerate(told) if each.finish is None])
        return told

    def _keep(self, rows: list[int]) -> None:
        self._batch.keep(rows)
        self._rows = [self._rows[i] for i in rows]

    def _end(self, generation: Generation, row: _Row | None, how: str) -> None:
        """Note how a request ended."""
        self._counts[how] += 1
        generation.ended = time.monotonic()
        self._seconds["request"] += generation.ended - generation.submitted
        if row is not None:
            done = len(row.tokens) - len(generation.prompt)
            self._counts["completion_tokens"] += done
            generation.usage = Usage(len(generation.prompt), done)
            generation.backends = self._meter.told(row.tally)

    def _tell(self, told: Sequence[_Told]) -> None:
        """Hand pieces and ends to the event loops of their requests."""
        loops: dict[asyncio.AbstractEventLoop, list[_Told]] = {}
        for each in told:
            if each.tokens or each.finish or each.error:
                loops.setdefault(each.generation._loop, []).append(each)
        for loop, some in loops.items():
            try:
                loop.call_soon_threadsafe(_deliver, some)
            except RuntimeError:  # it was closed: nobody reads them
                for each in some:
                    each.generation.cancel()


def _deliver(told: Sequence[_Told]) -> None:
    for each in told:
        each.generation._deliver(each)
