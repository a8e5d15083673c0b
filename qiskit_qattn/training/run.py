"""A training run: a folder, a model, and its all-classical twin."""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from qiskit_qattn.backends.place import Place, settled
from qiskit_qattn.errors import (
    CheckpointError,
    ConfigError,
    MissingDependencyError,
    RunFolderError,
    missing_dependency,
    unknown_name,
)
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.training.audits import join_audits, label_heads, read_audit, write_audit
from qiskit_qattn.training.config import TrainConfig, read_toml
from qiskit_qattn.training.data import Corpus, load_corpus
from qiskit_qattn.training.files import write_text, writing
from qiskit_qattn.training.metrics import read_metrics
from qiskit_qattn.training.progress import Progress, TrainingInterrupted
from qiskit_qattn.training.trainer import Trainer

if TYPE_CHECKING:
    from accelerate import Accelerator

DEFAULT_PROMPT = "ROMEO:"


@dataclass(frozen=True)
class FinishedRun:
    """A run that has finished.

    Attributes:
        folder: The run folder.
        is_main_process: Whether this process is the one that writes reports.
    """

    folder: Path
    is_main_process: bool


def train_run(
    config: TrainConfig,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    backend: Place | None = None,
    model_class: type[GPT] = GPT,
) -> FinishedRun:
    """Train what ``config`` describes into its run folder.

    The folder gets ``config.toml``, ``metrics.json``, ``model/``, ``checkpoints/``, the trackers' ``logs/`` and, for
    the twin, the same under ``baseline/``; on a chain of backends also ``audit.json``, and ``backends.log`` with every
    fallback. All that can be checked is checked before the folder is made.

    Args:
        config: The settings.
        resume: Continue the run in the folder instead of starting one.
        progress: Receives the events of the run.
        backend: ``config.backend``, opened; None opens it. The folder's ``config.toml`` names the devices that were
            chosen, so that a resumed run goes on with them.
        model_class: The class of the model; a subclass with the same weights.

    Raises:
        BackendError: If the backend fails; what was trained before has been saved.
        RunFolderError: If the folder exists (or, to resume, does not), or cannot be written.
        TrainingInterrupted: If SIGINT or SIGTERM came; the state has been saved.
    """
    folder = config.folder
    progress = progress or Progress()
    if resume:
        _check_resumable(folder)
    else:
        _check_new(folder)
    if config.threads:
        torch.set_num_threads(config.threads)
    accelerator = make_accelerator(config, folder)
    with accelerator.main_process_first():
        corpus = load_corpus(config.data, config.model.block_size, split=config.split)
    if config.sample_prompt:
        corpus.tokenizer.encode(config.sample_prompt)
    phases = [("model", folder), *([("baseline", folder / "baseline")] if config.baseline else [])]
    phases = [phase for phase in phases if not (resume and finished(phase[1], config))]
    if phases:
        backend = Place.open(config.backend) if backend is None else backend
        config = config.replace(backend=settled(config.backend, backend.name))

    def make_trainer(name: str, phase_folder: Path) -> Trainer:
        trainer = Trainer(
            config if name == "model" else config.replace(heads=config.baseline_heads),
            corpus,
            phase_folder,
            accelerator=accelerator,
            name=name,
            progress=progress,
            backend=backend,
            model_class=model_class,
        )
        if resume:
            trainer.resume()
        return trainer

    windows = config.val_windows or len(corpus.val) // config.model.block_size
    progress.planned(len(phases), windows / (config.eval_batches * config.batch_size))
    trainer = make_trainer(*phases[0]) if phases else None  # what cannot be built fails before the folder is made
    with (
        _run_folder(config, accelerator, fresh=not resume),
        _trackers(accelerator, folder),
        _backend_log(folder / "backends.log"),
    ):
        for phase in phases:
            trainer = trainer or make_trainer(*phase)
            _train_phase(trainer, folder)
            trainer = None
            accelerator.free_memory()
    return FinishedRun(folder, accelerator.is_main_process)


def saved_config(folder: Path) -> TrainConfig:
    """Return the settings that a run folder was started with.

    Raises:
        RunFolderError: If it is not a run folder.
        CheckpointError: If its settings are damaged.
    """
    _check_resumable(folder)
    try:
        return TrainConfig.from_dict({**read_toml(folder / "config.toml"), "out": str(folder)})
    except ConfigError as error:
        raise CheckpointError(f"The run folder {str(folder)!r} is damaged: {error}") from error


def default_prompt(config: TrainConfig, corpus: Corpus) -> str:
    """Return the prompt of the report's sample: the configured one, else ``ROMEO:``, else the text's first tokens."""
    if config.sample_prompt:
        return config.sample_prompt
    if set(DEFAULT_PROMPT) <= set(corpus.tokenizer.characters):
        return DEFAULT_PROMPT
    return corpus.tokenizer.decode(corpus.val[: min(8, config.model.block_size)])


