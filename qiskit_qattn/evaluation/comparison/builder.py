"""The build function of a comparison, which a user writes: how it is found, called and checked.

The function takes a kind and a seed. If it has parameters named ``width``, ``vocab_size``, ``block_size``, ``split`` or
``config``, it is given these, too: the width that makes a model as large as the reference's, the sizes of the text, the
split of the data, and all settings.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from qiskit_qattn.errors import ConfigError, QattnError
from qiskit_qattn.evaluation.comparison.matching import Size, match_width, size_of
from qiskit_qattn.training.config import TrainConfig
from qiskit_qattn.training.data import Corpus
from qiskit_qattn.training.task import Task, described, drawn, seeded
from qiskit_qattn.untrusted import one_line

_OPTIONAL = ("width", "vocab_size", "block_size", "split", "config")


@dataclass(frozen=True)
class Builder:
    """A function that builds models.

    Attributes:
        name: Where it is: ``package.module:function``.
        function: The function.
        takes: Which of ``width``, ``vocab_size``, ``block_size``, ``split`` and ``config`` it takes.
        source: A hash of the file it is in; empty where there is none.
    """

    name: str
    function: Callable[..., Any]
    takes: frozenset[str]
    source: str

    def build(self, kind: str, seed: int, config: TrainConfig, text: Callable[[], Corpus], width: int = 0) -> Task:
        """Call the function under a seed of all random generators, which are restored, and return what it built.

        Args:
            kind: The kind.
            seed: The seed.
            config: The settings of a cell.
            text: Returns the text; called for a function that takes ``vocab_size`` or returns a language model.
            width: The width, if it is not the function's own choice.

        Raises:
            ConfigError: If the function raises, or returns something else than it may.
        """
        given: dict[str, Any] = {"block_size": config.model.block_size, "width": width or None}
        given |= {"split": config.split, "config": config}
        if "vocab_size" in self.takes:
            given["vocab_size"] = text().tokenizer.vocab_size
        call = f"{self.name}({kind!r}, {seed}{f', width={width}' if width else ''})"
        with seeded(seed):
            try:
                found = self.function(kind, seed, **{name: given[name] for name in self.takes})
            except QattnError as error:
                raise ConfigError(f"{call}: {error}") from error
            except (Exception, SystemExit) as error:  # whatever a third party's function raises
                raise ConfigError(f"{call} raised {_reason(error)}") from error
        try:
            return self._task(found, config.model.block_size, text)
        except ConfigError as error:
            raise ConfigError(f"{call}: {error}") from error

    def _task(self, found: Any, block_size: int, text: Callable[[], Corpus]) -> Task:
        """Return what the function returned as a task."""
        names = [field.name for field in fields(Task)]
        if isinstance(found, Mapping):
            if unknown := [str(name) for name in found if name not in names]:
                raise ConfigError(f"it returned a dict with {', '.join(unknown)}, but may have: {', '.join(names)}.")
            if missing := [name for name in names[:3] if name not in found]:
                raise ConfigError(f"it returned a dict without {', '.join(missing)}; it must have those.")
            found = Task(**found)
        if isinstance(found, nn.Module):
            return text_task(found, block_size, text())
        if not isinstance(found, Task):
            raise ConfigError(
                f"it returned {described(found)}, but must return a qa.Task, a dict with its fields"
                f" ({', '.join(names)}), or a torch.nn.Module, a language model, which is trained on the text."
            )
        return found


def load_builder(name: str) -> Builder:
    """Return the function at ``package.module:function``, found from the current directory, as ``python -m`` finds it.

    Raises:
        ConfigError: If there is none, or it cannot be imported or called with a kind and a seed.
    """
    match = re.fullmatch(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*):([^\W\d]\w*)", name)
    if match is None:
        raise ConfigError(f"--build {name!r} must be of the form package.module:function.")
    module_name, function_name = match.groups()
    if (here := os.getcwd()) not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # whatever a third party's module raises
        raise ConfigError(f"--build {name!r}: importing {module_name} from {here!r} raised {_reason(error)}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        where = f" in {_file(module)!r}" if _file(module) else ""
        raise ConfigError(f"--build {name!r}: the module{where} has no function {function_name}.")
    try:
        parameters = inspect.signature(function).parameters
        takes = frozenset(name for name in _OPTIONAL if name in parameters)
        inspect.signature(function).bind("", 0, **dict.fromkeys(takes))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"--build {name!r} must take a kind and a seed, and may take {', '.join(_OPTIONAL)}: {error}."
        ) from error
    return Builder(name, function, takes, _hash(_file(module)))


def text_task(model: nn.Module, block_size: int, corpus: Corpus) -> Task:
    """Return the task of a language model on a text.

    A model that takes tokens and targets returns its own loss, (idx, targets) -> (logits, loss), as a GPT does. Of one
    that takes tokens only, the loss is the cross-entropy of its logits.
    """
    try:
        inspect.signature(model.forward).bind(None, None)
        loss = None
    except TypeError:
        loss = _cross_entropy
    return Task(model, Windows(corpus.train, block_size, 1), Windows(corpus.val, block_size, block_size), loss)


def _cross_entropy(output: Any, targets: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy of logits ``(B, T, V)``, the output, its first item or its ``.logits``."""
    logits = output[0] if isinstance(output, tuple | list) else getattr(output, "logits", output)
    if not isinstance(logits, torch.Tensor) or logits.shape[:-1] != targets.shape:
        raise ConfigError(
            f"Expected logits of shape {(*targets.shape, 'vocabulary')} from the model, got {described(logits)}."
        )
    return nn.functional.cross_entropy(logits.flatten(0, -2).float(), targets.flatten())


