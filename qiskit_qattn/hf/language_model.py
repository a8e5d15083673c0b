"""The GPT of this package as a Hugging Face model: its configuration, its class, and its tokenizer."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from huggingface_hub.dataclasses import strict
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    Cache,
    DynamicCache,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.cache_utils import DynamicLayer
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils.deprecation import deprecate_kwarg
from transformers.utils.generic import can_return_tuple

from qiskit_qattn.errors import CheckpointError, ConfigError, TokenError
from qiskit_qattn.hf.attention import freeze_controls
from qiskit_qattn.nn.attention import KeyValueCache
from qiskit_qattn.nn.config import GPTConfig
from qiskit_qattn.nn.gpt import Decoder, LayerNorm, init_weights
from qiskit_qattn.nn.heads import QuantumHead
from qiskit_qattn.nn.pretrained import MODEL_TYPE
from qiskit_qattn.untrusted import read_json

_FIELDS = tuple(field.name for field in fields(GPTConfig))
_TOKENIZER = {"format": "qiskit-qattn/char-tokenizer", "version": 1}


@strict
class QattnConfig(PreTrainedConfig):
    """The shape of a :class:`QattnForCausalLM`: the settings of :class:`~qiskit_qattn.GPTConfig`, by the same names."""

    model_type = MODEL_TYPE
    attribute_map: ClassVar[dict[str, str]] = {
        "hidden_size": "n_embd",
        "max_position_embeddings": "block_size",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    }

    vocab_size: int = 65
    block_size: int = 64
    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 128
    dropout: float | int = 0.0
    bias: bool = False
    heads: str | list[str] | tuple[str, ...] = "qisa:2,classical:2"
    num_qubits: int | None = 5
    reps: int | None = None
    observables: dict[str, Any] | None = None
    n_inner: int | None = None
    sampling: str | None = None
    use_cache: bool = True
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        """Check every field and choose the observables, as :class:`~qiskit_qattn.GPTConfig` does."""
        super().__post_init__(**kwargs)
        if not self.tie_word_embeddings:
            raise ConfigError("tie_word_embeddings must be true: a GPT's output map is its token embedding.")
        chosen = self.shape().observables
        self.observables = {name: list(labels) for name, labels in (chosen or {}).items()}

    def shape(self) -> GPTConfig:
        """Return the settings as this package's own configuration."""
        return GPTConfig(**{name: getattr(self, name) for name in _FIELDS})


