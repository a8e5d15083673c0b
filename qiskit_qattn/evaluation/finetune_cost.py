"""What a fine-tuning sends to a backend, counted before that is sent."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from transformers import DataCollatorWithPadding

from qiskit_qattn.backends.jobs.device import Cost
from qiskit_qattn.backends.registry import Backend
from qiskit_qattn.evaluation.device_cost import run_cost
from qiskit_qattn.nn.placement import Movable
from qiskit_qattn.training.finetune import Prepared, build, read_result
from qiskit_qattn.training.finetune_config import FinetuneConfig
from qiskit_qattn.training.finetune_trainer import encoded
from qiskit_qattn.training.labelled import sized


def finetune_cost(config: FinetuneConfig, prepared: Prepared, backend: Backend) -> tuple[dict[str, Cost], Cost | None]:
    """Count what the methods and seeds without a result send to a backend, and the first job; nothing is sent.

    The first rows stand for all: a batch of other lengths has other numbers of circuits.

    Args:
        config: The settings.
        prepared: What :func:`~qiskit_qattn.training.finetune.prepare` returned for them.
        backend: Where the circuits would run.

    Raises:
        BackendError: As :func:`~qiskit_qattn.evaluation.device_cost.run_cost` does.
    """
    parts: dict[str, Cost] = {}
    first = None
    task = sized(prepared.task, config.train_rows, config.dev_rows, config.seed)
    collate = DataCollatorWithPadding(prepared.tokenizer)
    size = min(config.batch_size, len(task.train))
    batch = collate(encoded(task.train.take(size, 0), prepared.tokenizer, config.max_length))
    steps = math.ceil(math.ceil(len(task.train) / config.batch_size) * config.epochs)
    checks = math.ceil(len(task.dev) / config.batch_size)
    for method in config.method_names:
        seeds = [seed for seed in config.seed_numbers if read_result(config, method, seed) is None]
        model = build(config, prepared, method, config.seed)
        if not seeds or not any(isinstance(part, Movable) for part in model.modules()):
            continue
        forward = run_cost(model, backend, lambda model=model: _call(model, batch))  # type: ignore[misc]
        parts[f"{method}, evaluation"] = forward.total * (checks * len(seeds))
        if steps:
            step = run_cost(model, backend, lambda model=model: model(**batch).loss.backward())  # type: ignore[misc]
            parts[f"{method}, training"] = step.total * (steps * len(seeds))
        first = first or forward.first
    return parts, first


def _call(model: nn.Module, batch: Any) -> None:
    with torch.no_grad():
        model(**batch)
