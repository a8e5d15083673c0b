"""Sampling text from a GPT, token by token."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import NoneType
from typing import Any

import torch
from torch import Tensor, nn

from qiskit_qattn.errors import ConfigError, TokenError, counted
from qiskit_qattn.nn.attention import KeyValueCache
from qiskit_qattn.nn.inference import inference
from qiskit_qattn.untrusted import shown


def stream(
    model: nn.Module,
    idx: Tensor,
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int | None = None,
    use_cache: bool = True,
) -> Iterator[Tensor]:
    """Sample tokens one by one; each is yielded as a ``(B, 1)`` tensor.

    When the context is full it is cut to its last half, so that with the cache a token costs one evaluation of
    each head, amortised over the window, and the text is the same with and without the cache.

    Args:
        model: A :class:`GPT`; a copy of it for inference computes the tokens.
        idx: Prompt, shape ``(B, T)``, at least one token.
        max_new_tokens: How many tokens to sample.
        temperature: Divides the logits; 0 takes the likeliest token.
        top_k: Sample among the k likeliest tokens only.
        seed: Seed of the sampling; None uses torch's global generator.
        use_cache: Keep keys and values of earlier tokens instead of computing them again.

    Raises:
        ConfigError: For an empty prompt or one that is no tensor of tokens, such as a text, a negative temperature or
            number of tokens, or ``top_k`` below 1.
        TokenError: For a token that is not in the vocabulary.
    """
    options: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "seed": seed, "use_cache": use_cache}
    return (token for token, _ in steps(model, idx, max_new_tokens, **options))


def steps(
    model: nn.Module,
    idx: Tensor,
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int | None = None,
    use_cache: bool = True,
    forced: Tensor | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield each sampled token, shape ``(B, 1)``, and the logits that it was drawn by, shape ``(B, vocab_size)``.

    Runs with the same seed and the same forced tokens draw with the same random numbers after the same text, so that
    they can be compared token by token.

    Args:
        model: As for :func:`stream`.
        idx: As for :func:`stream`.
        max_new_tokens: As for :func:`stream`.
        temperature: As for :func:`stream`.
        top_k: As for :func:`stream`.
        seed: As for :func:`stream`.
        use_cache: As for :func:`stream`.
        forced: Tokens with which the text goes on in place of the sampled ones, shape ``(B, max_new_tokens)``.

    Raises:
        ConfigError, TokenError: As :func:`stream` does.
    """
    check_tokens(idx)
    if idx.shape[1] == 0:
        raise ConfigError(f"The prompt must have at least one token, got one of shape {tuple(idx.shape)}.")
    size = int(getattr(model, "config").vocab_size)  # noqa: B009 - of any module
    if not idx.is_meta and bool(((idx < 0) | (idx >= size)).any()):
        raise outside_vocabulary(idx, size)
    if type(max_new_tokens) is not int or type(top_k) not in (int, NoneType) or type(temperature) not in (int, float):
        raise ConfigError(
            f"max_new_tokens and top_k must be integers and temperature a number; got {shown(max_new_tokens)}, "
            f"{shown(top_k)} and {shown(temperature)}."
        )
    if not 0 <= temperature < math.inf or max_new_tokens < 0 or (top_k is not None and top_k < 1):
        raise ConfigError(
            f"temperature and max_new_tokens must be finite and at least 0, top_k at least 1; got {temperature}, "
            f"{max_new_tokens} and {top_k}."
        )
    if seed is not None and not 0 <= seed < 2**63:
        raise ConfigError(f"seed must lie between 0 and 2^63 - 1, got {seed}.")
    generator = None if seed is None else torch.Generator(idx.device).manual_seed(seed)
    return _steps(model, idx, max_new_tokens, temperature, top_k, generator, use_cache, forced)


def check_tokens(idx: Any) -> None:
    """Check that something is tokens as a GPT takes them: a tensor of integers of shape ``(B, T)``.

    Raises:
        ConfigError: If it is not.
    """
    if isinstance(idx, str):
        raise ConfigError(
            f"A GPT takes token ids, got the text {shown(idx)}: encode it with the model's tokenizer, as "
            f"CharTokenizer.load(folder / 'tokenizer.json') does, or use: qattn generate RUN --prompt TEXT."
        )
    if not isinstance(idx, Tensor):
        raise ConfigError(f"A GPT takes a tensor of token ids of shape (B, T), got {shown(idx)}.")
    if idx.dtype not in (torch.int64, torch.int32):
        raise ConfigError(f"A GPT takes token ids in int64 or int32, got a tensor of {idx.dtype}.")
    if idx.ndim != 2:
        raise ConfigError(f"Tokens must have shape (B, T), got {tuple(idx.shape)}; one sequence is idx[None].")


def outside_vocabulary(idx: Tensor, size: int) -> TokenError:
    """Return the error for tokens of which some are not in a vocabulary of ``size``."""
    outside = idx[(idx < 0) | (idx >= size)].flatten()
    what = str(int(outside[0])) if len(outside) else "a token"
    return TokenError(
        f"Token {what} is outside the vocabulary: the model has {counted(size, 'token')}, 0 to {size - 1}."
    )


@torch.no_grad()
def _steps(
    model: nn.Module,
    idx: Tensor,
    max_new_tokens: int,
    temperature: float,
    top_k: int | None,
    generator: torch.Generator | None,
    use_cache: bool,
    forced: Tensor | None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield tokens and logits."""
    fixed: Any = inference(model)
    size = fixed.config.block_size
    start, done, caches = max(0, idx.shape[1] - size), 0, None
    for i in range(max_new_tokens):
        if idx.shape[1] - start > size:
            start, caches = idx.shape[1] - max(1, size // 2), None
        if caches is None:
            caches, done = [KeyValueCache() for _ in fixed.blocks], start
        if use_cache:
            logits, _ = fixed(idx[:, done:], caches=caches, position=done - start)
        else:
            logits, _ = fixed(idx[:, start:])
        done = idx.shape[1]
        token = _sample(logits[:, -1], temperature, top_k, generator)
        idx = torch.cat([idx, token if forced is None else forced[:, i : i + 1]], 1)
        yield token, logits[:, -1]


def _sample(logits: Tensor, temperature: float, top_k: int | None, generator: torch.Generator | None) -> Tensor:
    """Draw one token per row, shape ``(B, 1)``, from logits ``(B, vocab_size)``."""
    if temperature == 0:
        return logits.argmax(-1, keepdim=True)
    logits = (logits - logits.amax(-1, keepdim=True)).double() / temperature  # no overflow, however cold
    if top_k is not None:
        least = logits.topk(min(top_k, logits.shape[-1])).values[:, [-1]]
        logits = logits.masked_fill(logits < least, -torch.inf)
    return torch.multinomial(logits.softmax(-1), 1, generator=generator)
