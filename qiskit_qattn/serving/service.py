"""What the HTTP application knows: models and their engines, keys, limits, metrics, and whether it is about to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qiskit_qattn.errors import BackendError, QattnError
from qiskit_qattn.serving.answers import CHAT, COMPLETION, Answer
from qiskit_qattn.serving.engine import Engine
from qiskit_qattn.serving.failures import Refusal, as_refusal
from qiskit_qattn.serving.generation import Generation
from qiskit_qattn.serving.keys import Key, Keys
from qiskit_qattn.serving.limits import Limits
from qiskit_qattn.serving.metrics import Metrics
from qiskit_qattn.serving.sampling import Sampling
from qiskit_qattn.serving.schemas import ChatRequest, CompletionRequest, GenerationRequest
from qiskit_qattn.serving.served_model import ServedModel
from qiskit_qattn.serving.settings import Settings
from qiskit_qattn.untrusted import shown

_LOG = logging.getLogger("qiskit_qattn.serving")
_MOST_SEED = 2**63


@dataclass(frozen=True)
class _Prompts:
    """The prompts of a request.

    Attributes:
        param: The field of the request that holds them.
        given: Its content.
        tokens: The tokens of each prompt.
        prefixes: What each text begins with.
    """

    param: str
    given: Any
    tokens: Sequence[list[int]]
    prefixes: Sequence[str]


class Service:
    """Turns requests into generations, within a key's limits.

    Args:
        engines: By the name that clients use.
        settings: The server's settings.
        keys: The keys; None reads those that the settings and the environment name.
    """

    def __init__(self, engines: Mapping[str, Engine], settings: Settings, keys: Keys | None = None) -> None:
        self.engines, self.settings = dict(engines), settings
        self.keys = Keys(settings.keys, os.environ) if keys is None else keys
        self.limits, self.metrics = Limits(settings), Metrics(self.engines)
        self.stopping, self.started = False, int(time.time())

    def engine(self, name: str) -> Engine:
        """Return the engine of a model.

        Raises:
            Refusal: With status 404 if there is none of that name.
        """
        if name not in self.engines:
            text = f"The model {shown(name)} does not exist. This server has: {', '.join(self.engines)}."
            raise Refusal(404, text, param="model", code="model_not_found")
        return self.engines[name]

    async def completion(self, request: CompletionRequest, key: Key | None, headers: dict[str, str]) -> Answer:
        """Start to answer a request to continue texts.

        Args:
            request: The request.
            key: The client's key, if the server has keys.
            headers: The headers of the answer; what is left of the key's tokens is added.

        Raises:
            Refusal: If it cannot be answered.
        """
        engine = self.engine(request.model)
        given = _given(request)
        self._check_number(len(given), request)
        tokens = await asyncio.to_thread(lambda: [_tokens(engine.model, prompt) for prompt in given])
        prefixes = [""] * len(tokens)
        if request.echo:
            texts = zip(given, tokens, strict=True)
            prefixes = [text if isinstance(text, str) else engine.model.decode(ids) for text, ids in texts]
        limit = 16 if request.limit is None else request.limit
        return await self._start(request, key, headers, _Prompts("prompt", given, tokens, prefixes), limit)

    async def chat(self, request: ChatRequest, key: Key | None, headers: dict[str, str]) -> Answer:
        """Start to answer a conversation; see :meth:`completion`.

        Raises:
            Refusal: If it cannot be answered, or the model is not for chats.
        """
        model = self.engine(request.model).model
        self._check_number(1, request)
        messages = [{"role": each.role, "content": each.text} for each in request.messages]
        try:
            prompt = await asyncio.to_thread(model.chat, messages)
        except QattnError as error:
            raise as_refusal(error, "messages") from error
        if prompt is None:
            text = f"The model {request.model!r} is not a chat model: it has no chat template. Use /v1/completions."
            raise Refusal(400, text, param="model", code="not_a_chat_model")
        limit = request.limit
        if limit is None:
            limit = max(1, min(self.settings.max_tokens, model.context - len(prompt)))
        return await self._start(request, key, headers, _Prompts("messages", messages, [prompt], [""]), limit)

    async def _start(
        self, request: GenerationRequest, key: Key | None, headers: dict[str, str], prompts: _Prompts, limit: int
    ) -> Answer:
        request.check_supported()
        engine, n = self.engine(request.model), request.n or 1
        self._check_sizes(engine.model, prompts, limit)
        left = await self.limits.charge(key, "tokens", sum(n * (len(tokens) + limit) for tokens in prompts.tokens))
        headers.update(left.headers if left else {})
        if self.settings.log_prompts:
            _LOG.info("%s: %r", prompts.param, prompts.given)
        generations: list[Generation] = []
        try:
            for tokens in prompts.tokens:
                for i in range(n):
                    generations.append(engine.submit(tokens, _sampling(request, limit, i)))
        except QattnError as error:
            for each in generations:
                each.cancel()
            raise as_refusal(error, prompts.param) from error
        return Answer(
            CHAT if isinstance(request, ChatRequest) else COMPLETION,
            request.model,
            generations,
            [prefix for prefix in prompts.prefixes for _ in range(n)],
            sum(map(len, prompts.tokens)),
            self.settings.request_seconds,
        )

    def _check_number(self, prompts: int, request: GenerationRequest) -> None:
        """Refuse more texts than a request may have, before any is made into tokens."""
        n, most = request.n or 1, self.settings.max_choices
        if prompts * n > most:
            asked = f"{prompts:,} prompt{'' if prompts == 1 else 's'} with n = {n}"
            raise Refusal(400, f"A request can have at most {most:,} texts, but this one has {asked}.", param="n")

    def _check_sizes(self, model: ServedModel, prompts: _Prompts, limit: int) -> None:
        settings, context = self.settings, model.context
        if limit > settings.max_tokens:
            text = f"max_tokens is {limit:,}, but can be at most {settings.max_tokens:,} on this server."
            raise Refusal(400, text, param="max_tokens")
        longest, more = max(map(len, prompts.tokens)), 0 if model.rolls else limit
        if longest + more > context:
            asked = f" and max_tokens is {limit:,}" if more else ""
            what = f"there are {longest:,} in the {prompts.param}{asked}"
            text = f"This model's maximum context length is {context:,} tokens, but {what}."
            raise Refusal(400, text, param=prompts.param, code="context_length_exceeded")

    def ended(self, answer: Answer) -> None:
        """Stop what is left of an answer, and count it."""
        answer.cancel()
        self.metrics.ended(answer)
        if self.settings.log_prompts:
            _LOG.info("%s: %r", answer.id, answer.texts)

    async def stop(self) -> None:
        """Let what is being generated end, within the time of the settings, and close the models."""
        self.stopping = True
        await asyncio.gather(*(self._drain(name) for name in self.engines))

    async def _drain(self, name: str) -> None:
        try:
            left = await self.engines[name].drain(self.settings.drain_seconds)
        except BackendError as error:
            _LOG.warning("The sessions of %s could not be closed: %s", name, error)
        else:
            if left:
                _LOG.warning("%s stopped before %d texts were complete.", name, left)


def _tokens(model: ServedModel, prompt: str | list[int]) -> list[int]:
    """Return the tokens of a prompt.

    Raises:
        Refusal: If it is outside the vocabulary.
    """
    if isinstance(prompt, str):
        try:
            return model.encode(prompt)
        except QattnError as error:
            raise as_refusal(error, "prompt") from error
    if not prompt or max(prompt) >= model.vocab_size:
        text = f"A prompt of tokens is a list of whole numbers from 0 to {model.vocab_size - 1:,}."
        raise Refusal(400, text, param="prompt")
    return prompt


def _given(request: CompletionRequest) -> list[str] | list[list[int]]:
    """Return the prompts of a request.

    Raises:
        Refusal: If there is none.
    """
    prompt: Any = request.prompt
    if not prompt:
        raise Refusal(400, "The prompt is empty; give at least one character or token.", param="prompt")
    return [prompt] if isinstance(prompt, str) or isinstance(prompt[0], int) else prompt


def _sampling(request: GenerationRequest, limit: int, number: int) -> Sampling:
    """Return how the text of a number is drawn."""
    return Sampling(
        max_tokens=limit,
        temperature=1.0 if request.temperature is None else request.temperature,
        top_p=1.0 if request.top_p is None else request.top_p,
        top_k=request.top_k,
        seed=None if request.seed is None else (request.seed + number) % _MOST_SEED,
        stop=request.stops,
    )
