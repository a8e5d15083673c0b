from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from qiskit_qattn.cli.app import app
from qiskit_qattn.training.config import resolve
from qiskit_qattn.training.run import train_run

VERSE = "the king and queen shall speak to thee good sir what is this night love death come hither"
FLAGS = "--preset smoke --max-steps 6 --eval-interval 3 --trackers none --device cpu --num-qubits 3"


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with a little made-up verse."""
    draw, words = random.Random(1), VERSE.split()
    path = tmp_path_factory.mktemp("text") / "verse.txt"
    path.write_text("\n".join(" ".join(draw.choice(words) for _ in range(7)) for _ in range(200)))
    return path


@pytest.fixture(scope="session")
def finished_run(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished run with its baseline."""
    config = resolve(
        {
            "data": str(text_file),
            "out": str(tmp_path_factory.mktemp("runs") / "run"),
            "baseline": True,
            "profile": True,
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
            "sample_tokens": 40,
            "trackers": "none",
            "device": "cpu",
        }
    )
    train_run(config)
    return config.folder


@pytest.fixture
def qattn() -> Callable[..., Result]:
    """Return a function that runs ``qattn`` with arguments, in this process."""
    runner = CliRunner()

    def run(*arguments: object) -> Result:
        return runner.invoke(app, [str(argument) for argument in arguments])

    return run


@pytest.fixture
def train(qattn: Callable[..., Result], text_file: Path, tmp_path: Path) -> Callable[..., Result]:
    """Return a function that runs ``qattn train`` on a tiny model, with more arguments."""

    def run(*arguments: object) -> Result:
        flags = FLAGS.split()
        return qattn("train", *flags, "--data", text_file, "--out", tmp_path / "run", *arguments)

    return run
