"""Hugging Face's Trainer as a fine-tuning uses it: sentences as tokens, progress, interruption and checkpoints."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from torch import nn
from transformers import (
    DataCollatorWithPadding,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from qiskit_qattn.training.finetune_config import FinetuneConfig
from qiskit_qattn.training.labelled import Rows
from qiskit_qattn.training.progress import InterruptGuard, Progress


class Watch(TrainerCallback):
    """Passes on the progress of a training, and stops it with a checkpoint after SIGINT or SIGTERM.

    Args:
        name: The name of the training.
        progress: Receives the progress.

    Attributes:
        guard: Notes the signals.
        tokens: The mean number of tokens per step.
    """

    def __init__(self, name: str, progress: Progress) -> None:
        self.name, self.progress, self.tokens = name, progress, 0.0
        self.guard = InterruptGuard()
        self._begin, self._first = 0.0, 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Note where the training starts."""
        self._begin, self._first = time.perf_counter(), state.global_step
        self.progress.phase_started(self.name, state.global_step, state.max_steps)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Pass on the step, and stop if a signal came."""
        speed = self.tokens * (state.global_step - self._first) / (time.perf_counter() - self._begin)
        loss = next((log["loss"] for log in reversed(state.log_history) if "loss" in log), None)
        self.progress.step_done(state.global_step, loss, speed)
        if self.guard.received is not None:
            control.should_save = control.should_training_stop = True


def make_trainer(
    config: FinetuneConfig,
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    rows: Rows,
    folder: Path,
    *,
    seed: int,
    rate: float,
    watch: Watch,
) -> Trainer:
    """Return the trainer of a model; batches of one seed are equal, whatever the model.

    Args:
        config: The settings.
        model: The model.
        tokenizer: Its tokenizer.
        rows: The rows for training.
        folder: The folder of checkpoints.
        seed: Seed of the batches.
        rate: Peak learning rate.
        watch: Receives the progress.
    """
    data = encoded(rows, tokenizer, config.max_length)
    watch.tokens = config.batch_size * sum(len(row["input_ids"]) for row in data) / len(data)
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.batch_size,
        num_train_epochs=config.epochs,
        learning_rate=rate,
        warmup_steps=config.warmup,
        weight_decay=config.weight_decay,
        seed=seed,
        data_seed=seed,
        save_steps=config.checkpoint_interval,
        save_total_limit=1,
        logging_steps=10,
        report_to="none",
        disable_tqdm=True,
        use_cpu=config.device == "cpu",
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        label_names=["labels"],
    )
    trainer = Trainer(
        model,
        arguments,
        DataCollatorWithPadding(tokenizer),
        train_dataset=data,
        callbacks=[watch],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def encoded(rows: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[dict[str, Any]]:
    """Return the tokens of each row with its label, at most ``max_length`` of them; long sentences are cut."""
    pairs = (rows.first,) if rows.second is None else (rows.first, rows.second)
    found = tokenizer(*pairs, truncation=True, max_length=max_length)
    return [
        {**{name: values[i] for name, values in found.items()}, "labels": label} for i, label in enumerate(rows.labels)
    ]


def by_length(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows in order of their length, so that batches need little padding."""
    return sorted(rows, key=lambda row: len(row["input_ids"]))


def last_checkpoint(folder: Path) -> str | None:
    """Return the last complete checkpoint, and remove what a killed process left half written; None without one."""
    found = []
    for path in folder.glob("checkpoint-*"):
        if (path / "trainer_state.json").is_file():  # the last file of a checkpoint
            found.append(path)
        else:
            shutil.rmtree(path, ignore_errors=True)
    return str(max(found, key=lambda path: int(path.name.rpartition("-")[2]))) if found else None
