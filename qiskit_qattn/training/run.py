"""A whole run: a folder, a model, and its all-classical twin."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from qiskit_qattn.errors import CheckpointError, ConfigError, RunFolderError
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.training.accelerators import make_accelerator
from qiskit_qattn.training.config import TrainConfig, read_toml
from qiskit_qattn.training.data import Corpus, load_corpus
from qiskit_qattn.training.figures import model_config
from qiskit_qattn.training.files import write_text, writing
from qiskit_qattn.training.interrupt import TrainingInterrupted
from qiskit_qattn.training.progress import Progress
from qiskit_qattn.training.run_audit import backend_log, joined, read_audit, relabelled, write_audit
from qiskit_qattn.training.trainer import Trainer

if TYPE_CHECKING:
    from accelerate import Accelerator

    from qiskit_qattn.backends.place import Place

DEFAULT_PROMPT = "ROMEO:"
NUMBERS = (
    *("step", "train_loss", "val_loss", "val_loss_last_position", "tokens_per_second"),
    *("train_seconds", "wall_seconds", "cpu_seconds", "peak_rss_mib"),
)
#: What metrics.json must hold, and of which type.
FIGURES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(NUMBERS, (int, float)),
    "prompt": str,
    "heads": (str, list),
    "parameters": dict,
    "head_backends": list,
    "peak_gpu_mib": (int, float, type(None)),
    "profile": (list, type(None)),
    "history": dict,
}


@dataclass(frozen=True)
class FinishedRun:
    """A run that has come to its end.

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
    fall. All that can be checked is checked before the folder is made.

    Args:
        config: The settings.
        resume: Continue the run in the folder instead of starting one.
        progress: Who is told about it.
        backend: ``config.backend``, opened; None opens it for each model.
        model_class: What is built; a subclass with the same weights.

    Raises:
        BackendError: If the backend fails; what was trained before has been saved.
        RunFolderError: If the folder exists (or, to resume, does not), or cannot be written.
        TrainingInterrupted: If SIGINT or SIGTERM came; the state has been saved.
    """
    folder = config.folder
    progress = progress or Progress()
    model_config(config, vocab_size=2, heads=config.heads)  # a bad head or size fails before any download
    if resume:
        _check_resumable(folder)
    else:
        _check_new(folder)
    if config.threads:
        torch.set_num_threads(config.threads)
    accelerator = make_accelerator(config, folder)
    with accelerator.main_process_first():
        corpus = load_corpus(config.data, config.block_size)
    if config.sample_prompt:
        corpus.tokenizer.encode(config.sample_prompt)
    phases: list[tuple[str, Path, str | None]] = [("model", folder, None)]
    if config.baseline:
        phases.append(("baseline", folder / "baseline", config.baseline_heads))
    phases = [phase for phase in phases if not (resume and _finished(phase[1], config))]

    def make_trainer(name: str, place: Path, heads: str | None) -> Trainer:
        trainer = Trainer(
            config,
            corpus,
            place,
            accelerator=accelerator,
            name=name,
            heads=heads,
            progress=progress,
            backend=backend,
            model_class=model_class,
        )
        if resume:
            trainer.resume()
        return trainer

    trainer = make_trainer(*phases[0]) if phases else None  # what cannot be built fails before the folder is touched
    with (
        _folder_of(config, folder, accelerator, fresh=not resume),
        _trackers(accelerator, folder),
        backend_log(folder / "backends.log"),
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
        RunFolderError: If it is no run folder.
        CheckpointError: If its settings are damaged.
    """
    _check_resumable(folder)
    try:
        return TrainConfig(**read_toml(folder / "config.toml"), out=str(folder))
    except ConfigError as error:
        raise CheckpointError(f"The run folder {str(folder)!r} is damaged: {error}") from error


def read_metrics(folder: Path) -> dict[str, Any] | None:
    """Return the figures that training left in ``folder``; None if it has not finished.

    Raises:
        CheckpointError: If they are damaged or not ours.
    """
    path = folder / "metrics.json"
    try:
        figures = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"The figures {str(path)!r} are damaged: {error}") from error
    if not isinstance(figures, dict):
        raise CheckpointError(f"{str(path)!r} holds no figures of qiskit-qattn.")
    for name, kind in FIGURES.items():
        if name not in figures or not isinstance(figures[name], kind):
            raise CheckpointError(f"{str(path)!r} holds no figures of qiskit-qattn: {name!r} is missing or damaged.")
    return figures


def default_prompt(config: TrainConfig, corpus: Corpus) -> str:
    """Return the prompt of the report's sample: the configured one, else ``ROMEO:``, else the text's first line."""
    if config.sample_prompt:
        return config.sample_prompt
    if set(DEFAULT_PROMPT) <= set(corpus.tokenizer.characters):
        return DEFAULT_PROMPT
    return corpus.tokenizer.decode(corpus.val[: min(8, config.block_size)])


def _check_new(folder: Path) -> None:
    with writing(folder):
        exists = folder.exists()
    if exists:
        raise RunFolderError(f"The run folder {str(folder)!r} exists; give another --out, or --resume to continue it.")


def _check_resumable(folder: Path) -> None:
    if not (folder / "config.toml").is_file():
        raise RunFolderError(f"{str(folder)!r} is no run folder to resume: it has no config.toml.")


def _finished(place: Path, config: TrainConfig) -> bool:
    figures = read_metrics(place)
    return figures is not None and figures["step"] == config.max_steps and (place / "model").is_dir()


def _train_phase(trainer: Trainer, folder: Path) -> None:
    """Train one model and leave its figures; an interruption names the run folder, not the phase's."""
    start = trainer.state.step
    before = read_audit(trainer.folder, start) if start else {}
    try:
        figures = trainer.train()
    except TrainingInterrupted as stop:
        raise TrainingInterrupted(folder, stop.step, stop.signal) from None
    finally:
        audit = joined(before, trainer.raw_model.audit(), start, trainer.state.step)
        if trainer.accelerator.is_main_process:
            write_audit(trainer.folder, audit)
    if audit:
        figures |= {"audit": audit, "head_backends": relabelled(figures["head_backends"], audit)}
    if trainer.accelerator.is_main_process:
        figures["prompt"] = default_prompt(trainer.config, trainer.corpus)
        write_text(trainer.folder / "metrics.json", json.dumps(figures, indent=1, allow_nan=False) + "\n")


@contextmanager
def _folder_of(config: TrainConfig, folder: Path, accelerator: Accelerator, *, fresh: bool) -> Iterator[None]:
    """Make the run folder, or note the changed settings in it; take a new one away again if it stays empty."""
    if accelerator.is_main_process and fresh:
        with writing(folder):
            folder.mkdir(parents=True)
    try:
        if accelerator.is_main_process:
            write_text(folder / "config.toml", config.to_toml())
        accelerator.wait_for_everyone()
        yield
    finally:
        # A run that ends, or is interrupted, has left a checkpoint; without one nothing could be resumed.
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
    """Return a hook that is silent where TensorBoard's thread meets a full disk: it tells the main thread as well."""

    def filtered(found: threading.ExceptHookArgs) -> None:
        if not issubclass(found.exc_type, OSError):
            hook(found)

    return filtered
