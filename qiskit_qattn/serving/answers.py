"""Answers to requests for text: all at once, or as server-sent events while they are generated."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qiskit_qattn.errors import QattnError
from qiskit_qattn.serving.failures import Refusal, as_refusal

if TYPE_CHECKING:
    from qiskit_qattn.serving.generation import Generation

_LONGEST_HEADER = 1000  # characters
DONE = "data: [DONE]\n\n"


@dataclass(frozen=True)
class Form:
    """The format of one of OpenAI's two kinds of answer.

    Attributes:
        prefix: How the id of an answer begins.
        whole: The ``object`` of an answer.
        part: The ``object`` of a chunk of a stream.
        is_chat: Whether texts are messages.
    """

    prefix: str
    whole: str
    part: str
    is_chat: bool

    def choice(self, index: int, text: str, reason: str | None) -> dict[str, Any]:
        """Return a whole text."""
        content = (
            {"message": {"role": "assistant", "content": text, "refusal": None}} if self.is_chat else {"text": text}
        )
        return {"index": index, **content, "logprobs": None, "finish_reason": reason}

    def delta(self, index: int, text: str, reason: str | None, *, first: bool) -> dict[str, Any]:
        """Return a piece of a text."""
        if not self.is_chat:
            return self.choice(index, text, reason)
        role = {"role": "assistant"} if first else {}
        content = {"content": text} if text or first else {}
        return {"index": index, "delta": role | content, "logprobs": None, "finish_reason": reason}


COMPLETION = Form("cmpl-", "text_completion", "text_completion", False)
CHAT = Form("chatcmpl-", "chat.completion", "chat.completion.chunk", True)


@dataclass
class Answer:
    """The texts of one request, which are generated together.

    Attributes:
        form: The format of the answer.
        model: The model's name.
        generations: One per text.
        prefixes: What each text begins with, such as its prompt where that is echoed.
        prompt_tokens: The number of tokens of all prompts.
        seconds: How long it may take.
        id: The answer's id; by default a random one.
        created: When it was begun, in Unix seconds.
        first_after: Seconds to the first piece; None before that.
        texts: The texts so far.
    """

    form: Form
    model: str
    generations: Sequence[Generation]
    prefixes: Sequence[str]
    prompt_tokens: int
    seconds: float
    id: str = ""
    created: int = field(default_factory=lambda: int(time.time()))
    first_after: float | None = None
    texts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Start the clock."""
        self.id = self.id or self.form.prefix + secrets.token_hex(12)
        self.texts = list(self.prefixes)
        self._started = time.monotonic()

    @property
    def usage(self) -> dict[str, int]:
        """Tokens of the prompts and, so far, of the texts."""
        completion = sum(each.usage.completion_tokens for each in self.generations)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": self.prompt_tokens + completion,
        }

    @property
    def where(self) -> dict[str, Any]:
        """Which backends computed the texts that have ended.

        ``backends`` counts calls of circuits by where they ran, ``heads`` the same for every head of attention,
        ``falls`` has the calls that went on to the next backend and why, ``cost`` what devices charged for the texts,
        ``passes`` how many passes of the model each text took, added up, and ``shared`` the most texts in one of them,
        other requests' included: a call that several texts share is counted in the answer of each.
        """
        return joined([each.backends for each in self.generations if each.backends])

    @property
    def headers(self) -> dict[str, str]:
        """A summary of :attr:`where` as headers."""
        where = self.where
        falls = sum(fall["count"] for fall in where["falls"])
        backends = ", ".join(f"{name} ({count})" for name, count in where["backends"].items())
        cost = "; ".join(_priced(*item) for item in where["cost"].items())
        return {
            "x-qattn-backends": _header(backends or "none"),
            "x-qattn-falls": str(falls),
            "x-qattn-cost": _header(cost or "none"),
        }

    def cancel(self) -> None:
        """Stop what is still being generated."""
        for each in self.generations:
            each.cancel()

    async def whole(self) -> dict[str, Any]:
        """Return the answer when all texts have ended.

        Raises:
            Refusal: If one of them failed, or time ran out.
        """
        reasons = ["stop"] * len(self.generations)
        async for index, _, reason in self._pieces():
            reasons[index] = reason or reasons[index]
        choices = [self.form.choice(i, *each) for i, each in enumerate(zip(self.texts, reasons, strict=True))]
        return self._object(self.form.whole, choices) | {"usage": self.usage, "qattn": self.where}

    async def events(self, include_usage: bool) -> AsyncIterator[str]:
        """Yield server-sent events; an error ends them as an event of its own.

        Args:
            include_usage: Whether a last event has the number of tokens.
        """
        begun, left, usage = set[int](), len(self.generations), {"usage": None} if include_usage else {}
        try:
            for index, prefix in enumerate(self.prefixes):
                if prefix:
                    begun.add(index)
                    yield self._event([self.form.delta(index, prefix, None, first=True)], **usage)
            async for index, text, reason in self._pieces():
                left -= reason is not None
                about = {"qattn": self.where} if not (left or include_usage) else {}
                yield self._event([self.form.delta(index, text, reason, first=index not in begun)], **usage, **about)
                begun.add(index)
            if include_usage:
                yield self._event([], usage=self.usage, qattn=self.where)
        except Refusal as refusal:
            yield f"data: {_json(refusal.body)}\n\n"
        yield DONE

    async def _pieces(self) -> AsyncIterator[tuple[int, str, str | None]]:
        """Yield number, text and, at its end, finish reason of each text's pieces, as they come.

        Raises:
            Refusal: If a text failed, or time ran out.
        """
        pieces: asyncio.Queue[tuple[int, str, str | None] | QattnError] = asyncio.Queue(2 * len(self.generations))
        tasks = [asyncio.create_task(_pump(i, each, pieces)) for i, each in enumerate(self.generations)]
        loop, left = asyncio.get_running_loop(), len(tasks)
        deadline = loop.time() + self.seconds
        try:
            while left:
                if loop.time() > deadline:  # a slow reader, for whom pieces wait
                    raise TimeoutError
                async with asyncio.timeout_at(deadline):
                    piece = await pieces.get()
                if isinstance(piece, QattnError):
                    raise as_refusal(piece) from piece
                if self.first_after is None:
                    self.first_after = time.monotonic() - self._started
                left -= piece[2] is not None
                self.texts[piece[0]] += piece[1]
                yield piece
        except TimeoutError:
            text = f"The answer was not complete after {self.seconds:g} s; ask for fewer tokens."
            raise Refusal(504, text, "timeout", code="timeout", headers={"x-should-retry": "false"}) from None
        finally:
            self.cancel()
            for task in tasks:
                task.cancel()

    def _object(self, name: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        about = {"id": self.id, "object": name, "created": self.created, "model": self.model}
        return about | {"system_fingerprint": None, "choices": choices}

    def _event(self, choices: list[dict[str, Any]], **more: Any) -> str:
        return f"data: {_json(self._object(self.form.part, choices) | more)}\n\n"


async def _pump(index: int, generation: Generation, pieces: asyncio.Queue[Any]) -> None:
    """Put the pieces of a text into a queue; the last one when the generation has ended, so that its audit is known.

    Where the queue is full, because a client reads slowly, the generation has longer pieces later.
    """
    reason: str | None = None
    rest = ""
    try:
        async for piece in generation:
            if piece.finish_reason is not None:
                reason, rest = piece.finish_reason, piece.text
            elif piece.text:
                await pieces.put((index, piece.text, None))
    except QattnError as error:  # raised in the request that waits for the text
        await pieces.put(error)
    else:
        await pieces.put((index, rest, reason or "stop"))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def joined(accounts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Add up which backends computed several generations; their passes may have been shared."""
    calls, heads = Counter[str](), list[dict[str, Any]]()
    falls: dict[tuple[Any, ...], dict[str, Any]] = {}
    cost: dict[str, Counter[str]] = {}
    for account in accounts:
        calls.update(account["calls"])
        heads = heads or [{**head, "calls": Counter()} for head in account["heads"]]
        for head, own in zip(heads, account["heads"], strict=True):
            head["calls"].update(own["calls"])
        for fall in account["falls"]:
            key = tuple(fall[name] for name in ("layer", "circuit", "from", "to"))
            falls[key] = fall | {"count": fall["count"] + falls.get(key, {"count": 0})["count"]}
        for device, amounts in account["cost"].items():
            cost.setdefault(device, Counter()).update(amounts)
    return {
        "backends": calls,
        "heads": heads,
        "falls": list(falls.values()),
        "cost": cost,
        "passes": sum(account["passes"] for account in accounts),
        "shared": max((account["shared"] for account in accounts), default=0),
    }


def _priced(device: str, cost: Mapping[str, float]) -> str:
    """Return what a device charged, in a few words."""
    return f"{device}: " + ", ".join(f"{amount:.6g} {unit}" for unit, amount in cost.items() if amount)


def _header(text: str) -> str:
    """Return a text as the value of a header."""
    return text.encode("ascii", "backslashreplace").decode("ascii")[:_LONGEST_HEADER]
