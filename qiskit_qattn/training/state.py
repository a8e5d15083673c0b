"""How far a run is and what it has seen: the part of a checkpoint that is plain JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class TrainLoss:
    """The mean cross-entropy (nats a token) of the batch of one step."""

    step: int
    loss: float


@dataclass(frozen=True)
class Validation:
    """Cross-entropies on the fixed validation batches before training step ``step``.

    ``val_loss`` is the mean over all positions, ``val_loss_last_position`` that of the last position alone, which
    has no future to leak from.
    """

    step: int
    train_loss: float | None
    val_loss: float
    val_loss_last_position: float


@dataclass
class TrainState:
    """The history and the clocks of one model's training.

    Attributes:
        step: Steps done.
        train: Logged training losses.
        val: Validations so far.
        tokens: Tokens trained on while ``train_seconds`` ran.
        train_seconds: Time in training steps.
        wall_seconds: Time altogether, over all resumed parts.
        cpu_seconds: Processor time altogether.
        profile: The hottest functions, once profiled.
    """

    step: int = 0
    train: list[TrainLoss] = field(default_factory=list)
    val: list[Validation] = field(default_factory=list)
    tokens: int = 0
    train_seconds: float = 0.0
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    profile: list[dict[str, Any]] | None = None

    @property
    def tokens_per_second(self) -> float:
        """Training throughput, validation and saving left out."""
        return self.tokens / self.train_seconds if self.train_seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainState:
        """Return the state that :meth:`to_dict` wrote."""
        return cls(
            **{
                **values,
                "train": [TrainLoss(**item) for item in values["train"]],
                "val": [Validation(**item) for item in values["val"]],
            }
        )
