from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qiskit_qattn.training.config import TrainConfig


@pytest.fixture
def tiny(text_file: Path, tmp_path: Path) -> Callable[..., TrainConfig]:
    """Return a function that makes the settings of a run of a second, with changes."""

    def make(**changes: Any) -> TrainConfig:
        settings: dict[str, Any] = {
            "data": str(text_file),
            "out": str(tmp_path / "run"),
            "n_layer": 1,
            "n_head": 2,
            "n_embd": 16,
            "block_size": 8,
            "heads": "qisa:1,classical:1",
            "num_qubits": 3,
            "batch_size": 4,
            "max_steps": 12,
            "warmup_steps": 2,
            "log_interval": 1,
            "eval_interval": 5,
            "eval_batches": 2,
            "checkpoint_interval": 5,
            "sample_tokens": 20,
            "trackers": "none",
            "device": "cpu",
        }
        return TrainConfig.from_dict({**settings, **changes})

    return make
