"""The tokenizer: one token per character."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable

import numpy as np
import torch

from qiskit_qattn.errors import CheckpointError, RunFolderError, TokenError
from qiskit_qattn.training.files import write_atomically
from qiskit_qattn.untrusted import read_json

_FORMAT = "qiskit-qattn/char-tokenizer"
_VERSION = 1


class CharTokenizer:
    """The bijection between a sorted set of characters and 0 … vocab_size - 1.

    Args:
        text: Any text; its distinct characters, in code point order, are the vocabulary.

    Raises:
        TokenError: The text is empty.
    """

    def __init__(self, text: str) -> None:
        if not text:
            raise TokenError("The text is empty; a vocabulary needs at least one character.")
        self.characters = "".join(sorted(set(text)))
        self._points = _code_points(self.characters)  # (vocab_size,)

    @property
    def vocab_size(self) -> int:
        """The number of distinct characters."""
        return len(self.characters)

    def encode(self, text: str) -> torch.Tensor:
        """Return the token ids of ``text``.

        Args:
            text: Characters of the vocabulary only.

        Returns:
            The ids, ``torch.long``, of shape (len(text),).

        Raises:
            TokenError: The text has characters outside the vocabulary; the message names them.
        """
        points = _code_points(text)  # (T,)
        ids = np.searchsorted(self._points, points)  # (T,)
        known = self._points[np.minimum(ids, self.vocab_size - 1)] == points  # (T,)
        if not known.all():
            unknown = sorted({chr(point) for point in points[~known]})
            raise TokenError(
                f"The text has {_some(unknown)}, outside the vocabulary. "
                f"Allowed are the {self.vocab_size} characters {self.characters!r}."
            )
        return torch.from_numpy(ids.astype(np.int64))  # (T,)

    def decode(self, ids: torch.Tensor | Iterable[int]) -> str:
        """Return the text whose token ids are ``ids``.

        Args:
            ids: A 1-D tensor or any iterable of integers in [0, vocab_size).

        Raises:
            TokenError: An id is outside that range.
        """
        numbers = ids.tolist() if isinstance(ids, torch.Tensor) else [int(i) for i in ids]
        unknown = sorted({number for number in numbers if not 0 <= number < self.vocab_size})
        if unknown:
            raise TokenError(
                f"The token ids include {_some(unknown)}; this vocabulary has the ids 0 to {self.vocab_size - 1}."
            )
        return "".join([self.characters[number] for number in numbers])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the vocabulary as JSON, completely or not at all.

        Args:
            path: The file, ``tokenizer.json`` by convention.

        Raises:
            RunFolderError: The file cannot be written.
        """
        record = {"format": _FORMAT, "version": _VERSION, "characters": self.characters}
        try:
            write_atomically(path, (json.dumps(record, indent=2) + "\n").encode("ascii"))
        except OSError as error:
            raise RunFolderError(f"Cannot write the tokenizer to {os.fspath(path)}: {error.strerror}.") from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> CharTokenizer:
        """Return the tokenizer that :meth:`save` wrote to ``path``.

        Args:
            path: The JSON file.

        Raises:
            CheckpointError: The file is missing, damaged or not a character tokenizer of this version.
        """
        where = os.fspath(path)
        try:
            record = read_json(path)
        except OSError as error:
            raise CheckpointError(f"Cannot read the tokenizer {where}: {error.strerror}.") from error
        except ValueError as error:  # both what is not UTF-8 and what is not JSON
            raise CheckpointError(f"The tokenizer {where} is not valid JSON: {error}.") from error
        if not isinstance(record, dict) or record.get("format") != _FORMAT:
            raise CheckpointError(f'{where} is not a tokenizer of qiskit-qattn: "format" must be "{_FORMAT}".')
        if record.get("version") != _VERSION:
            raise CheckpointError(
                f"The tokenizer {where} has version {record.get('version')!r}; this release reads {_VERSION}."
            )
        characters = record.get("characters")
        if not isinstance(characters, str) or not characters or list(characters) != sorted(set(characters)):
            raise CheckpointError(
                f'The tokenizer {where} is damaged: "characters" must be a non-empty string, sorted, without repeats.'
            )
        return cls(characters)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CharTokenizer) and other.characters == self.characters

    def __hash__(self) -> int:
        return hash(self.characters)

    def __repr__(self) -> str:
        return f"CharTokenizer({self.characters!r})"


def _code_points(text: str) -> np.ndarray:
    """Return the Unicode code points of ``text`` as an array of shape (len(text),)."""
    return np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), dtype="<u4")


def _some(items: list[str] | list[int], limit: int = 10) -> str:
    """Return ``items`` as a readable list, cut after ``limit`` of them."""
    shown = ", ".join(repr(item) for item in items[:limit])
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit} more"
