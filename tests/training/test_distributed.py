"""Several processes compute what one computes: gloo on the CPU, started by torchrun as users start it."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPT = Path(__file__).with_name("data_parallel.py")
spec = spec_from_file_location("data_parallel", SCRIPT)
assert spec is not None and spec.loader is not None
data_parallel = module_from_spec(spec)
spec.loader.exec_module(data_parallel)


def torchrun(*command: str | Path) -> str:
    """Run a command in two processes, and return what they wrote to stdout."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([*launcher, *map(str, command)], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


QUICK = [name for name in data_parallel.CASES if name != "hugging face"]


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Return what each of two processes found."""
    return run_cases(tmp_path_factory.mktemp("together"), *QUICK)


def run_cases(folder: Path, *names: str) -> list[dict[str, Any]]:
    torchrun(SCRIPT, folder, *names)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("case", QUICK)
def test_two_processes_train_as_one(case: str, together: list[dict[str, Any]]):
    check_equal(case, together)


@pytest.mark.more  # half a minute, most of it to import transformers three times
def test_two_processes_train_a_hugging_face_model_as_one(tmp_path: Path):
    check_equal("hugging face", run_cases(tmp_path, "hugging face"))


def check_equal(case: str, together: list[dict[str, Any]]) -> None:
    alone = data_parallel.train(case, lambda model: model, slice(None))
    first, second = (found[case] for found in together)
    means = [(a + b) / 2 for a, b in zip(first["losses"], second["losses"], strict=True)]
    assert means == pytest.approx(alone["losses"], abs=1e-5)
    for part in ("gradients", "weights"):
        torch.testing.assert_close(first[part], alone[part], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(first[part], second[part], rtol=0, atol=0)
    circuits = [name for name in alone["weights"] if name.endswith(".weight") and ".maps." in name]
    assert circuits
    assert all((name in alone["gradients"]) == ("frozen" not in case) for name in circuits)
    assert all(name in alone["gradients"] for name in alone["weights"] if name.endswith(".gain"))
    assert all(float(alone["gradients"][name].abs().sum()) > 0 for name in circuits if "frozen" not in case)