@dataclass(frozen=True, eq=False)
class Windows:
    """The windows of a text as (tokens, the tokens that follow), each of shape ``(T,)``.

    Attributes:
        tokens: The text, shape ``(N,)``.
        length: T.
        stride: Tokens from the start of one window to that of the next; T for windows that do not overlap.
    """

    tokens: torch.Tensor
    length: int
    stride: int

    def __len__(self) -> int:
        """Return the number of windows."""
        return (len(self.tokens) - 1 - self.length) // self.stride + 1

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a window and its targets."""
        start = index * self.stride
        return self.tokens[start : start + self.length], self.tokens[start + 1 : start + self.length + 1]


def on_text(task: Task) -> bool:
    """Return whether a task is that of a language model on the study's text."""
    return isinstance(task.train, Windows)


def built_sizes(
    builder: Builder, kinds: tuple[str, ...], reference: str, config: TrainConfig, text: Callable[[], Corpus]
) -> tuple[dict[str, Size], bool]:
    """Return the sizes of all kinds' models, and whether they are trained on the text; one batch of each is tried.

    A function that takes ``width`` decides the reference's itself (``width=None``); every other kind is given the width
    from 1 on with which the number of parameters is nearest to the reference's.

    Raises:
        ConfigError: If the function, a model or a loss raises, or some kinds are trained on the text and some are not.
    """

    def sized(kind: str, width: int) -> Size:
        return size_of(kind, width, builder.build(kind, config.seed, config, text, width).model)

    found, language = {}, set()
    for kind in kinds:
        task = builder.build(kind, config.seed, config, text)
        _try(f"{builder.name}({kind!r}, {config.seed})", task, config)
        language.add(on_text(task))
        found[kind] = size_of(kind, 0, task.model)
    if len(language) > 1:
        raise ConfigError(f"{builder.name} must return data for all kinds or for none.")
    target = found[reference].total
    for kind in kinds:
        if kind != reference and "width" in builder.takes:
            found[kind] = match_width(partial(sized, kind), target)
        found[kind] = replace(found[kind], deviation=found[kind].total / target - 1)
    return found, language.pop()


def _try(call: str, task: Task, config: TrainConfig) -> None:
    """Compute the loss of one batch of each split, so that what cannot be trained fails before any cell."""
    if not any(weight.requires_grad for weight in task.model.parameters()):
        raise ConfigError(f"{call}: its model has no parameter to train.")
    for name, data in (("train", task.train), ("validation", task.validation)):
        try:
            with seeded(config.seed), torch.no_grad():
                batch = drawn(task, data, config.seed, 0, min(config.batch_size, len(data)))
                output, target, loss = task(task.model, batch)
                task.measured(output, target)
                if name == "train":
                    with torch.enable_grad():
                        loss = task(task.model, batch)[2]
        except QattnError as error:
            raise ConfigError(f"{call}: {error}") from error
        except Exception as error:  # whatever a third party's model, loss or dataset raises
            raise ConfigError(f"{call}: the loss of a batch of {name} raised {_reason(error)}") from error
        if name == "train" and not loss.requires_grad:
            raise ConfigError(f"{call}: its loss depends on no parameter that is trained.")


def _reason(error: BaseException) -> str:
    text = one_line(str(error))
    return f"{type(error).__name__}{': ' if text else ''}{text}"


def _file(module: Any) -> str:
    return getattr(module, "__file__", None) or ""


def _hash(path: str) -> str:
    """Return a hash of a source file; empty if it cannot be read."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else ""
    except OSError:
        return ""
