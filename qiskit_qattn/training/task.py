"""A user's own model with its data, and the batches that are drawn from them."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.data import DataLoader, TensorDataset, default_collate

from qiskit_qattn.errors import ConfigError
from qiskit_qattn.training.config import TrainConfig
from qiskit_qattn.untrusted import shown

Metric = Callable[[Any, Any], Any]


@dataclass(frozen=True, eq=False)
class Task:
    r"""A model, what it is trained on, and how it is judged.

    Each step minimises ``loss(model(*inputs), target)`` over a batch :math:`(x_1, \dots, x_k, y)` of ``train``: all
    items of a batch but the last are the model's inputs, the last is the target. A batch that is a mapping is given to
    the model by name, ``model(**batch)``, and to the loss as the target. Without ``loss`` the model gets the target,
    too, and computes its own: it returns ``(output, loss)`` or an object with ``.loss``, and ``.logits`` as its output.

    Attributes:
        model: The model.
        train: A dataset with a length and an index, as ``torch.utils.data`` has it, or a tuple of tensors or arrays of
            equal length. Batches are drawn from it here, so that they depend on the seed alone: give no DataLoader.
        validation: Likewise; the loss over all of it decides.
        loss: The mean loss over the batch, as a tensor with one number.
        metric: Other figures to report: a function of output and target to their mean over the batch, or several by
            name.
        collate: Makes a batch from a list of the dataset's items.

    Raises:
        ConfigError: For a part of another type, or data that are empty.
    """

    model: nn.Module
    train: Any
    validation: Any
    loss: Callable[[Any, Any], Tensor] | None = None
    metric: Metric | Mapping[str, Metric] | None = None
    collate: Callable[[list[Any]], Any] = default_collate

    def __post_init__(self) -> None:
        """Check the parts, so that a wrong one fails before any training."""
        if not isinstance(self.model, nn.Module):
            raise ConfigError(f"model must be a torch.nn.Module, got {shown(self.model)}.")
        if any(map(is_lazy, (*self.model.parameters(), *self.model.buffers()))):
            raise ConfigError("The model has lazy parameters; call it once, so that their shapes are known.")
        for name in ("train", "validation"):
            object.__setattr__(self, name, _dataset(name, getattr(self, name)))
        for name, optional in (("loss", True), ("collate", False)):
            part = getattr(self, name)
            if not callable(part) and not (optional and part is None):
                raise ConfigError(f"{name} must be a function{' or None' if optional else ''}, got {shown(part)}.")
        if not all(isinstance(name, str) and callable(function) for name, function in self.metrics.items()):
            raise ConfigError(f"metric must be a function or several by name, got {shown(self.metric)}.")

    @property
    def metrics(self) -> dict[str, Metric]:
        """The metrics by name; a single one has the name of its function."""
        if self.metric is None:
            return {}
        if isinstance(self.metric, Mapping):
            return dict(self.metric)
        return {getattr(self.metric, "__name__", type(self.metric).__name__): self.metric}

    def __call__(self, model: nn.Module, batch: Any) -> tuple[Any, Any, Tensor]:
        """Return the output, the target and the loss of a batch, through ``model``, which may be a wrapped one.

        Raises:
            ConfigError: For a batch or a loss of another type.
        """
        named = isinstance(batch, Mapping)
        if not named and not (isinstance(batch, tuple | list) and len(batch) > 1):
            raise ConfigError(
                f"A batch must be a tuple of inputs and a target, or a mapping, got {described(batch)}; each item of a"
                " dataset must have both."
            )
        target = batch if named else batch[-1]
        if self.loss is None:
            found = model(**batch) if named else model(*batch)
            pair = isinstance(found, tuple | list) and len(found) > 1
            output = found[0] if pair else getattr(found, "logits", found)
            loss = found[1] if pair else getattr(found, "loss", None)
        else:
            output = model(**batch) if named else model(*batch[:-1])
            loss = self.loss(output, target)
        if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.is_floating_point():
            expected = "The loss must return a tensor of one number"
            if self.loss is None:
                expected = "Without a loss the model must return (output, loss), or an object with .loss, of one number"
            raise ConfigError(f"{expected}, got {described(loss)}.")
        return output, target, loss.reshape(())

    def measured(self, output: Any, target: Any) -> dict[str, float]:
        """Return the metrics of a batch by name.

        Raises:
            ConfigError: If one is no number.
        """
        found = {}
        for name, function in self.metrics.items():
            value = function(output, target)
            try:
                found[name] = float(value)
            except (RuntimeError, TypeError, ValueError) as error:
                raise ConfigError(f"The metric {name!r} must return one number, got {described(value)}.") from error
        return found


def _dataset(name: str, given: Any) -> Any:
    """Return data as a dataset with a length and an index.

    Raises:
        ConfigError: For anything else, or an empty one.
    """
    if isinstance(given, tuple) and given and all(isinstance(part, Tensor | np.ndarray) for part in given):
        parts = [torch.as_tensor(part) for part in given]
        if len({len(part) if part.dim() else -1 for part in parts}) > 1:
            raise ConfigError(f"The tensors of {name} have different lengths: {[tuple(p.shape) for p in parts]}.")
        given = TensorDataset(*parts)
    if not (hasattr(given, "__len__") and hasattr(given, "__getitem__")):
        hint = " Give its dataset: batches are drawn here." if isinstance(given, DataLoader) else ""
        raise ConfigError(
            f"{name} must be a dataset with a length and an index, or a tuple of tensors, got {described(given)}.{hint}"
        )
    if not len(given):
        raise ConfigError(f"{name} is empty; it must have at least one item.")
    return given


def described(value: Any) -> str:
    """Return the type of a value, or the shape of a tensor, for an error."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def batch_indices(count: int, size: int, step: int, seed: int) -> list[int]:
    """Return which of ``count`` items make up the batch of a step: every item once in each pass over the data.

    The items of all passes, each in a random order of its own, follow one another, and a batch is the next ``size``.
    """
    found: list[int] = []
    start = step * size
    while len(found) < size:
        epoch, offset = divmod(start + len(found), count)
        found += _order(count, seed, epoch)[offset : offset + size - len(found)].tolist()
    return found


