"""How a training loop and whoever watches it communicate: events out, and the request to stop in."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qiskit_qattn.training.checkpoint import Validation

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Progress:
    """Receives the events of a run and shows nothing; subclasses override what they show.

    The loop calls it in the main process only.
    """

    def forecast(self, seconds: Callable[[], Sequence[float] | None]) -> None:
        """Work is about to start; ``seconds`` measures how long each of its parts will take.

        It returns None where a device's queue decides, and nothing where only the work itself can show it. Whoever does
        not tell a user need not call it.
        """

    def counted(self, name: str, done: int, total: int) -> None:
        """``done`` of ``total`` items of the work called ``name`` are done; 0 where it starts."""

    def planned(self, phases: int, final: float) -> None:
        """``phases`` models will be trained; the final validation of each takes as long as ``final`` of the others."""

    def phase_started(self, name: str, step: int, max_steps: int) -> None:
        """Training of the model called ``name`` starts, or resumes, at ``step``."""

    def step_done(self, step: int, loss: float | None, tokens_per_second: float) -> None:
        """A step ended; ``loss`` is given every ``log_interval`` steps."""

    def validated(self, found: Validation, tokens_per_second: float) -> None:
        """A validation on the fixed batches ended."""

    def final_validation(self, done: int, total: int) -> None:
        """``done`` of ``total`` batches of the final validation are done."""

    def phase_finished(self, name: str, val_loss: float, val_loss_last_position: float | None) -> None:
        """The model called ``name`` is trained, validated and saved."""

    def message(self, text: str) -> None:
        """A line for the user."""


class TrainingInterrupted(KeyboardInterrupt):
    """A signal stopped the training; its state has been saved.

    Attributes:
        folder: The run folder to resume.
        step: The step that was saved.
        signal: The number of the signal.
    """

    def __init__(self, folder: Path, step: int, number: int) -> None:
        super().__init__(f"Training stopped at step {step} and was saved in {str(folder)!r}.")
        self.folder = folder
        self.step = step
        self.signal = number


class InterruptGuard:
    """A context in which the first SIGINT or SIGTERM only sets :attr:`received`; another SIGINT acts as usual.

    A launcher of several processes may forward Ctrl-C as both signals, so a later SIGTERM has no effect. Outside the
    main thread, where Python allows no signal handlers, it does nothing.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> InterruptGuard:
        """Install the handlers."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore the previous handlers."""
        while self._previous:
            number, handler = self._previous.popitem()
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or number
        if signal.SIGINT in self._previous:
            signal.signal(signal.SIGINT, self._previous.pop(signal.SIGINT))
