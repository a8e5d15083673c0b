from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from qiskit_qattn.cli.app import app

FLAGS = "--preset smoke --max-steps 6 --eval-interval 3 --trackers none --device cpu --num-qubits 3"


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
