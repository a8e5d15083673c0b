"""Several processes compute what one computes: gloo on the CPU, started by torchrun as users start it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from qiskit_qattn.errors import ConfigError
from qiskit_qattn.training.config import resolve
from qiskit_qattn.training.metrics import read_metrics
from qiskit_qattn.training.run import train_run

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
    assert done.returncode == 0, done.stderr[:4000]
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


def train_command(qattn_options: str, out: Path) -> list[str]:
    """Return ``qattn train`` as a command of torchrun."""
    qattn = Path(sys.executable).with_name("qattn")
    return ["--no-python", str(qattn), "train", *shlex.split(qattn_options), "--device", "cpu", "--out", str(out)]


@pytest.mark.more
def test_qattn_train_in_two_processes_trains_as_in_one_and_resumes(tmp_path: Path):
    alone = resolve({"preset": "smoke", "max_steps": 20, "device": "cpu", "out": str(tmp_path / "alone")})
    train_run(alone)
    train_run(alone.replace(max_steps=30), resume=True)
    torchrun(*train_command("--preset smoke --max-steps 20", tmp_path / "both"))
    torchrun(*train_command("--resume --max-steps 30", tmp_path / "both"))
    expected, found = (read_metrics(tmp_path / name) for name in ("alone", "both"))
    assert expected is not None and found is not None
    assert (expected["processes"], found["processes"]) == (1, 2)
    for one, two in zip(expected["history"]["train"], found["history"]["train"], strict=True):
        assert two == {"step": one["step"], "loss": pytest.approx(one["loss"], abs=1e-3)}
    assert found["val_loss"] == pytest.approx(expected["val_loss"], abs=1e-3)
    one, two = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("alone", "both"))
    torch.testing.assert_close(two, one, rtol=0, atol=1e-2)
    with pytest.raises(ConfigError, match="of 2 processes, but 1 are running"):
        train_run(alone.replace(out=str(tmp_path / "both"), max_steps=40), resume=True)


@pytest.mark.more
def test_compiled_steps_in_two_processes_train_as_in_one(tmp_path: Path):
    options = "--preset smoke --max-steps 10 --n-layer 1 --heads qisa:2"
    torchrun(*train_command(f"{options} --compile", tmp_path / "compiled"))
    settings = {"preset": "smoke", "max_steps": 10, "n_layer": 1, "heads": "qisa:2", "device": "cpu"}
    train_run(resolve({**settings, "out": str(tmp_path / "plain")}))
    plain, compiled = (read_metrics(tmp_path / name) for name in ("plain", "compiled"))
    assert plain is not None and compiled is not None
    for one, two in zip(plain["history"]["train"], compiled["history"]["train"], strict=True):
        assert two == {"step": one["step"], "loss": pytest.approx(one["loss"], abs=1e-3)}


@pytest.mark.more
def test_a_slurm_job_through_submitit_trains_in_two_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    submitit = pytest.importorskip("submitit")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    settings = {"preset": "smoke", "max_steps": 10, "device": "cpu", "out": str(tmp_path / "run")}

    def train() -> str:
        submitit.helpers.TorchDistributedEnvironment().export()
        return str(train_run(resolve(settings)).folder)

    executor = submitit.AutoExecutor(folder=str(tmp_path / "jobs"), cluster="local")
    executor.update_parameters(tasks_per_node=2, timeout_min=5)
    assert executor.submit(train).results() == [str(tmp_path / "run")] * 2
    found = read_metrics(tmp_path / "run")
    assert found is not None and found["processes"] == 2
