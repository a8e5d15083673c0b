"""The tasks of a comparison beside a text: sentences and digits, each with a small transformer encoder.

Each function here builds a model and its data as a user's function for ``--build`` does. The encoder has the layers,
heads, width and qubits that the settings give a GPT, so that a comparison over several tasks is at one size. Its
attention sees the whole input, in blocks of :class:`torch.nn.TransformerEncoderLayer` with a norm in front.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qiskit_qattn.errors import ConfigError, missing_dependency
from qiskit_qattn.nn.replace import replace_attention
from qiskit_qattn.training.config import TrainConfig
from qiskit_qattn.training.labelled import load_task
from qiskit_qattn.training.task import Task

WORDS = 500  # entries of the vocabulary of sentences: padding, unknown words, and the most frequent words
PATCH = 2  # pixels of a side of a patch of a digit
_PAD, _UNKNOWN = 0, 1


class Encoder(nn.Module):
    """A transformer encoder with one kind of head, the mean of whose outputs is classified.

    Args:
        embed: Maps an input to tokens, shape ``(B, T, d)``.
        length: T.
        classes: Number of classes.
        kind: The heads of every layer, as :func:`~qiskit_qattn.nn.replace.replace_attention` takes them.
        width: Width of the MLP's hidden layer.
        config: Has the number of layers and heads, d, the dropout, the qubits and ansatz layers of circuits, and how
            attention is sampled.
    """

    def __init__(self, embed: nn.Module, length: int, classes: int, kind: str, width: int, config: TrainConfig) -> None:
        super().__init__()
        model = config.model
        self.embed = embed
        self.position = nn.Parameter(0.02 * torch.randn(length, model.n_embd))  # (T, d)
        layer = nn.TransformerEncoderLayer(
            model.n_embd, model.n_head, width, model.dropout, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(
            layer, model.n_layer, nn.LayerNorm(model.n_embd), enable_nested_tensor=False
        )
        replace_attention(self.encoder, kind, num_qubits=model.num_qubits, reps=model.reps, sampling=model.sampling)
        self.out = nn.Linear(model.n_embd, classes)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        """Return the logits, shape ``(B, classes)``.

        Args:
            x: The inputs, for ``embed``.
            padding: Where a token is padding, shape ``(B, T)``.
        """
        y = self.encoder(self.embed(x) + self.position, src_key_padding_mask=padding)  # (B, T, d)
        kept = (~padding).unsqueeze(-1).to(y.dtype)  # (B, T, 1)
        return self.out((y * kept).sum(1) / kept.sum(1))


class Patches(nn.Module):
    """The square patches of images ``(B, 8, 8)``, as tokens of width d: shape ``(B, 16, d)``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.map = nn.Linear(PATCH**2, width)

    def forward(self, images: Tensor) -> Tensor:
        """Return the tokens."""
        patches = images.unfold(1, PATCH, PATCH).unfold(2, PATCH, PATCH)  # (B, 4, 4, 2, 2)
        return self.map(patches.flatten(3).flatten(1, 2))


def accuracy(output: Tensor, target: Tensor) -> Tensor:
    """Return the share of a batch that is classified correctly."""
    return (output.argmax(-1) == target).float().mean()


