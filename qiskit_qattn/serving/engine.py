"""Continuous batching: requests join and leave a model's batch between its passes."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import Any, Literal

from qiskit_qattn.errors import ConfigError, DataError, QueueFull, StoppedError
from qiskit_qattn.serving.accounts import Meter
from qiskit_qattn.serving.generation import Generation, Update, deliver
from qiskit_qattn.serving.running import Counts, Running
from qiskit_qattn.serving.sampling import Sampling
from qiskit_qattn.serving.served_model import ServedModel

__all__ = ["Engine", "Generation", "Sampling"]

_PASS_SECONDS = 10.0  # how long a stop waits for the pass that runs then
_PREFILL = 8192  # tokens of prompts, padding included, that join in one pass; a single prompt may be longer


class Engine:
    """Generates the texts of many requests with one model, whose passes they share.

    The model runs in a thread of its own. Requests wait in a queue, join the batch between two passes, and leave it
    with their last token. A pass that fails ends the requests that shared it, and the engine goes on with the others.

    Args:
        model: The model.
        max_batch: The most requests in the batch.
        max_queue: The most requests that wait; more are refused.
        max_cached: The most tokens in the batch, padding included, whose keys and values are kept. It bounds the memory
            and the length of a text.

    Raises:
        ConfigError: For a limit below 1.
    """

    def __init__(
        self, model: ServedModel, *, max_batch: int = 32, max_queue: int = 256, max_cached: int = 2**17
    ) -> None:
        for name, given in (("max_batch", max_batch), ("max_queue", max_queue), ("max_cached", max_cached)):
            if given < 1:
                raise ConfigError(f"{name} must be at least 1, got {given}.")
        self.model, self.max_batch, self.max_queue, self.max_cached = model, max_batch, max_queue, max_cached
        self._queue: deque[Generation] = deque()
        self._meter, self._counts = Meter(model), Counts()
        self._running = Running(model, self._meter, self._counts)
        self._requests = self._refused = 0
        self._changed = threading.Condition()  # guards what follows, and the queue
        self._state: Literal["running", "stopping", "stopped"] = "running"
        self._busy = False
        self._thread = threading.Thread(target=self._run, name=f"qattn-{model.name}", daemon=True)
        self._thread.start()

    @property
    def state(self) -> str:
        """``running``, ``stopping`` while it finishes the requests there are, or ``stopped``."""
        return self._state

    def submit(self, prompt: list[int], sampling: Sampling | None = None) -> Generation:
        """Return the generation of a text after a prompt, which waits for its turn; called in an event loop.

        Raises:
            DataError: For an empty prompt, one with tokens outside the vocabulary, or a text that is too long.
            QueueFull: If too many requests wait.
            StoppedError: If the engine stops or has stopped.
        """
        sampling = sampling or Sampling()
        self._check(prompt, sampling)
        generation = Generation(list(prompt), sampling, self._meter, self._wake)
        with self._changed:
            if self._state != "running":
                raise StoppedError(f"{self.model.name} is {self._state} and takes no more requests.")
            if len(self._queue) >= self.max_queue:
                self._drop_waiting()
            if sampling.max_tokens and len(self._queue) >= self.max_queue:
                self._refused += 1
                raise QueueFull(
                    f"{self.max_queue} requests wait for {self.model.name}, and no more may; try again later."
                )
            self._requests += 1
            if sampling.max_tokens:
                self._queue.append(generation)
                self._changed.notify_all()
            else:
                self._counts.end(generation, "length")
                generation.apply(Update(generation, finish="length"))
        return generation

    def stats(self) -> dict[str, Any]:
        """Return the sizes of queue and batch now, and numbers since the start, as plain data.

        ``queue_seconds``, ``first_token_seconds`` and ``request_seconds`` are sums, from submission to the first pass,
        the first token and the end. ``batch_sizes`` says how many passes were shared by each number of requests.
        ``calls``, ``falls`` and ``cost`` are those of all passes, as :attr:`Generation.backends` has them for one.
        """
        counts, total = self._counts, self._meter.summary(self._meter.total)
        return {
            "state": self._state,
            "queued": len(self._queue),
            "running": len(self._running),
            "max_batch": self.max_batch,
            "max_queue": self.max_queue,
            "requests": self._requests,
            "refused": self._refused,
            **{how: counts.ended[how] for how in ("stop", "length", "cancelled", "failed")},
            "prompt_tokens": counts.prompt_tokens,
            "completion_tokens": counts.completion_tokens,
            "passes": total["passes"],
            "batch_sizes": dict(sorted(dict(counts.batch_sizes).items())),
            "queue_seconds": counts.queue_seconds,
            "first_token_seconds": counts.first_token_seconds,
            "request_seconds": counts.request_seconds,
            "calls": total["calls"],
            "falls": sum(fall["count"] for fall in total["falls"]),
            "cost": total["cost"],
        }

    async def drain(self, seconds: float) -> int:
        """Take no more requests, let those there are finish for some seconds, then close; return how many did not.

        Raises:
            BackendError: If the sessions of devices cannot be closed.
        """
        with self._changed:
            if self._state == "running":
                self._state = "stopping"
        await asyncio.to_thread(self._wait_until_idle, seconds)
        left = len(self._running) + len(self._queue)
        await asyncio.to_thread(self.close)
        return left

    def close(self, seconds: float = _PASS_SECONDS) -> None:
        """Stop after the pass that runs now; unfinished requests end with :class:`StoppedError`.

        Args:
            seconds: How long that pass is waited for: a device may have jobs in its queue for hours.

        Raises:
            BackendError: If the sessions of devices cannot be closed.
        """
        with self._changed:
            self._state = "stopped"
            self._changed.notify_all()
        self._thread.join(seconds)
        self._abandon()
        self.model.close()

    def _check(self, prompt: list[int], sampling: Sampling) -> None:
        model, most = self.model, min(self.model.context, self.max_cached)
        if not prompt:
            raise DataError("The prompt is empty; give at least one token.")
        if not 0 <= min(prompt) <= max(prompt) < model.vocab_size:
            raise DataError(
                f"Tokens of {model.name} are 0 to {model.vocab_size - 1}, got some from {min(prompt)} to {max(prompt)}."
            )
        if len(prompt) + (0 if model.rolls else sampling.max_tokens) > most:
            asked = "" if model.rolls else f", and max_tokens={sampling.max_tokens} come after it"
            raise DataError(f"{model.name} has a context of {most} tokens, but the prompt has {len(prompt)}{asked}.")

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _wait_until_idle(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._state == "stopped" or not (self._queue or self._busy), seconds)

    def _abandon(self) -> None:
        """End the remaining requests with an error."""
        with self._changed:
            self._state, self._busy = "stopped", False
            left = [*self._running.generations, *self._queue]
            self._queue.clear()
            self._changed.notify_all()
        error = f"{self.model.name} stopped before the text was finished."
        deliver([Update(generation, error=StoppedError(error)) for generation in left])

    # What follows runs in the model's thread.

    def _run(self) -> None:
        try:
            while (new := self._next()) is not None:
                deliver(self._running.step(new))
                self._running.drop_cancelled()
        finally:
            self._abandon()

    def _next(self) -> list[Generation] | None:
        """Wait until there is something to do; return the requests that join the batch, or None at the end."""
        with self._changed:
            while self._state != "stopped":
                self._drop_waiting()
                self._busy = bool(self._running or self._queue)
                if self._busy:
                    return self._joining()
                self._changed.notify_all()
                self._changed.wait()
            return None

    def _drop_waiting(self) -> None:
        """Take requests out of the queue that were cancelled."""
        if any(each.cancelled for each in self._queue):
            for each in self._queue:
                if each.cancelled:
                    self._counts.end(each, "cancelled")
            self._queue = deque(each for each in self._queue if not each.cancelled)

    def _joining(self) -> list[Generation]:
        """Take the first requests from the queue, as many as fit."""
        new: list[Generation] = []
        widest = max(map(self._cached, self._running.generations), default=0)
        while self._queue and (size := len(self._running) + len(new)) < self.max_batch:
            widest = max(widest, self._cached(self._queue[0]))
            longest = max(len(each.prompt) for each in [*new, self._queue[0]])
            if (size and (size + 1) * widest > self.max_cached) or (new and (len(new) + 1) * longest > _PREFILL):
                break
            new.append(self._queue.popleft())
        return new

    def _cached(self, generation: Generation) -> int:
        """Return how many tokens of a request are cached at most."""
        return min(self.model.context, len(generation.prompt) + generation.sampling.max_tokens)
