"""Tasks of labelled sentences: those of GLUE by name, film reviews, and files of the user."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from qiskit_qattn.backends.folders import path_from
from qiskit_qattn.errors import DataError, counted, unknown_name
from qiskit_qattn.training.packages import PackagedFiles, packaged_folder
from qiskit_qattn.training.tables import FORMATS, Row, read_columns, read_table, tsv_rows
from qiskit_qattn.untrusted import one_line, read_bytes, shown

_HELD_OUT = 0.1  # share of the rows that are held out where there is no file of them
_MOST_LABELS = 1000


@dataclass(frozen=True)
class Rows:
    """Labelled sentences.

    Attributes:
        first: The sentences.
        second: The second sentence of each pair; None for single sentences.
        labels: Indices of classes, or numbers.
    """

    first: list[str]
    second: list[str] | None
    labels: list[int] | list[float]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.first)

    def take(self, count: int, seed: int) -> Rows:
        """Return some of the rows, drawn with a seed; all in their order for a count of 0, or as many as there are."""
        if count == 0 or count >= len(self):
            return self
        chosen = np.random.default_rng(seed).permutation(len(self))[:count]
        second = None if self.second is None else [self.second[i] for i in chosen]
        return Rows([self.first[i] for i in chosen], second, [self.labels[i] for i in chosen])


@dataclass(frozen=True)
class LabelledTask:
    """A task of labelled sentences.

    Attributes:
        name: Its name, or the path of its file.
        train: The rows for training.
        dev: The rows for evaluation.
        classes: The names of the classes; none for a regression.
        metrics: Names of the metrics, the main one first; see :func:`~qiskit_qattn.training.scores.scores`.
    """

    name: str
    train: Rows
    dev: Rows
    classes: tuple[str, ...]
    metrics: tuple[str, ...]


@dataclass(frozen=True)
class _Named:
    """A benchmark's task.

    Attributes:
        folder: Its folder in ``$QATTN_DATA_DIR/glue``; empty where there is none.
        columns: The columns of the sentences and of the label in those files; numbers where they have no header.
        hub: The data set and its configuration on the Hugging Face Hub.
        hub_columns: The columns of the sentences and of the label there.
        metrics: The benchmark's metrics, the main one first.
        dev: The names of the rows for evaluation: in files, and on the hub.
    """

    folder: str
    columns: tuple[str, ...]
    hub: tuple[str, str]
    hub_columns: tuple[str, ...]
    metrics: tuple[str, ...] = ("accuracy",)
    dev: tuple[str, str] = ("dev", "validation")


_GLUE = "nyu-mll/glue"
_SUPER = "aps/super_glue"
_PAIR = ("sentence1", "sentence2", "label")
_NAMED = {
    "cola": _Named("CoLA", ("3", "1"), (_GLUE, "cola"), ("sentence", "label"), ("matthews",)),
    "sst2": _Named("SST-2", ("sentence", "label"), (_GLUE, "sst2"), ("sentence", "label")),
    "mrpc": _Named("MRPC", ("#1 String", "#2 String", "Quality"), (_GLUE, "mrpc"), _PAIR, ("f1", "accuracy")),
    "qqp": _Named(
        folder="QQP",
        columns=("question1", "question2", "is_duplicate"),
        hub=(_GLUE, "qqp"),
        hub_columns=("question1", "question2", "label"),
        metrics=("f1", "accuracy"),
    ),
    "stsb": _Named("STS-B", ("sentence1", "sentence2", "score"), (_GLUE, "stsb"), _PAIR, ("spearman", "pearson")),
    "mnli": _Named(
        folder="MNLI",
        columns=("sentence1", "sentence2", "gold_label"),
        hub=(_GLUE, "mnli"),
        hub_columns=("premise", "hypothesis", "label"),
        dev=("dev_matched", "validation_matched"),
    ),
    "qnli": _Named("QNLI", ("question", "sentence", "label"), (_GLUE, "qnli"), ("question", "sentence", "label")),
    "rte": _Named("RTE", _PAIR, (_GLUE, "rte"), _PAIR),
    "wnli": _Named("WNLI", _PAIR, (_GLUE, "wnli"), _PAIR),
    "boolq": _Named("", (), (_SUPER, "boolq"), ("question", "passage", "label")),
    "cb": _Named("", (), (_SUPER, "cb"), ("premise", "hypothesis", "label"), ("accuracy", "f1")),
}
_FILMS = "films"
_REVIEWS = PackagedFiles(
    "film-reviews",
    "vaderSentiment==0.5",
    "5d97c37f3ef6e24eef331122e055dbedafeb6a56abfce0608b326701116ea49a",
    {
        "reviews.tsv": "vaderSentiment-0.5/additional_resources/hutto_ICWSM_2014.tar.gz!"
        "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
    },
    source=True,
)
TASKS = (*_NAMED, _FILMS)


def load_task(name_or_path: str, dev: str = "") -> LabelledTask:
    """Return a task by name, or from a file.

    The tasks of GLUE (``cola``, ``sst2``, ``mrpc``, ``qqp``, ``stsb``, ``mnli``, ``qnli``, ``rte``, ``wnli``) and two
    of SuperGLUE (``boolq``, ``cb``) have their official splits and metrics. They are read from
    ``$QATTN_DATA_DIR/glue/<TASK>/train.tsv`` and ``dev.tsv``, as the benchmark distributes them, where those exist, and
    else through ``datasets`` from the Hugging Face Hub. ``films`` is 10,568 sentences of film reviews, from the package
    vaderSentiment; the label is the sign of their mean rating by 20 readers.

    A file is TSV, CSV or Parquet, with columns ``sentence`` and ``label``, or ``sentence1``, ``sentence2`` and
    ``label``. Labels that are whole numbers or words are classes; others, such as 2.5, are numbers to predict.

    Args:
        name_or_path: A task, or the path of a file. A name takes precedence; for a file of that name, write ``./cola``.
        dev: A file with the rows for evaluation; without it every tenth row, drawn with a fixed seed, is held out.

    Raises:
        DataError: For a file that is missing, damaged, lacks a column or has one class, or a task that cannot be had.
        UnknownNameError: For what is neither a task nor a file.
    """
    if name_or_path in TASKS:
        if dev:
            raise DataError(f"The task {name_or_path!r} has its own rows for evaluation; a file of them is not used.")
        return _films() if name_or_path == _FILMS else _benchmark(name_or_path)
    path = Path(name_or_path)
    if not path.is_file():
        if path.suffix in FORMATS or not name_or_path:
            raise DataError(f"There is no file {name_or_path!r}. Known tasks: {', '.join(sorted(TASKS))}.")
        raise unknown_name("task, and there is no file of that name:", name_or_path, TASKS)
    train = _user_table(path)
    if dev:
        return _task(name_or_path, train, _user_table(Path(dev)), ())
    if len(train) < 2:
        raise DataError(f"{name_or_path!r} has {counted(len(train), 'row')}, too few to hold some out for evaluation.")
    return _task(name_or_path, *_held_out(train), ())


def _held_out(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Return the rows for training and those for evaluation."""
    order = np.random.default_rng(0).permutation(len(rows))
    count = max(round(_HELD_OUT * len(rows)), 1)
    return [rows[i] for i in sorted(order[count:])], [rows[i] for i in sorted(order[:count])]