class QattnForCausalLM(PreTrainedModel, GenerationMixin, Decoder):
    """A GPT with quantum heads as a model of transformers: the modules and the files are those of :class:`GPT`.

    So ``from_pretrained`` takes what ``GPT.save_pretrained`` wrote, such as ``RUN/model``, and the reverse. With and
    without a cache, greedy generation gives what :meth:`GPT.generate` gives for prompts that fit into the context. The
    cache is a ``DynamicCache``. Tokens may be padded on either side: each sequence gives what it gives alone.

    Args:
        config: The model's shape.
    """

    config_class = QattnConfig
    config: QattnConfig
    base_model_prefix = ""
    _tied_weights_keys = {"lm_head.weight": "wte.weight"}  # noqa: RUF012
    _no_split_modules = ["Block"]  # noqa: RUF012

    def __init__(self, config: QattnConfig) -> None:
        super().__init__(config)
        self._build(config.shape())
        if not self.wte.weight.is_meta:  # otherwise weights are loaded, or drawn where there are none
            # the mark of transformers, without which post_init draws the weights again by its rules
            for module in self.modules():
                vars(module)["_is_hf_initialized"] = True
        self.post_init()

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str] | None, *args: Any, **kwargs: Any
    ) -> Self:
        """Load a model from a saved model's folder, a run folder, or the Hub; options as for any model."""
        run = Path(pretrained_model_name_or_path or "")
        if not (run / "config.json").is_file() and (run / "model" / "config.json").is_file():
            pretrained_model_name_or_path = run / "model"
        found: Any = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        freeze_controls(found[0] if isinstance(found, tuple) else found)  # with output_loading_info
        return found

    def _init_weights(self, module: nn.Module) -> None:
        """Draw weights that a checkpoint lacks."""
        init_weights(module)
        if isinstance(module, LayerNorm):
            nn.init.ones_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        if isinstance(module, QuantumHead):
            module.reset_parameters()

    def get_input_embeddings(self) -> nn.Module:
        """Return the token embedding."""
        return self.wte

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embedding."""
        self.wte = value  # type: ignore[assignment]

    @can_return_tuple
    @deprecate_kwarg("past_key_values", "5.40.0", new_name="cache")
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Return logits for every position and, with labels, their mean cross-entropy in nats.

        Args:
            input_ids: Tokens, shape ``(B, T)``.
            attention_mask: 0 for padding, otherwise 1; of tokens in the cache and ``input_ids``, shape ``(B, S)``.
            position_ids: Positions of ``input_ids``, shape ``(B or 1, T)``; None counts the tokens that are no padding.
            cache: Keys and values of earlier tokens, a ``DynamicCache``, to which those of ``input_ids`` are added.
            labels: ``input_ids``, or −100 where a token does not count; they are shifted here.
            use_cache: Whether to return a cache; None does what the configuration says, but not in training.
            kwargs: For the loss, such as ``num_items_in_batch``.

        Raises:
            ConfigError: For a mask, positions or cache that do not fit, a context longer than ``block_size``, or an
                output that this model does not give.
            TokenError: On a CPU, for a token that is not in the vocabulary.
        """
        for name in ("output_attentions", "output_hidden_states"):
            if kwargs.get(name):
                raise ConfigError(f"{type(self).__name__} has no {name}.")
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        if cache is None and use_cache:
            cache = DynamicCache()
        if cache is not None and not isinstance(cache, DynamicCache):
            raise ConfigError(f"The cache must be a DynamicCache, got a {type(cache).__name__}.")
        position, size = 0 if cache is None else cache.get_seq_length(), self.config.block_size
        caches: Any = None if cache is None else [_Parts(cache)] * self.config.n_layer
        real = None
        if attention_mask is not None and input_ids.ndim == 2:
            real = _real(attention_mask, input_ids, position)
            steps = input_ids.shape[1]
            input_ids = input_ids.masked_fill(~real[:, -steps:], 0)  # padding may be outside the vocabulary
            if not (real[:, 1:] & ~real[:, :-1]).any():
                real = None  # causal attention sees no padding on the right
            elif position_ids is None:
                position_ids = (real.cumsum(-1) - 1).clamp_min(0)[:, -steps:]
        if position_ids is not None:
            fits = position_ids.shape[-1:] == input_ids.shape[-1:] and position_ids.dtype == torch.long
            if not fits or not 0 <= int(position_ids.min()) <= int(position_ids.max()) < size:
                raise ConfigError(f"position_ids must be one integer for each token, below block_size={size}.")
        try:
            logits, _ = Decoder.forward(
                self, input_ids, caches=caches, position=position, positions=position_ids, real=real
            )  # (B, T, vocab_size)
        except IndexError as error:  # of the embedding, on a CPU
            largest, known = int(input_ids.max()), self.config.vocab_size
            raise TokenError(f"There is a token {largest}, but vocab_size is {known}: another tokenizer's?") from error
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(loss=loss, logits=logits, cache=cache)

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        next_sequence_length: int | None = None,
        cache: Cache | None = None,
        attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return what a step of generation takes.

        When the context is full it goes on from its last half, as in :meth:`GPT.generate`.
        """
        size, total = self.config.block_size, input_ids.shape[1]
        step = size + 1 - max(1, size // 2)
        start = step * max(0, -((size - total) // step))  # of the context, in tokens
        done = 0 if cache is None else cache.get_seq_length()
        new = total - start if next_sequence_length is None else next_sequence_length
        if cache is not None and done > 0 and done + new > size:
            cache.crop(-done)
            done = 0
        if done == 0:
            new = total - start
        if attention_mask is not None:
            attention_mask = attention_mask[:, total - (done + new) : total]
        return {
            "input_ids": input_ids[:, total - new :].contiguous(),
            "cache": cache,
            "attention_mask": attention_mask,
            "use_cache": kwargs.get("use_cache"),
        }


def _real(attention_mask: Tensor, input_ids: Tensor, position: int) -> Tensor:
    """Return which tokens are no padding, those in the cache included, shape ``(B, position + T)``."""
    shape = (input_ids.shape[0], position + input_ids.shape[1])
    if tuple(attention_mask.shape) != shape:
        raise ConfigError(f"attention_mask must have shape {shape}, cache included, got {tuple(attention_mask.shape)}.")
    return attention_mask.bool()


class _Parts(KeyValueCache):
    """The cache of a GPT's layers in one of transformers: each group of heads is one of its layers."""

    def __init__(self, cache: DynamicCache) -> None:
        super().__init__()
        self.cache, self.count = cache, 0

    def extend(self, part: str, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append new keys and values, each ``(B, nh, T, ·)``, and return all of them; groups come in a fixed order."""
        if self.count == len(self.cache.layers):
            self.cache.layers.append(DynamicLayer())
        self.count += 1
        return self.cache.update(k, v, self.count - 1)


class QattnTokenizer(PreTrainedTokenizerFast):
    """One token per character, as a fast tokenizer; its file is the one that ``qattn train`` writes.

    Args:
        characters: The vocabulary, in the order of the ids.
        kwargs: As for any fast tokenizer.

    Raises:
        TokenError: (when called) for characters outside the vocabulary.
    """

    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012

    def __init__(self, characters: str = "", **kwargs: Any) -> None:
        if not characters:
            raise TokenError("A tokenizer needs at least one character.")
        self.characters = characters
        kwargs.pop("tokenizer_object", None)
        kwargs.setdefault("clean_up_tokenization_spaces", False)
        super().__init__(tokenizer_object=_backend(characters), characters=characters, **kwargs)

    @classmethod
    def _from_pretrained(cls, resolved_vocab_files: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Take the file out of sight of the base class, which would read it as one of the library tokenizers."""
        files = {**resolved_vocab_files, "characters_file": resolved_vocab_files.get("tokenizer_file")}
        files.pop("tokenizer_file", None)
        return super()._from_pretrained(files, *args, **kwargs)

    @classmethod
    def convert_to_native_format(cls, trust_remote_code: bool = False, **kwargs: Any) -> dict[str, Any]:
        """Return what the constructor takes, from the file."""
        if (path := kwargs.pop("characters_file", None)) is not None:
            kwargs["characters"] = _read_characters(path)
        return kwargs

    def _encode_plus(self, text: Any, text_pair: Any = None, *args: Any, **kwargs: Any) -> Any:  # of every call
        unknown = sorted(set(_letters(text)).union(_letters(text_pair)) - set(self.characters))
        if unknown:
            raise TokenError(
                f"The text has {', '.join(map(repr, unknown[:10]))}, outside the vocabulary. Allowed are the "
                f"{len(self.characters)} characters {self.characters!r}."
            )
        return super()._encode_plus(text, text_pair, *args, **kwargs)

    def _save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        file_names: tuple[str, ...],
        legacy_format: bool | None = None,
        filename_prefix: str | None = None,
    ) -> tuple[str, ...]:
        path = Path(save_directory) / f"{filename_prefix + '-' if filename_prefix else ''}tokenizer.json"
        path.write_text(json.dumps({**_TOKENIZER, "characters": self.characters}, indent=2) + "\n", "ascii")
        return (*file_names, str(path))


