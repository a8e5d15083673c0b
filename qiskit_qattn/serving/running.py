"""The requests that are generated now: passes of the model, a token for each request, and its text."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from qiskit_qattn.errors import GenerationError, QattnError
from qiskit_qattn.serving.accounts import Meter
from qiskit_qattn.serving.batch import Batch
from qiskit_qattn.serving.generation import Finish, Generation, Update
from qiskit_qattn.serving.sampling import draw
from qiskit_qattn.serving.served_model import ServedModel
from qiskit_qattn.serving.text import StopStrings

T = TypeVar("T")
_LOG = logging.getLogger(__name__)


@dataclass
class Counts:
    """Numbers of an engine since its start.

    Attributes:
        ended: The number of requests that ended by each of ``stop``, ``length``, ``cancelled`` and ``failed``.
        prompt_tokens: The number of prompt tokens of the requests that joined the batch.
        completion_tokens: The number of tokens drawn.
        batch_sizes: The number of passes by the number of requests that shared them.
        queue_seconds: Sum of the times from submission to the first pass.
        first_token_seconds: Sum of the times from submission to the first token.
        request_seconds: Sum of the times from submission to the end.
    """

    ended: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    batch_sizes: Counter[int] = field(default_factory=Counter)
    queue_seconds: float = 0.0
    first_token_seconds: float = 0.0
    request_seconds: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)  # requests that wait end in other threads

    def end(self, generation: Generation, how: str) -> None:
        """Count the end of a request."""
        generation.ended = time.monotonic()
        with self._lock:
            self.ended[how] += 1
            self.request_seconds += generation.ended - generation.submitted


class _Row:
    """A request in the batch.

    Args:
        generation: The request.
        model: The model.
    """

    def __init__(self, generation: Generation, model: ServedModel) -> None:
        self.generation, self.sampling, self.ends = generation, generation.sampling, model.ends
        self.tokens, self.start = list(generation.prompt), 0  # of the context
        self.generator = self.sampling.generator(model.device)
        self.decoder = model.decoder(generation.prompt)
        self.stops = StopStrings(self.sampling.stop)
        self.pending = list[int]()  # tokens whose text was not delivered yet

    def take(self, token: int) -> Update:
        """Add a drawn token, and return what it adds to the text."""
        self.tokens.append(token)
        self.pending.append(token)
        self.generation.drawn += 1
        ended = token in self.ends
        text = "" if ended else self.stops.add(self.decoder.add(token))
        finish: Finish | None = None
        if ended or self.stops.found or self.generation.drawn == self.sampling.max_tokens:
            text += "" if self.stops.found else self.stops.add(self.decoder.end())
            text += self.stops.end()
            finish = "stop" if ended or self.stops.found else "length"
        if not (text or finish):
            return Update(self.generation)
        tokens, self.pending = self.pending, []
        return Update(self.generation, text, tokens, finish)


class Running:
    """The requests that are generated now, in one batch.

    Args:
        model: The model.
        meter: Records which backends computed its passes.
        counts: The engine's counts, which are updated.
    """

    def __init__(self, model: ServedModel, meter: Meter, counts: Counts) -> None:
        self.model, self.meter, self.counts = model, meter, counts
        self._rows: list[_Row] = []
        self._joining: list[_Row] = []  # in the step that runs now
        self._batch = Batch(model)

    def __len__(self) -> int:
        return len(self._rows) + len(self._joining)

    @property
    def generations(self) -> list[Generation]:
        """The requests, including those that join now."""
        return [row.generation for row in [*self._rows, *self._joining]]

    def drop_cancelled(self) -> None:
        """Remove cancelled requests from the batch."""
        for row in self._rows:
            if row.generation.cancelled:
                self.counts.end(row.generation, "cancelled")
        self._keep([i for i, row in enumerate(self._rows) if not row.generation.cancelled])

    def step(self, new: Sequence[Generation]) -> list[Update]:
        """Draw a token for each request, including those that join now; return their updates.

        Requests in the batch share a pass, and those that join share another. A request whose context is full leaves,
        and joins with the last half of its tokens, as :func:`~qiskit_qattn.nn.generation.stream` goes on.
        """
        now, updates = time.monotonic(), list[Update]()
        for each in new:
            self.counts.queue_seconds += now - each.submitted
            self.counts.prompt_tokens += len(each.prompt)
        full = [i for i, length in enumerate(self._batch.lengths) if length == self.model.context]
        joining = [self._rows[i] for i in full] + [_Row(each, self.model) for each in new]
        self._joining = joining
        if full:
            self._keep([i for i in range(len(self._rows)) if i not in full])
        parts = list[Tensor]()
        for rows in (self._rows, joining):
            if not rows:
                continue
            logits = self._attempt(rows, partial(self._pass, rows, rows is joining), updates)
            if logits is not None:
                parts.append(logits)
                self._rows = self._rows + joining if rows is joining else rows
            elif rows is not joining:
                self._clear()
        self._joining = []
        if parts:
            drawn = self._attempt(self._rows, lambda: self._draw(torch.cat(parts)), updates)
            if drawn is None:
                self._clear()
            else:
                updates += drawn
        return updates

    def _pass(self, rows: Sequence[_Row], join: bool) -> Tensor:
        """Return the logits of a pass of these requests, shape ``(B, V)``."""
        self.counts.batch_sizes[len(rows)] += 1
        with self.meter.reading([row.generation.tally for row in rows]):
            if join:
                return self._batch.begin([self._context(row) for row in rows])
            return self._batch.step([row.tokens[-1] for row in rows])

    def _context(self, row: _Row) -> list[int]:
        """Return the tokens with which a request joins: the last half of those that are more than a context."""
        if len(row.tokens) - row.start > self.model.context:
            row.start = len(row.tokens) - max(1, self.model.context // 2)
        return row.tokens[row.start :]

    def _draw(self, logits: Tensor) -> list[Update]:
        """Draw a token for each row, and remove those that have ended."""
        rows, updates = self._rows, list[Update]()
        finite = logits.amax(-1).isfinite().tolist()
        if not all(finite):
            bad = [row for row, fine in zip(rows, finite, strict=True) if not fine]
            updates += self._failed(bad, GenerationError("The logits are not finite."))
            self._keep([i for i, fine in enumerate(finite) if fine])
            rows, logits = self._rows, logits[finite]
        tokens = draw(logits, [row.sampling for row in rows], [row.generator for row in rows])
        now, drawn = time.monotonic(), [row.take(token) for row, token in zip(rows, tokens, strict=True)]
        self.counts.completion_tokens += len(drawn)
        for each in drawn:
            if each.generation.first_token is None:
                each.generation.first_token = now
                self.counts.first_token_seconds += now - each.generation.submitted
            if each.finish is not None:
                self.counts.end(each.generation, each.finish)
        self._keep([i for i, each in enumerate(drawn) if each.finish is None])
        return updates + [each for each in drawn if each.tokens]

    def _attempt(self, rows: Sequence[_Row], run: Callable[[], T], updates: list[Update]) -> T | None:
        """Return what ``run`` returns; if it raises, add the error to the updates of these requests and return None."""
        try:
            return run()
        except Exception as error:  # whatever a provider, or a model or tokenizer of transformers, raises
            updates += self._failed(rows, error)
            return None

    def _failed(self, rows: Sequence[_Row], error: Exception) -> list[Update]:
        """Log why a pass failed, and return the updates that end its requests."""
        reason = " ".join(str(error).split()) or type(error).__name__
        shared = f"that {len(rows)} requests shared " if len(rows) > 1 else ""
        unexpected = not isinstance(error, QattnError)
        _LOG.error("A pass of %s %sfailed: %s", self.model.name, shared, reason, exc_info=error if unexpected else None)
        updates = []
        for row in rows:
            self.counts.end(row.generation, "failed")
            failed = GenerationError(f"A pass of {self.model.name} {shared}failed: {reason}")
            failed.__cause__ = error
            updates.append(Update(row.generation, error=failed))
        return updates

    def _keep(self, rows: Sequence[int]) -> None:
        if len(rows) < len(self._rows):
            self._batch.keep(rows)
            self._rows = [self._rows[i] for i in rows]

    def _clear(self) -> None:
        self._rows, self._batch = [], Batch(self.model)
