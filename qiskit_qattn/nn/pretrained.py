"""Saving and loading models, in a folder or on the Hugging Face Hub."""

from __future__ import annotations

import inspect
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model
from torch import nn

from qiskit_qattn.errors import CheckpointError, QattnError, unknown_name
from qiskit_qattn.nn.config import GPTConfig
from qiskit_qattn.nn.placement import check_not_fixed
from qiskit_qattn.untrusted import read_json

MODEL_TYPE = "qattn"  # for Hugging Face's Auto classes
_NOT_OURS = {  # what those write into config.json besides the shape
    *("architectures", "auto_map", "bos_token_id", "chunk_size_feed_forward", "dtype", "eos_token_id", "id2label"),
    *("is_encoder_decoder", "label2id", "model_type", "output_hidden_states", "pad_token_id", "problem_type"),
    *("return_dict", "tie_word_embeddings", "tokenizer_class", "transformers_version", "use_cache"),
}
_FILES = ("config.json", "model.safetensors")
_LOADING = ("cache_dir", "force_download", "local_files_only", "map_location", "revision", "token")
_SAVING = {
    name
    for method in (PyTorchModelHubMixin.save_pretrained, PyTorchModelHubMixin.push_to_hub)
    for name, parameter in inspect.signature(method).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
}
_MODEL_CARD = """---
{{ card_data }}
---

A GPT of the package `qiskit-qattn`: `qiskit_qattn.GPT.from_pretrained(folder)`.
Its shape, heads and observables are in `config.json`.
"""


class Pretrained(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="qiskit-qattn",
    tags=["quantum-machine-learning", "qiskit"],
    license="apache-2.0",
    model_card_template=_MODEL_CARD,
):
    """The part of a GPT that is saved to a folder and loaded from it."""

    config: GPTConfig

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:
        """Write ``config.json`` and ``model.safetensors`` into a folder, which is made if it is not there.

        Args:
            save_directory: The folder.
            options: As for ``huggingface_hub.PyTorchModelHubMixin.save_pretrained``, such as ``push_to_hub`` and
                ``repo_id``.

        Raises:
            UnknownNameError: For an unknown option.
            ConfigError: For a copy for inference, whose circuits cannot be recovered.
        """
        _check_options("GPT.save_pretrained", options, _SAVING)
        check_not_fixed(self, "saved")
        return super().save_pretrained(save_directory, **options)

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write the weights, with the mode of any new file of the user: safetensors makes them private; and the shape.

        ``model_type`` and ``architectures`` are for Hugging Face's Auto classes.
        """
        super()._save_pretrained(save_directory)
        record = {**asdict(self.config), "model_type": MODEL_TYPE, "architectures": ["QattnForCausalLM"]}
        (save_directory / _FILES[0]).write_text(json.dumps(record, sort_keys=True, indent=2), "utf-8")
        with TemporaryDirectory(dir=save_directory) as scratch:
            (usual := Path(scratch) / "file").touch()
            (save_directory / _FILES[1]).chmod(usual.stat().st_mode)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> Self:
        """Load a model from a folder that ``save_pretrained`` wrote, or from the Hugging Face Hub.

        Args:
            pretrained_model_name_or_path: The folder, or the name of a model on the Hub.
            options: ``map_location``; for the Hub, ``cache_dir``, ``force_download``, ``local_files_only``,
                ``revision`` and ``token`` as for ``huggingface_hub.hf_hub_download``.

        Returns:
            The model in evaluation mode, with the weights, dtype and observables it was saved with.

        Raises:
            CheckpointError: For a folder that is not there, holds no model of ours, or a damaged one.
            UnknownNameError: For an unknown option.
        """
        _check_options("GPT.from_pretrained", options, _LOADING)
        folder = Path(pretrained_model_name_or_path)
        where = options.pop("map_location", None)
        if not folder.exists() and str(pretrained_model_name_or_path).count("/") != 1:
            raise CheckpointError(f"There is no folder {str(folder)!r}, and models on the Hub are named user/model.")
        if not folder.exists() and folder.parent.is_dir():
            raise CheckpointError(f"There is no folder {folder.name!r} in {str(folder.parent)!r}.")
        try:
            if not folder.exists():
                name = str(pretrained_model_name_or_path)
                folder, _ = (Path(hf_hub_download(name, file, **options)).parent for file in _FILES)
            return cls._load(folder).to(where)
        except QattnError as error:
            raise CheckpointError(f"{str(folder)!r} holds a model that cannot be built: {error}") from error
        except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(f"{str(folder)!r} holds no model this version can load: {reason}") from error

    @classmethod
    def _load(cls, folder: Path) -> Self:
        """Load a model from a folder, in the dtype it was saved in."""
        missing = [name for name in _FILES if not (folder / name).is_file()]
        if missing:
            raise CheckpointError(f"{', '.join(missing)} missing.")
        saved = read_json(folder / "config.json")
        shape = {"vocab_size", "block_size", "n_layer", "n_head", "n_embd", "heads"}
        if not isinstance(saved, dict) or not shape <= set(saved):
            raise CheckpointError(f"config.json is not of a qiskit-qattn GPT; it must hold {', '.join(sorted(shape))}.")
        model = cls(GPTConfig(**{name: value for name, value in saved.items() if name not in _NOT_OURS}))
        with safe_open(folder / "model.safetensors", "pt") as file:
            own = model.state_dict()
            for name in file.keys():  # noqa: SIM118 - no mapping
                dtype = file.get_tensor(name).dtype
                if name in own and dtype.is_floating_point != own[name].dtype.is_floating_point:
                    raise CheckpointError(f"{name} is of {dtype}, but must be of a type such as {own[name].dtype}.")
            model.to(file.get_tensor("wpe.weight").dtype)
        load_model(model, folder / "model.safetensors", strict=True)
        return model.eval()


def _check_options(call: str, options: Mapping[str, Any], known: Collection[str]) -> None:
    for name in options:
        if name not in known:
            raise unknown_name(f"option of {call}:", name, known)
