"""Models as a server uses them: loaded from a folder or the Hub, with their texts, passes and backends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qiskit_qattn.backends.place import Place
from qiskit_qattn.errors import CheckpointError, DataError
from qiskit_qattn.nn.attention import KeyValueCache, MixedHeads
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.nn.gpt import Decoder as GPTDecoder
from qiskit_qattn.nn.inference import inference
from qiskit_qattn.nn.placement import Part, audit, quantum_parts, to_backend
from qiskit_qattn.serving.batch import Join
from qiskit_qattn.serving.text import Decoder, LetterDecoder
from qiskit_qattn.training.checkpoint import find_model
from qiskit_qattn.training.tokenizer import CharTokenizer

Chat = Sequence[Mapping[str, Any]]


class ServedModel(ABC):
    """A language model that continues texts, with what a server has to know of it.

    Attributes:
        name: What requests call it.
        context: Tokens that one pass sees at most.
        rolls: Whether a text goes on past a full context, from its last half, as in :meth:`GPT.generate`.
        vocab_size: Tokens are 0 to this number − 1.
        ends: Tokens that end a text.
        device: Where its tensors are.
        parts: Its circuits.
        place: Where they run, if a backend was given.
    """

    name: str
    context: int
    vocab_size: int
    rolls: bool
    ends: frozenset[int] = frozenset()

    def __init__(self, name: str, model: nn.Module, place: Place | None = None) -> None:
        self.name, self.place = name, place
        self.device = next(model.parameters()).device
        holds = any(hasattr(module, "circuit_name") for module in model.modules())
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
    def decoder(self, prompt: Sequence[int]) -> Decoder:
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
        """Return logits after the last token, as :class:`~qiskit_qattn.serving.batch.CachedModel` says."""

    def audit(self) -> dict[str, Any]:
        """Return what was computed where, as :func:`qiskit_qattn.audit` does; empty unless on a chain or a group."""
        return audit(nn.ModuleList(part.module for part in self.parts)) if self.parts else {}

    def close(self) -> None:
        """Close the sessions on devices that loading it opened.

        Raises:
            BackendError: If that fails.
        """
        if self.place is not None:
            self.place.close()


class ServedGPT(ServedModel):
    """A GPT of this package; its circuits on the exact engine are folded into its projections.

    Args:
        name: What requests call it.
        model: A :class:`GPT`, or another model with its modules, such as ``QattnForCausalLM``.
        tokenizer: Its tokenizer.
        place: Where its circuits run, if a backend was given.

    Raises:
        CheckpointError: For a tokenizer of another vocabulary.
    """

    rolls = True

    def __init__(self, name: str, model: GPTDecoder, tokenizer: CharTokenizer, place: Place | None = None) -> None:
        super().__init__(name, model, place)
        self.context, self.vocab_size = model.config.block_size, model.config.vocab_size
        if tokenizer.vocab_size != self.vocab_size:
            raise CheckpointError(
                f"The tokenizer of {name!r} has {tokenizer.vocab_size} characters, but its model {self.vocab_size}."
            )
        self.tokenizer, self._model = tokenizer, inference(model)

    def encode(self, text: str) -> list[int]:
        """Return a token for each character."""
        if not text:
            raise DataError("The prompt is empty; give at least one character.")
        return self.tokenizer.encode(text).tolist()

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the characters."""
        return self.tokenizer.decode(tokens)

    def decoder(self, prompt: Sequence[int]) -> Decoder:
        """Return what writes the tokens after a prompt one by one."""
        return LetterDecoder(self.decode)

    def chat(self, messages: Chat) -> list[int] | None:
        """Return None: a GPT of characters is not for chats."""
        return None

    def new_cache(self) -> list[KeyValueCache]:
        """Return an empty cache for each layer."""
        return [KeyValueCache() for _ in self._model.blocks]

    def combine(self, caches: Sequence[list[KeyValueCache]], join: Join) -> list[KeyValueCache]:
        """Return the cache whose every part is what ``join`` makes of that part of the caches."""
        found = self.new_cache()
        for layer, *others in zip(found, *caches, strict=True):
            for part in others[0].pairs:
                keys, values = zip(*(other.pairs[part] for other in others), strict=True)
                layer.pairs[part] = join(keys), join(values)
        return found

    def logits(self, tokens: Tensor, positions: Tensor, real: Tensor | None, cache: Any) -> Tensor:
        """Return logits after the last token, shape ``(B, V)``."""
        before = 0 if real is None and not cache[0].pairs else _seen(cache[0])
        logits, _ = GPTDecoder.forward(
            self._model, tokens, caches=cache, position=before, positions=positions, real=real
        )  # (B, S, V)
        return logits[:, -1]


def _seen(cache: KeyValueCache) -> int:
    """Return how many tokens a cache holds."""
    return next((keys.shape[-2] for keys, _ in cache.pairs.values()), 0)


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


def load(
    source: str, *, backend: str | Place | None = None, device: str = "auto", quantize: str | None = None
) -> ServedModel:
    """Return a model that is ready to be served.

    Args:
        source: A run folder, a saved model's folder, or the name of a model on the Hugging Face Hub.
        backend: Where circuits run: a backend string, a chain of them, or the place that one opened; None for the
            exact engine.
        device: Torch's device; ``auto`` takes a GPU where there is one.
        quantize: How classical weights are stored; None as they are.

    Raises:
        RunFolderError: If there is no model.
        CheckpointError: For a model that cannot be loaded.
        ConfigError, BackendError: For a backend or device that cannot be used.
    """
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    folder = Path(source)
    name = folder.resolve().name if folder.exists() else source
    found = find_model(folder)
    model: Any = GPT.from_pretrained(found, map_location=where)
    tokenizer = CharTokenizer.load(found / "tokenizer.json")
    place = None if backend is None else Place.of(backend)
    if place is not None:
        to_backend(model, place)
    return ServedGPT(name, model, tokenizer, place)