def _letters(texts: Any) -> Iterator[str]:
    """Yield the characters of a text, or of texts in lists and pairs."""
    for each in texts if isinstance(texts, str | list | tuple) else ():
        yield from each if isinstance(texts, str) else _letters(each)


def _backend(characters: str) -> Tokenizer:
    """Return a tokenizer of the library tokenizers with one token per character."""
    tokenizer = Tokenizer(models.WordLevel({letter: i for i, letter in enumerate(characters)}, unk_token=""))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def _read_characters(path: str | os.PathLike[str]) -> str:
    """Return the vocabulary in a file that ``qattn train`` wrote.

    Raises:
        CheckpointError: For another file.
    """
    try:
        record = read_json(path, dict[str, Any])
    except (OSError, ValueError) as error:
        raise CheckpointError(f"Cannot read the tokenizer {os.fspath(path)}: {error}") from error
    characters = record.get("characters")
    if {name: record.get(name) for name in _TOKENIZER} != _TOKENIZER or not isinstance(characters, str):
        raise CheckpointError(f"{os.fspath(path)} is not a tokenizer of qiskit-qattn of version 1.")
    return characters


AutoConfig.register(MODEL_TYPE, QattnConfig)
AutoModelForCausalLM.register(QattnConfig, QattnForCausalLM)
AutoTokenizer.register(QattnConfig, fast_tokenizer_class=QattnTokenizer)
