"""From tokens to text as they come: characters of several tokens, and strings that end a text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

_BROKEN = "\ufffd"  # what decoders write for bytes that are no character, or not yet
_CONTEXT = 6  # tokens of the prompt that may change how the first ones after it are written, such as by a space
_LONGEST = 16  # tokens of one character, of which even a composed emoji has fewer


class TextDecoder(Protocol):
    """Turns tokens into text one by one; all that it returned is the text of all tokens."""

    def add(self, token: int) -> str:
        """Return the text that a token completes, perhaps none."""

    def end(self) -> str:
        """Return what is left of a character that was not completed."""


class CharDecoder:
    """A decoder for tokens that are characters.

    Args:
        decode: Turns tokens into text.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode

    def add(self, token: int) -> str:
        """Return the token's text."""
        return self._decode([token])

    def end(self) -> str:
        """Return an empty text: nothing is held back."""
        return ""


class WindowDecoder:
    """A decoder that compares the text of the last tokens with and without the newest.

    So a token whose text depends on the one before it, by a space or as a part of a character, is written as in the
    whole text.

    Args:
        decode: Turns tokens into text.
        prompt: The tokens before the first.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], prompt: Sequence[int]) -> None:
        self._decode = decode
        self._window = list(prompt[-_CONTEXT:])
        self._read = len(self._window)  # how many of these were returned

    def add(self, token: int) -> str:
        """Return the text that a token completes, perhaps none."""
        self._window.append(token)
        text = self._new()
        if text.endswith(_BROKEN) and len(self._window) - self._read < _LONGEST:
            return ""
        self._window, self._read = self._window[self._read :], len(self._window) - self._read
        return text

    def end(self) -> str:
        """Return what is left of a character that was not completed."""
        text, self._read = self._new(), len(self._window)
        return text

    def _new(self) -> str:
        before = self._decode(self._window[: self._read])
        return self._decode(self._window)[len(before) :]


class StopStrings:
    """Cuts a text before the first of some strings, wherever the pieces in which it comes end.

    Args:
        stop: The strings.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(stop)
        self._held = ""
        self.found = False

    def add(self, text: str) -> str:
        """Return what is certainly before all strings; ``found`` says whether one came."""
        if not self._stop:
            return text
        self._held += text
        at = [place for each in self._stop if (place := self._held.find(each)) >= 0]
        self.found = bool(at)
        ready = min(at) if at else len(self._held) - max(_overlap(self._held, each) for each in self._stop)
        text, self._held = self._held[:ready], "" if at else self._held[ready:]
        return text

    def end(self) -> str:
        """Return what was held back as the possible beginning of a string."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of a text that is a proper beginning of a string."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
