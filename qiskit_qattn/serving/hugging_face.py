"""Causal language models of transformers as a server uses them, with replaced, adapted or plain attention."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import jinja2
import torch
from peft import PeftConfig
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

import qiskit_qattn.hf  # noqa: F401 - so that transformers knows its models, heads and adapters
from qiskit_qattn.backends.place import Place
from qiskit_qattn.errors import CheckpointError, ConfigError, DataError, QattnError
from qiskit_qattn.nn.inference import inference
from qiskit_qattn.nn.placement import to_backend
from qiskit_qattn.nn.quantize import Quantization
from qiskit_qattn.nn.quantize import quantize as quantized
from qiskit_qattn.serving.served_model import Chat, Join, ServedModel
from qiskit_qattn.serving.text import TextDecoder, WindowDecoder

_CONTEXT = 2048  # of models that state none


class ServedTransformer(ServedModel):
    """A causal language model of transformers, which keeps keys and values in a ``DynamicCache``.

    Args:
        name: What requests call it.
        model: The model; where it holds circuits, a copy for inference computes.
        tokenizer: Its tokenizer.
        place: Where its circuits run, if a backend was given.
        quantize: How classical weights are rounded, as :func:`~qiskit_qattn.nn.quantize.quantize` takes it, or None.

    Raises:
        ConfigError: For a model that keeps another state of earlier tokens, as a recurrent one does.
    """

    rolls = False

    def __init__(
        self,
        name: str,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        place: Place | None = None,
        quantize: Quantization | None = None,
    ) -> None:
        super().__init__(name, model, place)
        config: Any = model.config.get_text_config()
        self.context = int(getattr(config, "max_position_embeddings", None) or _CONTEXT)
        self.vocab_size, self.tokenizer = int(config.vocab_size), tokenizer
        self.chats = bool(tokenizer.chat_template)
        ends = getattr(model.generation_config, "eos_token_id", None)
        self.ends = frozenset([] if ends is None else [ends] if isinstance(ends, int) else ends)
        if quantize is not None:
            self._model = quantized(model, quantize)
        else:
            self._model = inference(model) if self.parts else model.eval()
        self._takes = set(inspect.signature(model.forward).parameters)
        self._check(model)

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text, with those that the tokenizer puts before one.

        Raises:
            DataError: For a text without tokens, or one outside the vocabulary.
        """
        found = self.tokenizer.encode(text)
        if not found:
            raise DataError("The prompt is empty; give at least one character.")
        return found

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens, without special ones."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def decoder(self, prompt: Sequence[int]) -> TextDecoder:
        """Return what writes the tokens after a prompt one by one."""
        return WindowDecoder(self.decode, prompt)

    def chat(self, messages: Chat) -> list[int] | None:
        """Return the tokens of a conversation, up to where the answer begins; None without a template.

        Raises:
            DataError: For messages that the template does not take.
        """
        if not self.chats:
            return None
        conversation: Any = [dict(each) for each in messages]
        try:
            found: Any = self.tokenizer.apply_chat_template(conversation, add_generation_prompt=True, return_dict=False)
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            raise DataError(f"The chat template of {self.name} does not take these messages: {error}") from error
        return list(found)

    def new_cache(self) -> DynamicCache:
        """Return an empty cache."""
        return DynamicCache()

    def combine(self, caches: Sequence[DynamicCache], join: Join) -> DynamicCache:
        """Return the cache whose every part is what ``join`` makes of that part of the caches."""
        found = DynamicCache()
        for same in zip(*(cache.layers for cache in caches), strict=True):
            layer = DynamicLayer()
            layer.update(*(join([getattr(each, part) for each in same]) for part in ("keys", "values")))
            found.layers.append(layer)
        return found

    def logits(self, tokens: Tensor, positions: Tensor, real: Tensor | None, cache: Any) -> Tensor:
        """Return logits after the last token, shape ``(B, V)``."""
        options = {"position_ids": positions, "logits_to_keep": 1, "use_cache": True}
        if real is not None:
            options["attention_mask"] = real.long()
        known = {name: value for name, value in options.items() if name in self._takes}
        return self._model(input_ids=tokens, cache=cache, **known).logits[:, -1].float()

    def _check(self, model: PreTrainedModel) -> None:
        """Check that the model keeps keys and values alone, and run a pass, so that the first request finds all ready.

        Layers that would keep the last of them only, within a sliding window, keep all here, and its mask is the same.
        """
        kept = {type(layer) for layer in DynamicCache(config=model.config).layers}
        if "cache" not in self._takes or not kept <= {DynamicLayer, DynamicSlidingWindowLayer}:
            raise ConfigError(
                f"A {type(model).__name__} keeps another state of earlier tokens than keys and values, so requests "
                f"cannot share its passes."
            )
        self.tokenizer("")  # it takes off what its file says of padding, which is not safe while other threads use it
        zero = torch.zeros(1, 1, dtype=torch.long, device=self.device)
        with torch.no_grad():
            self.logits(zero, zero, None, self.new_cache())


def load_transformer(
    name: str, source: str, device: torch.device, place: Place | None, quantize: Quantization | None = None
) -> ServedTransformer:
    """Return a model of transformers in a folder or on the Hub, with its circuits on a place.

    Raises:
        CheckpointError: For a model or tokenizer that cannot be loaded.
        ConfigError: For one that cannot be served.
    """
    try:
        tokenizer = _tokenizer(source)
        model: Any = AutoModelForCausalLM.from_pretrained(source)
        model = model.to(device)
    except QattnError as error:
        raise CheckpointError(f"{source!r} holds a model that cannot be built: {error}") from error
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{source!r} holds no causal language model that can be loaded: {reason}") from error
    if place is not None:
        to_backend(model, place)
    return ServedTransformer(name, model, tokenizer, place, quantize)


def _tokenizer(source: str) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a model, for adapters without one that of their model."""
    try:
        return AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        try:
            base = PeftConfig.from_pretrained(source).base_model_name_or_path
        except ValueError:  # there are no adapters
            raise error from None
        return AutoTokenizer.from_pretrained(base)
