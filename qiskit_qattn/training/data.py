"""From a text to the batches that a language model is trained and validated on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from qiskit_qattn.errors import ConfigError, DataError
from qiskit_qattn.training.corpora import load_text
from qiskit_qattn.training.tokenizer import CharTokenizer


@dataclass(frozen=True, eq=False)
class Corpus:
    """A text as tokens, split by position.

    Attributes:
        tokenizer: The tokenizer of the text.
        train: Nine tenths of the tokens, ``torch.long``, of shape (N_train,).
        val: The other tenth, of shape (N_val,).
    """

    tokenizer: CharTokenizer
    train: torch.Tensor
    val: torch.Tensor


def load_corpus(
    name_or_path: str | os.PathLike[str], block_size: int, *, tokenizer: CharTokenizer | None = None, split: int = 0
) -> Corpus:
    """Return a corpus as tokens: the first 90 % to train on, the last 10 % to validate on, or another tenth.

    Args:
        name_or_path: What :func:`~qiskit_qattn.training.corpora.load_text` takes.
        block_size: The context length; each split must hold one window and the token after it.
        tokenizer: The tokenizer of a saved model; by default the vocabulary is the text's own characters.
        split: Which tenth is validated on, counted from the end; what is before and after it is trained on.

    Raises:
        DataError: The text is not available, repeats one character, or is too short for ``block_size``.
        TokenError: The text has characters outside the given tokenizer's vocabulary.
    """
    return split_corpus(load_text(name_or_path), block_size, tokenizer=tokenizer, split=split)


def split_corpus(text: str, block_size: int, *, tokenizer: CharTokenizer | None = None, split: int = 0) -> Corpus:
    """Return ``text`` as a :class:`Corpus`; the other arguments and the errors are those of :func:`load_corpus`."""
    _at_least_one(block_size=block_size)
    if text and len(set(text)) < 2:
        raise DataError(f"The text repeats the one character {text[0]!r}; at least 2 different ones are needed.")
    tokenizer = tokenizer or CharTokenizer(text)
    tokens = tokenizer.encode(text)  # (N,)
    start, end = (len(tokens) * tenth // 10 for tenth in (9 - split, 10 - split))
    train = torch.cat([tokens[:start], tokens[end:]]) if split else tokens[:start]  # (N_train,)
    val = tokens[start:end]  # (N_val,)
    if min(len(train), len(val)) < block_size + 1:
        raise DataError(
            f"The text is too short: its {len(tokens)} characters split into {len(train)} to train on and {len(val)} "
            f"to validate on, and a block size of {block_size} needs at least {block_size + 1} in each. "
            f"Give a text of {10 * (block_size + 1)} characters or more, or a smaller block size."
        )
    return Corpus(tokenizer=tokenizer, train=train, val=val)


def fingerprint(corpus: Corpus) -> str:
    """Return a hash of a corpus, by which a resumed run recognises its text."""
    digest = hashlib.sha256(corpus.tokenizer.characters.encode("utf-8", "surrogatepass"))
    for part in (corpus.train, corpus.val):
        digest.update(part.numpy().tobytes())
    return digest.hexdigest()


def random_batch(
    data: torch.Tensor, batch_size: int, block_size: int, generator: torch.Generator | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return windows of ``data`` at random positions, and the same windows one token later.

    y[b, t] = x[b, t + 1] is the target of a model that has read x[b, :t + 1].

    Args:
        data: Tokens, of shape (N,) with N > block_size, on any device.
        batch_size: Number of windows, B.
        block_size: Length of a window, T.
        generator: A CPU generator that draws the positions, so that a seed gives the same batches on every device.

    Returns:
        (x, y), both of shape (B, T) and on the device of ``data``.

    Raises:
        ConfigError: A size below one.
        DataError: ``data`` is shorter than block_size + 1.
    """
    _window_count(data, batch_size, block_size)
    starts = torch.randint(len(data) - block_size, (batch_size, 1), generator=generator)  # (B, 1)
    positions = starts + torch.arange(block_size + 1)  # (B, T + 1)
    windows = data[positions.to(data.device)]  # (B, T + 1)
    return windows[:, :-1].contiguous(), windows[:, 1:].contiguous()  # (B, T), (B, T)


def sequential_batches(
    data: torch.Tensor, batch_size: int, block_size: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Iterate once over all non-overlapping windows of ``data``, in order: an exact validation pass.

    There are ⌊(N - 1) / T⌋ windows; the remaining tokens at the end, fewer than T, are left out.

    Args:
        data: Tokens, of shape (N,) with N > block_size.
        batch_size: Windows per batch, B; the last batch may be smaller.
        block_size: Length of a window, T.

    Returns:
        An iterator of (x, y), both of shape (B, T).

    Raises:
        ConfigError: A size below one.
        DataError: ``data`` is shorter than block_size + 1.
    """
    count = _window_count(data, batch_size, block_size)
    x = data[: count * block_size].view(count, block_size)  # (count, T)
    y = data[1 : count * block_size + 1].view(count, block_size)  # (count, T)
    return zip(x.split(batch_size), y.split(batch_size), strict=True)


def _window_count(data: torch.Tensor, batch_size: int, block_size: int) -> int:
    """Return how many non-overlapping windows fit, after checking the sizes."""
    _at_least_one(batch_size=batch_size, block_size=block_size)
    if len(data) < block_size + 1:
        raise DataError(f"{len(data)} tokens were given; a block size of {block_size} needs at least {block_size + 1}.")
    return (len(data) - 1) // block_size


def _at_least_one(**sizes: int) -> None:
    """Check that each of the named sizes is positive."""
    for name, size in sizes.items():
        if size < 1:
            raise ConfigError(f"{name} is {size}; it must be at least 1.")