@lru_cache(maxsize=8)
def _order(count: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(derived_seed(seed, epoch)))


def derived_seed(*numbers: int) -> int:
    """Return a seed that depends on all numbers."""
    return int.from_bytes(hashlib.sha256(repr(numbers).encode()).digest()[:7], "big")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's global generators for a block, and restore them after it."""
    before, numbers = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if torch.cuda.is_initialized() else []):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(before)
            np.random.set_state(numbers)


def drawn(task: Task, data: Any, seed: int, step: int, size: int) -> Any:
    """Return the batch of a step; what a dataset draws at random depends on the seed and the step alone, too."""
    return collated(task, data, batch_indices(len(data), size, step, seed), derived_seed(seed, step, 1))


def collated(task: Task, data: Any, chosen: list[int], seed: int) -> Any:
    """Return a batch of the chosen items."""
    with seeded(seed):
        return task.collate([data[index] for index in chosen])


def data_hash(task: Task, config: TrainConfig) -> str:
    """Return a hash of the sizes of a task's data, of its first batch and of the first batch it is validated on."""
    digest = hashlib.sha256(repr((len(task.train), len(task.validation))).encode())
    for data, seed in ((task.train, config.seed), (task.validation, config.seed + 1)):
        _hash(drawn(task, data, seed, 0, min(config.batch_size, len(data))), digest.update)
    return digest.hexdigest()


def _hash(value: Any, update: Callable[[bytes], None]) -> None:
    """Hash the tensors, numbers and texts in a batch."""
    if isinstance(value, Tensor):
        update(repr((value.dtype, value.shape)).encode())
        update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(value, Mapping):
        for key in value:
            update(repr(key).encode())
            _hash(value[key], update)
    elif isinstance(value, tuple | list):
        for item in value:
            _hash(item, update)
    elif isinstance(value, int | float | str):
        update(repr(value).encode())
