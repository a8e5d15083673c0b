"""What a server has to know of a language model: its texts, its passes, and where its circuits run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn

from qiskit_qattn.backends.place import Place
from qiskit_qattn.nn.mixed_heads import MixedHeads
from qiskit_qattn.nn.placement import Movable, Part, quantum_parts
from qiskit_qattn.serving.text import TextDecoder

Chat = Sequence[Mapping[str, Any]]
Join = Callable[[Sequence[Tensor]], Tensor]  # of one part of several caches, each (B, nh, T, ·), to that of one cache


class ServedModel(ABC):
    """A language model that continues texts, with what a server has to know of it.

    Attributes:
        name: What requests call it.
        context: Tokens that one pass sees at most.
        chats: Whether it has a template for conversations.
        rolls: Whether a text goes on past a full context, from its last half, as in :meth:`GPT.generate`.
        vocab_size: Tokens are 0 to this number − 1.
        ends: Tokens that end a text.
        device: Where its tensors are.
        parts: Its circuits.
        place: Where they run, if a backend was given.
        heads: Every head of attention whose kind is known: its layer, its number there, its kind, and the names of its
            circuits; circuits outside attention, such as those of adapters, follow with no number.
    """

    name: str
    context: int
    vocab_size: int
    rolls: bool
    chats: bool = False
    ends: frozenset[int] = frozenset()

    def __init__(self, name: str, model: nn.Module, place: Place | None = None) -> None:
        self.name, self.place = name, place
        self.device = next(model.parameters()).device
        holds = any(isinstance(module, Movable) for module in model.modules())
        self.parts: list[Part] = quantum_parts(model) if holds else []
        self.heads = _heads(model, self.parts)

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text.

        Raises:
            DataError: For an empty text, or one that is outside the vocabulary.
        """

    @abstractmethod
    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens."""

    @abstractmethod
    def decoder(self, prompt: Sequence[int]) -> TextDecoder:
        """Return what writes the tokens after a prompt one by one."""

    @abstractmethod
    def chat(self, messages: Chat) -> list[int] | None:
        """Return the tokens of a conversation, up to where the answer begins; None if the model is not for chats.

        Raises:
            DataError: For messages that the model's template does not take.
        """

    @abstractmethod
    def new_cache(self) -> Any:
        """Return an empty cache."""

    @abstractmethod
    def combine(self, caches: Sequence[Any], join: Join) -> Any:
        """Return the cache whose every part is what ``join`` makes of that part of the caches."""

    @abstractmethod
    def logits(self, tokens: Tensor, positions: Tensor, real: Tensor | None, cache: Any) -> Tensor:
        """Return logits after the last token, shape ``(B, V)``, and add the tokens to the cache.

        Args:
            tokens: Shape ``(B, S)``.
            positions: The position of each token, shape ``(B, S)``.
            real: Which tokens are not padding, including those in the cache, shape ``(B, T + S)``; None for all.
            cache: The cache of the T tokens before, from :meth:`new_cache`.
        """

    def devices(self) -> list[dict[str, Any]]:
        """Return of each device its name, whether it is paid, its budget, what was spent, and its circuit breaker."""
        if self.place is None or not self.place.devices:
            return []
        from qiskit_qattn.backends.jobs.retries import breaker_state  # it needs a provider's extra

        return [
            {
                "backend": backend.name,
                "paid": estimator.device.paid,
                "budget": None if estimator.budget is None else str(estimator.budget),
                "spent": asdict(estimator.spent),
                "breaker": breaker_state(estimator.device.name),
            }
            for backend, estimator in self.place.devices
        ]

    def close(self) -> None:
        """Close the sessions on devices that loading it opened.

        Raises:
            BackendError: If that fails.
        """
        if self.place is not None:
            self.place.close()


def _heads(model: nn.Module, parts: Sequence[Part]) -> list[dict[str, Any]]:
    """Return every head of attention whose kinds are known: its layer, number, kind, and the names of its circuits.

    Circuits outside attention, such as those of adapters, follow, with the number None.
    """
    names = {id(part.module): part.name for part in parts}
    layers = [module for module in model.modules() if isinstance(module, MixedHeads)]
    rows: list[dict[str, Any]] = []
    for layer, attention in enumerate(layers):
        for kind, count in attention.counts.items():
            own = [names.pop(id(circuit)) for circuit in attention.circuits(kind)]
            first = sum(row["layer"] == layer for row in rows)
            rows += [{"layer": layer, "head": first + i, "kind": kind, "circuits": own} for i in range(count)]
    kinds = {part.name: part.kind for part in parts}
    return rows + [{"layer": None, "head": None, "kind": kinds[name], "circuits": [name]} for name in names.values()]
