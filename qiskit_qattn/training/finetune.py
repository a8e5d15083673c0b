"""Fine-tuning of a pretrained model on labelled sentences: one method with one seed, and all of them in a folder."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict, cast

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import nn
from transformers import PreTrainedTokenizerBase

from qiskit_qattn.backends.place import Place
from qiskit_qattn.errors import CheckpointError, ConfigError, QattnError, RunFolderError
from qiskit_qattn.hf.adapters import AdapterKind, add_adapters, load_adapters
from qiskit_qattn.nn.placement import Movable, to_backend
from qiskit_qattn.training.files import new_folder, write_text, writing
from qiskit_qattn.training.finetune_config import FinetuneConfig
from qiskit_qattn.training.finetune_trainer import Watch, by_length, encoded, last_checkpoint, make_trainer
from qiskit_qattn.training.labelled import LabelledTask, load_task, sized
from qiskit_qattn.training.metrics import finite
from qiskit_qattn.training.pace import TIMED, WARM, is_timed, measured, waits_in_queue
from qiskit_qattn.training.pretrained import load_classifier, load_tokenizer, quiet
from qiskit_qattn.training.progress import Progress, TrainingInterrupted
from qiskit_qattn.training.scores import TITLES, scores
from qiskit_qattn.untrusted import as_type, read_json

RECORD = "result.json"
FORMAT = "qiskit-qattn/finetune-result"


class Sizes(TypedDict):
    """Numbers of parameters: all, those that are trained, and those of them in adapters."""

    total: int
    trained: int
    adapters: int


class Result(TypedDict):
    """The content of ``result.json``: a method with a seed; what is not finite is None."""

    format: str
    method: str
    seed: int
    scores: dict[str, float]
    dev_loss: float | None
    train_loss: float | None
    history: list[dict[str, float | None]]
    steps: int
    train_rows: int
    dev_rows: int
    parameters: Sizes
    learning_rate: float
    train_seconds: float
    dev_seconds: float
    backend: str


@dataclass(frozen=True, eq=False)
class Prepared:
    """A task and the tokenizer of a model, as all methods and seeds use them."""

    task: LabelledTask
    tokenizer: PreTrainedTokenizerBase


def prepare(config: FinetuneConfig) -> Prepared:
    """Return the task and the tokenizer, and check that a model of each method can be built.

    Raises:
        ConfigError: For a model that cannot be used, or the first method that is not possible with it.
        DataError: For a task that cannot be used.
    """
    prepared = Prepared(load_task(config.task, config.dev), load_tokenizer(config.model))
    for seed in config.seed_numbers:
        sized(prepared.task, config.train_rows, config.dev_rows, seed)
    for method in config.method_names:
        model = build(config, prepared, method, config.seed)
        longest = getattr(model.config, "max_position_embeddings", None)
        if longest is not None and config.max_length > longest:
            raise ConfigError(
                f"max_length is {config.max_length:,}, but {config.model!r} takes at most {longest:,} tokens."
            )
        if config.backend != "statevector" and method == "unitary":
            raise ConfigError("Adapters of kind 'unitary' measure nothing, so they run on statevector only.")
    return prepared


def build(config: FinetuneConfig, prepared: Prepared, method: str, seed: int) -> nn.Module:
    """Return a model that a method trains. Classifiers of one seed are equal, for all methods.

    Raises:
        CheckpointError: If the adapters to start from are of another model.
        ConfigError: As :func:`load_classifier` and :func:`add_adapters` do.
    """
    model = load_classifier(config.model, prepared.task.classes, prepared.tokenizer, seed)
    if config.adapter:
        with _known_warnings():
            return load_adapters(model, config.adapter, trainable=True)
    if method == "full":
        return model
    if method == "probe":
        model.base_model.requires_grad_(False)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise ConfigError(f"{config.model!r} has no classifier of its own, so there is none to train alone.")
        return model
    targets: list[str] | str | None = [
        name.strip() for name in config.target_modules.split(",") if name.strip()
    ] or None
    if targets == ["all-linear"]:
        targets = "all-linear"
    with _known_warnings(), torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        kind = cast(AdapterKind, method)
        return add_adapters(model, kind, config.num_qubits, targets, reps=config.reps or None, task_type="SEQ_CLS")


@contextmanager
def _known_warnings() -> Iterator[None]:
    """Hide that sizes differ, which the report shows, and what PEFT asks of transformers."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The adapters of kind")
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        yield