def _task(name: str, train: Sequence[Row], dev: Sequence[Row], metrics: tuple[str, ...]) -> LabelledTask:
    """Return a task from its rows; without metrics, those for its kind of label."""
    if not train or not dev:
        raise DataError(f"The task {name!r} has no rows for {'evaluation' if train else 'training'}.")
    if len(train[0]) != len(dev[0]):
        raise DataError(f"The task {name!r} has pairs of sentences in one of its files and single ones in the other.")
    given = [row[-1] for row in train]
    numbers = _numbers(given)
    regression = metrics[:1] == ("spearman",) or (numbers is not None and any(n != int(n) for n in numbers))
    if regression:
        values = [_numbers([row[-1] for row in rows]) for rows in (train, dev)]
        for found in values:
            if found is None:
                raise DataError(f"The task {name!r} has labels to predict as numbers, but not all are finite numbers.")
        if len(set(values[0] or ())) < 2:
            raise DataError(f"The task {name!r} has the same label {given[0]!r} in all {len(train):,} rows.")
        classes: tuple[str, ...] = ()
        metrics = metrics or ("spearman", "pearson")
        labels: list[Any] = values
    else:
        classes = tuple(sorted(set(given), key=float if numbers is not None else str))
        if len(classes) < 2:
            raise DataError(f"The task {name!r} has one class, {one_line(classes[0])!r}, in all {len(train):,} rows.")
        if len(classes) > _MOST_LABELS:
            raise DataError(f"The task {name!r} has {len(classes):,} classes, more than {_MOST_LABELS:,}.")
        index = {label: i for i, label in enumerate(classes)}
        if (new := next((row[-1] for row in dev if row[-1] not in index), None)) is not None:
            raise DataError(f"The task {name!r} has the class {shown(new)} in rows for evaluation only.")
        metrics = metrics or ("accuracy", "f1", "matthews")
        labels = [[index[row[-1]] for row in rows] for rows in (train, dev)]
    return LabelledTask(name, _rows(train, labels[0]), _rows(dev, labels[1]), classes, metrics)