def digits(kind: str, seed: int, *, width: int | None = None, split: int = 0, config: TrainConfig) -> Task:
    """Return a vision transformer on scikit-learn's 1,797 digits of 8 × 8 pixels, which the package itself ships.

    Raises:
        MissingDependencyError: If scikit-learn is not installed.
    """
    images, labels = _digits()
    embed = Patches(config.model.n_embd)
    model = Encoder(embed, (8 // PATCH) ** 2, 10, kind, width or config.model.mlp_width, config)
    parts = _held_out(len(labels), len(labels) // 5, split)
    padding = torch.zeros(len(labels), (8 // PATCH) ** 2, dtype=torch.bool)
    train, held = ((images[rows], padding[rows], labels[rows]) for rows in parts)
    return Task(model, train, held, F.cross_entropy, accuracy)


def sentences(
    name: str, kind: str, seed: int, *, width: int | None = None, split: int = 0, config: TrainConfig
) -> Task:
    """Return a classifier of the sentences of a task of :func:`~qiskit_qattn.training.labelled.load_task`.

    Sentences are cut to ``block_size`` words; the vocabulary is that of the rows for training. Split 0 is the task's
    own; others draw as many rows for validation from all rows.

    Raises:
        DataError: If the task cannot be had.
    """
    length = config.model.block_size
    train, held, classes = _sentence_rows(name, length, split)
    embed = nn.Embedding(WORDS, config.model.n_embd, padding_idx=_PAD)
    model = Encoder(embed, length, classes, kind, width or config.model.mlp_width, config)
    return Task(model, train, held, F.cross_entropy, accuracy)


films = partial(sentences, "films")
cola = partial(sentences, "cola")
sst2 = partial(sentences, "sst2")

CHARACTERS = "characters"  # the task of a GPT on the text of ``data``
TASKS: dict[str, str] = {CHARACTERS: "", **{name: f"{__name__}:{name}" for name in ("films", "cola", "sst2", "digits")}}
#: What each task is, in words for a report.
ABOUT = {
    CHARACTERS: "a GPT that predicts the next character of a text",
    "films": "an encoder that tells positive from negative sentences of film reviews",
    "cola": "an encoder that tells whether a sentence is acceptable (CoLA)",
    "sst2": "an encoder that tells positive from negative sentences (SST-2)",
    "digits": "a vision transformer that reads handwritten digits of 8 × 8 pixels",
}


def task_of(build: str) -> str:
    """Return the name of the task that a study's ``build`` stands for; its own name if it is a user's."""
    return next((name for name, function in TASKS.items() if function == build), build)


def is_custom(build: str) -> bool:
    """Return whether a study's ``build`` is a user's function, whose kinds need not be kinds of head."""
    return bool(build) and task_of(build) == build


def _held_out(total: int, count: int, split: int) -> tuple[Tensor, Tensor]:
    """Return the rows for training and the ``count`` rows for validation of a split, which are drawn with its number.

    Raises:
        ConfigError: If there are too few.
    """
    if not 0 < count < total:
        raise ConfigError(f"{total} rows are too few to hold {count} of them out.")
    order = torch.randperm(total, generator=torch.Generator().manual_seed(split))
    return order[count:], order[:count]


@cache
def _digits() -> tuple[Any, Any]:
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise missing_dependency("scikit-learn", "compare") from error
    images, labels = load_digits(return_X_y=True)
    return torch.tensor(images / 16, dtype=torch.float32).view(-1, 8, 8), torch.tensor(labels)


@cache
def _sentence_rows(name: str, length: int, split: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], int]:
    """Return the rows for training and for validation as (tokens, padding, labels), and the number of classes."""
    task = load_task(name)
    texts = [re.findall(r"[a-z']+|[^\sa-z']", text.lower()) for text in (*task.train.first, *task.dev.first)]
    labels, count = torch.tensor([*task.train.labels, *task.dev.labels]), len(task.dev)
    train, held = torch.arange(len(texts) - count), torch.arange(len(texts) - count, len(texts))  # the task's own
    if split:
        train, held = _held_out(len(texts), count, split)
    words = Counter(word for row in train.tolist() for word in texts[row])
    index = {word: number for number, (word, _) in enumerate(words.most_common(WORDS - 2), start=2)}
    rows = [[index.get(word, _UNKNOWN) for word in text[:length]] or [_UNKNOWN] for text in texts]
    tokens = torch.tensor([row + [_PAD] * (length - len(row)) for row in rows])  # (N, T)
    data = [(tokens[part], tokens[part] == _PAD, labels[part]) for part in (train, held)]
    return data[0], data[1], len(task.classes)
