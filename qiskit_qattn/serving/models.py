"""Models as a server loads them: a GPT of this package, or one of transformers, from a folder or the Hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import LocalEntryNotFoundError
from torch import Tensor

from qiskit_qattn.backends.place import Place
from qiskit_qattn.errors import CheckpointError, ConfigError, DataError, RunFolderError
from qiskit_qattn.nn.attention import KeyValueCache
from qiskit_qattn.nn.gpt import GPT, Decoder
from qiskit_qattn.nn.inference import inference
from qiskit_qattn.nn.placement import to_backend
from qiskit_qattn.nn.pretrained import MODEL_TYPE
from qiskit_qattn.nn.quantize import Quantization
from qiskit_qattn.nn.quantize import quantize as quantized
from qiskit_qattn.serving.served_model import Chat, Join, ServedModel
from qiskit_qattn.serving.text import CharDecoder, TextDecoder
from qiskit_qattn.training.checkpoint import find_model
from qiskit_qattn.training.tokenizer import CharTokenizer
from qiskit_qattn.untrusted import read_json


class ServedGPT(ServedModel):
    """A GPT of this package; its circuits on the exact engine are folded into its projections.

    Args:
        name: What requests call it.
        model: A :class:`GPT`, or another model with its modules, such as ``QattnForCausalLM``.
        tokenizer: Its tokenizer.
        place: Where its circuits run, if a backend was given.
        quantize: How classical weights are rounded, as :func:`~qiskit_qattn.nn.quantize.quantize` takes it, or None.

    Raises:
        CheckpointError: For a tokenizer of another vocabulary.
    """

    rolls = True

    def __init__(
        self,
        name: str,
        model: Decoder,
        tokenizer: CharTokenizer,
        place: Place | None = None,
        quantize: Quantization | None = None,
    ) -> None:
        super().__init__(name, model, place)
        self.context, self.vocab_size = model.config.block_size, model.config.vocab_size
        if tokenizer.vocab_size != self.vocab_size:
            raise CheckpointError(
                f"The tokenizer of {name!r} has {tokenizer.vocab_size} characters, but its model {self.vocab_size}."
            )
        self.tokenizer = tokenizer
        self._model = inference(model) if quantize is None else quantized(model, quantize)

    def encode(self, text: str) -> list[int]:
        """Return a token for each character.

        Raises:
            DataError: For an empty text.
            TokenError: For a character outside the vocabulary.
        """
        if not text:
            raise DataError("The prompt is empty; give at least one character.")
        return self.tokenizer.encode(text).tolist()

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the characters."""
        return self.tokenizer.decode(tokens)

    def decoder(self, prompt: Sequence[int]) -> TextDecoder:
        """Return what writes the tokens after a prompt one by one."""
        return CharDecoder(self.decode)

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
        before = next((keys.shape[-2] for keys, _ in cache[0].pairs.values()), 0)
        logits, _ = Decoder.forward(
            self._model, tokens, caches=cache, position=before, positions=positions, real=real
        )  # (B, S, V)
        return logits[:, -1]


def load(
    source: str, *, backend: str | Place | None = None, device: str = "auto", quantize: Quantization | None = None
) -> ServedModel:
    """Return a model that is ready to be served.

    Args:
        source: A run folder, a saved model's folder, or the name of a model on the Hugging Face Hub.
        backend: Where circuits run: a backend string, a chain of them, or the place that one opened; None for the
            exact engine.
        device: Torch's device; ``auto`` takes a GPU where there is one.
        quantize: How classical weights are rounded: ``int8``; None as they are.

    Raises:
        RunFolderError: If there is no model.
        CheckpointError: For a model that cannot be loaded.
        ConfigError, BackendError: For a backend or device that cannot be used.
    """
    where = _device(device)
    folder = Path(source)
    if folder.exists():
        name, found = folder.resolve().name, str(_model_folder(folder))
    elif source.count("/") > 1 or source.startswith(("/", ".", "~")):
        raise RunFolderError(f"There is no folder {source!r}.")
    elif "/" in source and folder.parent.is_dir():
        raise RunFolderError(f"There is no folder {folder.name!r} in {str(folder.parent)!r}.")
    else:
        name = found = source
    place = None if backend is None else Place.of(backend)
    if _is_ours(found):
        model = GPT.from_pretrained(found, map_location=where)
        if place is not None:
            to_backend(model, place)
        return ServedGPT(name, model, CharTokenizer.load(_file(found, "tokenizer.json")), place, quantize)
    from qiskit_qattn.serving.hugging_face import load_transformer

    return load_transformer(name, found, where, place, quantize)


def _device(name: str) -> torch.device:
    """Return torch's device of a name, or of ``auto``."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(name)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device must be auto, or one that torch has here, such as cpu; got {name!r}.") from error
    return found


def _model_folder(folder: Path) -> Path:
    """Return the folder of a run's model, or a saved model's folder."""
    if any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
        return folder
    return find_model(folder)


def _is_ours(source: str) -> bool:
    """Tell whether a folder or a name on the Hub holds a GPT of this package."""
    try:
        saved = read_json(_file(source, "config.json"))
    except LocalEntryNotFoundError as error:
        if isinstance(try_to_load_from_cache(source, "adapter_config.json"), str):
            return False
        raise RunFolderError(
            f"There is no folder {source!r}, and the Hugging Face Hub, where it may be, cannot be reached."
        ) from error
    except (OSError, ValueError):  # transformers says what is wrong, or loads adapters, which have another file
        return False
    return isinstance(saved, dict) and saved.get("model_type", MODEL_TYPE) == MODEL_TYPE


def _file(source: str, name: str) -> Path:
    """Return the path of a model's file, which is downloaded if the model is on the Hub."""
    folder = Path(source)
    return folder / name if folder.exists() else Path(hf_hub_download(source, name))
