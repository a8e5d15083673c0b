"""What clients may ask for: the requests of OpenAI's API, field by field."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from qiskit_qattn.serving.failures import Refusal

_Text = Annotated[str, Field(min_length=1)]
_Token = Annotated[int, Field(ge=0)]
_Unused = Annotated[Any, Field(description="Accepted for compatibility; without effect.")]
_Neutral = Annotated[Any, Field(description="Not supported; may be given with the value that asks for nothing.")]


class _Strict(BaseModel):
    """Fields of exactly these types; others are refused, as OpenAI does."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class StreamOptions(_Strict):
    """What a stream has besides text."""

    include_usage: Annotated[bool, Field(description="Add a last chunk with the number of tokens.")] = False
    include_obfuscation: _Unused = None


class GenerationRequest(_Strict):
    """The fields that both kinds of request have."""

    model: Annotated[str, Field(description="A name that /v1/models lists.")]
    temperature: Annotated[float | None, Field(ge=0, le=2, description="0: the most likely token.")] = None
    top_p: Annotated[float | None, Field(gt=0, le=1)] = None
    top_k: Annotated[int | None, Field(ge=1, description="Of this server, not of OpenAI's.")] = None
    seed: Annotated[int | None, Field(ge=-(2**63), lt=2**63)] = None
    stop: Annotated[_Text | Annotated[list[_Text], Field(max_length=4)] | None, Field()] = None
    max_tokens: Annotated[int | None, Field(ge=1)] = None
    n: Annotated[int | None, Field(ge=1, le=128, description="Texts per prompt: seeds seed, seed + 1, ….")] = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    metadata: _Unused = None
    prompt_cache_key: _Unused = None
    prompt_cache_retention: _Unused = None
    safety_identifier: _Unused = None
    service_tier: _Unused = None
    store: _Unused = None
    user: _Unused = None

    frequency_penalty: _Neutral = None
    logit_bias: _Neutral = None
    logprobs: _Neutral = None
    presence_penalty: _Neutral = None

    #: Of each field that is not supported, the values that ask for nothing, besides null.
    neutral: ClassVar[dict[str, tuple[Any, ...]]] = {
        "frequency_penalty": (0,),
        "logit_bias": ({},),
        "logprobs": (),
        "presence_penalty": (0,),
    }

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts that end an answer."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def limit(self) -> int | None:
        """The most tokens of an answer, if the request says."""
        return self.max_tokens

    def check_supported(self) -> None:
        """Raise for a field that asks for what this server does not do.

        Raises:
            Refusal: With status 400 and the name of the field.
        """
        for name, neutral in self.neutral.items():
            value = getattr(self, name)
            if value is not None and value not in neutral:
                raise unsupported(name)
        if self.stream_options is not None and not self.stream:
            raise Refusal(
                400, "The 'stream_options' parameter is only allowed when 'stream' is enabled.", param="stream_options"
            )


class CompletionRequest(GenerationRequest):
    """The body of ``/v1/completions``."""

    prompt: Annotated[
        str | list[str] | list[_Token] | list[list[_Token]],
        Field(description="A text, tokens, or a list of one of these."),
    ]
    echo: Annotated[bool | None, Field(description="Begin the answer with the prompt.")] = None

    best_of: _Neutral = None
    suffix: _Neutral = None

    neutral: ClassVar[dict[str, tuple[Any, ...]]] = {**GenerationRequest.neutral, "best_of": (1,), "suffix": ("",)}


class TextPart(_Strict):
    """A part of a message."""

    type: Literal["text"]
    text: str


class Message(_Strict):
    """A message of a conversation; only text is supported."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: _Unused = None
    refusal: _Unused = None

    @property
    def text(self) -> str:
        """Its text."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ChatRequest(GenerationRequest):
    """The body of ``/v1/chat/completions``."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int | None, Field(ge=1)] = None

    parallel_tool_calls: _Unused = None
    reasoning_effort: _Unused = None
    verbosity: _Unused = None

    audio: _Neutral = None
    function_call: _Neutral = None
    functions: _Neutral = None
    modalities: _Neutral = None
    moderation: _Neutral = None
    prediction: _Neutral = None
    response_format: _Neutral = None
    tool_choice: _Neutral = None
    tools: _Neutral = None
    top_logprobs: _Neutral = None
    web_search_options: _Neutral = None

    neutral: ClassVar[dict[str, tuple[Any, ...]]] = {
        **GenerationRequest.neutral,
        "audio": (),
        "function_call": ("none", "auto"),
        "functions": ([],),
        "logprobs": (False,),
        "modalities": (["text"],),
        "moderation": (),
        "prediction": (),
        "response_format": ({"type": "text"},),
        "tool_choice": ("none", "auto"),
        "tools": ([],),
        "top_logprobs": (0,),
        "web_search_options": (),
    }

    @property
    def limit(self) -> int | None:
        """The most tokens of an answer, if the request says."""
        return self.max_completion_tokens if self.max_tokens is None else self.max_tokens


def unsupported(name: str) -> Refusal:
    """Return the refusal of a field."""
    text = f"Unsupported parameter: '{name}' is not supported by this server."
    return Refusal(400, text, param=name, code="unsupported_parameter")
