"""What a training loop tells whoever watches it."""

from __future__ import annotations

from qiskit_qattn.training.state import Validation


class Progress:
    """Receives the events of a run and shows nothing; subclasses show what they like.

    The loop calls it on the main process only.
    """

    def phase_started(self, name: str, step: int, max_steps: int) -> None:
        """Training of the model called ``name`` starts, or resumes, at ``step``."""

    def step_done(self, step: int, loss: float | None, tokens_per_second: float) -> None:
        """A step ended; ``loss`` is given every ``log_interval`` steps."""

    def validated(self, found: Validation, tokens_per_second: float) -> None:
        """A validation on the fixed batches ended."""

    def final_validation(self, done: int, total: int) -> None:
        """``done`` of ``total`` batches of the last validation are through."""

    def phase_finished(self, name: str, val_loss: float, val_loss_last_position: float) -> None:
        """The model called ``name`` is trained, validated and saved."""

    def message(self, text: str) -> None:
        """Something a person should know, in one line."""
