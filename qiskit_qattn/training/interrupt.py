"""Ctrl-C and SIGTERM as a request to stop at the next safe place."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class TrainingInterrupted(KeyboardInterrupt):
    """Training was asked to stop, and its state has been saved.

    Attributes:
        folder: The run folder to resume.
        step: The step that was saved.
        signal: The number of the signal that asked.
    """

    def __init__(self, folder: Path, step: int, number: int) -> None:
        super().__init__(f"Training stopped at step {step} and was saved in {str(folder)!r}.")
        self.folder = folder
        self.step = step
        self.signal = number


class InterruptGuard:
    """A context in which the first SIGINT or SIGTERM only sets :attr:`received`; another SIGINT acts as usual.

    A launcher of several processes may pass on Ctrl-C as both signals, so SIGTERM stays without effect. Outside the
    main thread, where Python allows no signal handlers, it does nothing.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> InterruptGuard:
        """Take over the signals."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the signals back."""
        self._give_back()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or number
        if signal.SIGINT in self._previous:
            signal.signal(signal.SIGINT, self._previous.pop(signal.SIGINT))

    def _give_back(self) -> None:
        while self._previous:
            number, handler = self._previous.popitem()
            signal.signal(number, handler)