def sizes_of(model: nn.Module) -> Sizes:
    """Return the numbers of parameters of a model."""
    named = [(name, p.numel(), p.requires_grad) for name, p in model.named_parameters()]
    adapters = hasattr(model, "peft_config")
    return {
        "total": sum(count for _, count, _ in named),
        "trained": sum(count for _, count, trained in named if trained),
        "adapters": sum(c for name, c, trained in named if adapters and trained and "modules_to_save" not in name),
    }


def finetune(
    config: FinetuneConfig,
    *,
    prepared: Prepared | None = None,
    backend: Place | None = None,
    progress: Progress | None = None,
) -> list[Result]:
    """Train every method with every seed that has no result yet, and return all results.

    Each is kept in ``METHOD/seed-N/result.json`` of the folder, its model or adapters beside it. What was interrupted
    continues from its last checkpoint.

    Args:
        config: The settings.
        prepared: What :func:`prepare` returned for them.
        backend: ``config.backend``, opened; None opens it.
        progress: Receives the progress.

    Raises:
        TrainingInterrupted: On SIGINT or SIGTERM; the state has been saved.
        RunFolderError: If the folder cannot be written, or another process works in it.
        CheckpointError: If a result is damaged.
    """
    prepared = prepared or prepare(config)
    progress = progress or Progress()
    if config.threads:
        torch.set_num_threads(config.threads)
    folder = config.folder
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RunFolderError(f"Another process works in {str(folder)!r}.") from error
    place = Place.open(config.backend) if backend is None else backend
    try:
        write_text(folder / "config.toml", config.to_toml())
        cells = [(method, seed) for seed in config.seed_numbers for method in config.method_names]
        found = []
        progress.planned(sum(read_result(config, *cell) is None for cell in cells), 0.0)
        with place if backend is None else nullcontext():
            for number, (method, seed) in enumerate(cells, 1):
                result = read_result(config, method, seed)
                if result is None:
                    result = _train(config, prepared, method, seed, place, progress)
                    metric = prepared.task.metrics[0]
                    score = f"{TITLES[metric]} {result['scores'][metric]:.4f}"
                    progress.message(f"{number}/{len(cells)} {method} seed {seed}: {score}")
                found.append(result)
        return found
    finally:
        lock.release()


def cell_seconds(config: FinetuneConfig, prepared: Prepared, place: Place) -> list[float] | None:
    """Return how long each method with each seed that has no result will take, in seconds, from a few steps of each.

    It is empty for few steps, and for a chain, a group or a simulator that gets jobs: the training itself shows it.

    Args:
        config: The settings.
        prepared: What :func:`prepare` returned for them.
        place: Where the circuits run.

    Returns:
        None on a device, since its queue decides.
    """
    if waits_in_queue(place):
        return None
    rows = min(config.train_rows or len(prepared.task.train), len(prepared.task.train))
    steps = math.ceil(math.ceil(rows / config.batch_size) * config.epochs)
    if not is_timed(place) or steps <= WARM + TIMED:
        return []
    try:
        waiting = [m for s in config.seed_numbers for m in config.method_names if read_result(config, m, s) is None]
        each = {method: _seconds(config, prepared, method, steps) for method in dict.fromkeys(waiting)}
    except QattnError:
        return []  # the training itself says what is wrong
    return [each[method] for method in waiting]


