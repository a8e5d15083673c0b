"""The models of a noise sweep: the run's own, and copies trained further with and without noise."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from qiskit_qattn.backends.place import Place
from qiskit_qattn.errors import ConfigError, RunFolderError
from qiskit_qattn.evaluation.noise_sweep.plan import ModelName, NoiseSweep
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.training.config import TrainConfig
from qiskit_qattn.training.data import Corpus, load_corpus
from qiskit_qattn.training.progress import Progress
from qiskit_qattn.training.run import saved_config
from qiskit_qattn.training.tokenizer import CharTokenizer
from qiskit_qattn.training.trainer import Trainer

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """A finished run.

    Attributes:
        config: Its settings.
        corpus: Its text.
        model: Its model.
    """

    config: TrainConfig
    corpus: Corpus
    model: GPT


def load_run(sweep: NoiseSweep) -> TrainedRun:
    """Return the run of a sweep, after checking that its model runs under the noise.

    Raises:
        RunFolderError: If it is not the folder of a finished run.
        ConfigError: If the model has no quantum head, or a backend is a paid device or cannot mitigate as asked.
        BackendError: If a backend cannot be opened.
        CircuitError: If its circuits have too many qubits for the noisy engine.
    """
    run = sweep.run
    if not (run / "config.toml").is_file():
        raise RunFolderError(f"{str(run)!r} is no run folder of qattn train: it has no config.toml.")
    config = saved_config(run)
    if not (run / "model").is_dir():
        raise RunFolderError(
            f"The run in {str(run)!r} has no trained model yet; continue it with qattn train --resume."
        )
    model = GPT.from_pretrained(run / "model")
    if not model.quantum_heads():
        raise ConfigError(
            f"The model in {str(run)!r} has no quantum head, so noise changes nothing: its heads are "
            f"{model.config.heads}."
        )
    _check_backends(sweep, model)
    tokenizer = CharTokenizer.load(run / "model" / "tokenizer.json")
    return TrainedRun(
        config, load_corpus(config.data, config.model.block_size, tokenizer=tokenizer, split=config.split), model
    )


def _check_backends(sweep: NoiseSweep, model: GPT) -> None:
    """Open one backend of each kind, so that what cannot run fails before the folder is made."""
    noisy = [p for p in (*sweep.strengths, sweep.aware_strength) if p]
    wanted = [sweep.backend(point) for point in sweep.points() if point.on or point.strength in noisy[:1]]
    for text in wanted or [sweep.noisy(p) for p in noisy[:1]]:
        with Place.open(text) as place:
            if any(estimator.device.paid for _, estimator in place.devices):
                raise ConfigError(f"{text} is a paid device, and a sweep is for simulators; see qattn run-on-device.")
            with model.to_backend(place):
                pass


def sweep_models(
    sweep: NoiseSweep, run: TrainedRun, accelerator: Accelerator, progress: Progress
) -> Iterator[tuple[ModelName, GPT]]:
    """Yield the models of a sweep by name, after training those that are not trained yet.

    Raises:
        TrainingInterrupted: On SIGINT or SIGTERM; the state has been saved.
    """
    yield "trained", run.model
    if sweep.aware_strength is not None:
        yield "control", train_on(sweep, run, "control", "statevector", accelerator, progress)
        yield "aware", train_on(sweep, run, "aware", sweep.noisy(sweep.aware_strength), accelerator, progress)


def train_on(
    sweep: NoiseSweep, run: TrainedRun, name: ModelName, backend: str, accelerator: Accelerator, progress: Progress
) -> GPT:
    """Return a copy of the run's model, trained for ``aware_steps`` more steps on a backend and saved in the folder."""
    folder = sweep.out / name
    if not (folder / "model").is_dir():
        trainer = Trainer(
            _settings(sweep, run.config, folder, backend),
            run.corpus,
            folder,
            accelerator=accelerator,
            name=name,
            progress=progress,
        )
        trainer.raw_model.load_state_dict(run.model.state_dict())
        trainer.resume()
        trainer.train()
        accelerator.free_memory()
    return GPT.from_pretrained(folder / "model")


def _settings(sweep: NoiseSweep, config: TrainConfig, folder: Path, backend: str) -> TrainConfig:
    """Return the settings of further training: the run's, at its final learning rate, or a tenth of its peak for 0."""
    steps = sweep.aware_steps
    rate = config.min_lr or config.learning_rate / 10
    return dataclasses.replace(
        config,
        out=str(folder),
        backend=backend,
        baseline=False,
        trackers="none",
        profile=False,
        max_steps=steps,
        learning_rate=rate,
        min_lr=rate,
        circuit_lr=config.circuit_lr * rate / config.learning_rate if config.learning_rate else config.circuit_lr,
        warmup_steps=min(config.warmup_steps, steps // 10),
        eval_interval=max(1, steps // 4),
        eval_batches=min(config.eval_batches, 4),
        checkpoint_interval=max(1, steps // 4),
        log_interval=min(config.log_interval, steps),
        val_windows=sweep.windows,
    )