def _rows(rows: Sequence[Row], labels: Any) -> Rows:
    second = [row[1] for row in rows] if len(rows[0]) == 3 else None
    return Rows([row[0] for row in rows], second, labels)


def _numbers(labels: Iterable[str]) -> list[float] | None:
    """Return labels as numbers; None if one is not a finite number."""
    try:
        found = [float(label) for label in labels]
    except ValueError:
        return None
    return found if all(map(math.isfinite, found)) else None


# Where rows come from


def _benchmark(name: str) -> LabelledTask:
    """Return a benchmark's task from the data folder or the hub."""
    task = _NAMED[name]
    if (data := path_from("QATTN_DATA_DIR")) is not None and task.folder:
        files = [data / "glue" / task.folder / f"{split}.tsv" for split in ("train", task.dev[0])]
        if all(file.is_file() for file in files):
            train, dev = (read_columns(file, task.columns) for file in files)
            return _task(name, train, dev, task.metrics)
    return _task(name, *_from_hub(name, task), task.metrics)


def _from_hub(name: str, task: _Named) -> tuple[list[Row], list[Row]]:
    """Return the rows of a task on the Hugging Face Hub, through its cache."""
    import datasets

    before = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        found = [datasets.load_dataset(*task.hub, split=split) for split in ("train", task.dev[1])]
        names = getattr(found[0].features[task.hub_columns[-1]], "names", None)
        rows = [list(zip(*(data[column] for column in task.hub_columns), strict=True)) for data in found]
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        where = "" if not task.folder else f", or set QATTN_DATA_DIR to a folder with glue/{task.folder}/train.tsv and"
        files = f"{where} {task.dev[0]}.tsv in it" if where else ""
        raise DataError(
            f"Cannot fetch the task {name!r} from the Hugging Face Hub: {one_line(str(error))[:200].rstrip('.')}."
            f" Connect to the network once{files}."
        ) from error
    finally:
        if before:
            datasets.enable_progress_bars()
    train, dev = ([(*row[:-1], _hub_label(row[-1], names)) for row in part] for part in rows)
    return train, dev


def _hub_label(label: Any, names: Sequence[str] | None) -> str:
    return str(label) if names is None else names[label]


def _films() -> LabelledTask:
    """Return the film reviews with the sign of their rating; ratings of 0 are dropped."""
    file = packaged_folder(_REVIEWS) / "reviews.tsv"
    rows = [
        (sentence, "positive" if float(rating) > 0 else "negative")
        for _, rating, sentence in tsv_rows(read_bytes(file).decode("utf-8", "replace"))
        if float(rating)
    ]
    return _task(_FILMS, *_held_out(rows), ("accuracy", "f1"))


def _user_table(path: Path) -> list[Row]:
    """Return the rows of a user's file."""
    columns, _ = read_table(path)
    pair = "sentence1" in columns or "sentence2" in columns
    return read_columns(path, _PAIR if pair else ("sentence", "label"))


def sized(task: LabelledTask, train_rows: int, dev_rows: int, seed: int) -> LabelledTask:
    """Return a task with some of its rows: those for training are drawn with the seed, those for evaluation are fixed.

    Raises:
        DataError: If one class is left for training.
    """
    train, dev = task.train.take(train_rows, seed), task.dev.take(dev_rows, 0)
    if len(set(train.labels)) < 2:
        raise DataError(f"Of the {counted(len(train), 'row')} drawn for training with seed {seed}, all have one label.")
    return replace(task, train=train, dev=dev)