def _seconds(config: FinetuneConfig, prepared: Prepared, method: str, steps: int) -> float:
    """Return how long a method will take; a forward pass of the evaluation is taken to be a third of a step."""
    with tempfile.TemporaryDirectory(prefix="qattn-pace-") as scratch:
        most = config.batch_size * (WARM + TIMED)
        short = replace(
            config,
            methods=method,
            reference="",
            seeds=1,
            out=str(Path(scratch) / "all"),
            train_rows=min(most, config.train_rows or most),
            epochs=max(1.0, config.epochs),
        )
        pace = measured(lambda clock: finetune(short, prepared=prepared, progress=clock), whole=False)
    dev = config.dev_rows or len(prepared.task.dev)
    return pace.seconds(steps) + math.ceil(dev / config.batch_size) * pace.step / 3


def read_result(config: FinetuneConfig, method: str, seed: int) -> Result | None:
    """Return the result of a method with a seed; None if there is none yet.

    Raises:
        CheckpointError: If it is damaged or another's.
    """
    path = config.cell_folder(method, seed) / RECORD
    try:
        result = as_type(read_json(path), Result)
        if (result["format"], result["method"], result["seed"]) != (FORMAT, method, seed):
            raise ValueError(f"it is not that of {method} with seed {seed}")
        return cast(Result, result)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"The result {str(path)!r} is damaged: {error}. Delete it to train again.") from error


def _train(
    config: FinetuneConfig, prepared: Prepared, method: str, seed: int, place: Place, progress: Progress
) -> Result:
    """Train and evaluate a method with a seed, write its result and return it."""
    folder = config.cell_folder(method, seed)
    task = sized(prepared.task, config.train_rows, config.dev_rows, seed)
    model = build(config, prepared, method, seed)
    moved = any(isinstance(part, Movable) for part in model.modules())
    watch = Watch(f"{method} seed {seed}", progress)
    checkpoints, rate, tokenizer = folder / "checkpoints", config.rate(method), prepared.tokenizer
    with writing(folder), to_backend(model, place) if moved else nullcontext(), quiet(), _known_warnings():
        trainer = make_trainer(config, model, tokenizer, task.train, checkpoints, seed=seed, rate=rate, watch=watch)
        begin = time.perf_counter()
        loss = None
        with watch.guard:
            if config.epochs:
                loss = trainer.train(resume_from_checkpoint=last_checkpoint(checkpoints)).training_loss
        if watch.guard.received is not None:
            raise TrainingInterrupted(config.folder, trainer.state.global_step, watch.guard.received)
        trained = time.perf_counter()
        output = trainer.predict(by_length(encoded(task.dev, tokenizer, config.max_length)))  # type: ignore[arg-type]
        done = time.perf_counter()
    predictions = output.predictions[0] if isinstance(output.predictions, tuple) else output.predictions  # (N, C)
    predicted = predictions.argmax(-1) if task.classes else np.squeeze(predictions, -1)
    result: Result = {
        "format": FORMAT,
        "method": method,
        "seed": seed,
        "scores": scores(task.metrics, predicted, np.asarray(output.label_ids)),
        "dev_loss": finite((output.metrics or {}).get("test_loss")),
        "train_loss": finite(loss),
        "history": [
            {"step": float(log["step"]), "loss": finite(log["loss"])}
            for log in trainer.state.log_history
            if "loss" in log
        ],
        "steps": trainer.state.global_step,
        "train_rows": len(task.train),
        "dev_rows": len(task.dev),
        "parameters": sizes_of(model),
        "learning_rate": config.rate(method),
        "train_seconds": trained - begin,
        "dev_seconds": done - trained,
        "backend": place.name if moved else "none",
    }
    if config.save_models:
        with new_folder(folder / "model") as new, quiet(), _known_warnings():
            cast(Any, model).save_pretrained(
                new, **({"save_embedding_layers": False} if hasattr(model, "peft_config") else {})
            )
            tokenizer.save_pretrained(new)
    write_text(folder / RECORD, json.dumps(result, indent=1, allow_nan=False) + "\n")
    shutil.rmtree(checkpoints, ignore_errors=True)
    return result