def make_accelerator(config: TrainConfig, folder: Path) -> Accelerator:
    """Return Accelerate's handle on devices, precision, processes and trackers; nothing is written yet.

    Args:
        config: The run's settings.
        folder: The run folder; trackers write their files to its ``logs``.

    Raises:
        ConfigError: If there is no such device, or it does not support the mixed precision.
        UnknownNameError: If a tracker is not one of Accelerate's.
        MissingDependencyError: If Accelerate or a tracker is not installed.
    """
    if find_spec("accelerate") is None:
        raise missing_dependency("accelerate", "train")
    from accelerate import Accelerator
    from accelerate.utils import ProjectConfiguration

    if config.device == "cuda" and not torch.cuda.is_available():
        why = "sees no GPU" if torch.version.cuda or torch.version.hip else "is a build without GPUs"
        raise ConfigError(f"device is 'cuda', but torch {torch.__version__} {why}; 'auto' takes what there is.")
    project = ProjectConfiguration(project_dir=str(folder), logging_dir=str(folder / "logs"))
    names = _tracker_names(config.trackers)
    try:
        return Accelerator(
            cpu=config.device == "cpu",
            mixed_precision=config.mixed_precision,
            log_with=names or None,
            project_config=project,
        )
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"device = {config.device!r} does not support mixed_precision = {config.mixed_precision!r}: {reason}"
        ) from error


def _tracker_names(trackers: str) -> list[str]:
    """Return the trackers that the setting names: ``auto``, ``none`` or a comma-separated list."""
    if trackers == "auto":
        return ["tensorboard"] if find_spec("tensorboard") is not None else []
    if trackers == "none":
        return []
    from accelerate.tracking import get_available_trackers
    from accelerate.utils import LoggerType

    known = [str(kind.value) for kind in LoggerType if kind.value != "all"]
    names = [name.strip() for name in trackers.split(",")]
    for name in names:
        if name not in known:
            raise unknown_name("tracker", name, [*known, "auto", "none"])
        if name not in [str(kind.value) for kind in get_available_trackers()]:
            raise MissingDependencyError(f"The tracker {name} is not installed. Install it with: pip install {name}")
    return names


def _check_new(folder: Path) -> None:
    with writing(folder):
        exists = folder.exists()
    if exists:
        raise RunFolderError(f"The run folder {str(folder)!r} exists; give another --out, or --resume to continue it.")


def _check_resumable(folder: Path) -> None:
    if not os.path.isfile(folder / "config.toml"):  # False for a name that no file can have, too
        raise RunFolderError(f"{str(folder)!r} is no run folder: it has no config.toml.")


def finished(folder: Path, config: TrainConfig) -> bool:
    """Return whether the model in a folder has all its steps behind it."""
    figures = read_metrics(folder)
    return figures is not None and figures["step"] == config.max_steps and (folder / "model").is_dir()


def _train_phase(trainer: Trainer, folder: Path) -> None:
    """Train one model and write its figures; an interruption names the run folder, not the phase's."""
    start = trainer.state.step
    before = read_audit(trainer.folder, start) if start else {}
    try:
        figures = trainer.train()
    except TrainingInterrupted as stop:
        raise TrainingInterrupted(folder, stop.step, stop.signal) from None
    finally:
        audit = join_audits(before, trainer.raw_model.audit(), start, trainer.state.step)
        if trainer.accelerator.is_main_process:
            write_audit(trainer.folder, audit)
    if audit:
        figures |= {"audit": audit, "head_backends": label_heads(figures["head_backends"], audit)}
    if trainer.accelerator.is_main_process:
        figures["prompt"] = default_prompt(trainer.config, trainer.corpus)
        write_text(trainer.folder / "metrics.json", json.dumps(figures, indent=1, allow_nan=False) + "\n")


@contextmanager
def _run_folder(config: TrainConfig, accelerator: Accelerator, *, fresh: bool) -> Iterator[None]:
    """Make the run folder, or update the settings in it; remove a new one again if no checkpoint was written."""
    folder = config.folder
    if accelerator.is_main_process and fresh:
        with writing(folder):
            folder.mkdir(parents=True)
    try:
        if accelerator.is_main_process:
            write_text(folder / "config.toml", config.to_toml())
        accelerator.wait_for_everyone()
        yield
    finally:
        # A run that finished or was interrupted has a checkpoint; without one there is nothing to resume.
        if fresh and accelerator.is_main_process and not any(folder.glob("**/step-*")):
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _trackers(accelerator: Accelerator, folder: Path) -> Iterator[None]:
    """Open the trackers, and close them however the block ends."""
    previous = threading.excepthook
    threading.excepthook = _without_disk_errors(previous)
    try:
        with writing(folder / "logs"):
            accelerator.init_trackers("training")
        try:
            yield
        finally:
            with writing(folder / "logs"):
                accelerator.end_training()
    finally:
        threading.excepthook = previous


def _without_disk_errors(hook: Callable[[threading.ExceptHookArgs], Any]) -> Callable[[threading.ExceptHookArgs], Any]:
    """Return a hook that ignores a full disk in TensorBoard's thread, which reports it to the main thread as well."""

    def filtered(found: threading.ExceptHookArgs) -> None:
        if not issubclass(found.exc_type, OSError):
            hook(found)

    return filtered


@contextmanager
def _backend_log(path: Path) -> Iterator[None]:
    """Append the warnings of backends, such as each fallback in a chain, to a file made with the first line."""
    logger = logging.getLogger("qiskit_qattn.backends")
    handler = logging.FileHandler(path, encoding="utf-8", delay=True)
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
