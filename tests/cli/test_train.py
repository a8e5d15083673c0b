from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qiskit_qattn.training.config import SETTINGS

Run = Callable[..., Any]
ENDLESS = "--preset smoke --max-steps 100000 --trackers none --device cpu --num-qubits 3 --eval-interval 5"
COMMAND = [sys.executable, "-c", "from qiskit_qattn.cli.main import main; main()"]


def test_a_run_ends_with_a_report(train: Run, tmp_path: Path):
    result = train("--baseline", "--sample-prompt", "the king")
    assert result.exit_code == 0, result.output
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {
        *(
            "baseline",
            "checkpoints",
            "config.toml",
            "loss.png",
            "metrics.json",
            "model",
            "paper",
            "report.json",
            "report.md",
        )
    }
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["prompt"] == "the king"
    assert report["config"]["max_steps"] == 6
    assert f"model: validation loss {report['val_loss']:.4f}" in result.output
    assert f"baseline: validation loss {report['baseline']['val_loss']:.4f}" in result.output
    assert "the king" + report["model"]["sample"] in result.output
    assert len(re.findall(r"^step +3 ", result.output, flags=re.MULTILINE)) == 2


def test_flags_win_over_the_file_and_the_file_over_the_preset(train: Run, tmp_path: Path):
    file = tmp_path / "run.toml"
    file.write_text("max_steps = 50\nbatch_size = 5\nheads = ['classical:2', 'qisa:2']\n")
    result = train("--config", file, "--seed", 3)
    assert result.exit_code == 0, result.output
    config = json.loads((tmp_path / "run" / "report.json").read_text())["config"]
    assert (config["max_steps"], config["batch_size"], config["seed"]) == (6, 5, 3)
    assert (config["heads"], config["n_embd"]) == (["classical:2", "qisa:2"], 16)


def test_a_run_is_resumed_by_its_folder(train: Run, qattn: Run, tmp_path: Path):
    assert train().exit_code == 0
    result = qattn("train", "--resume", "--out", tmp_path / "run", "--max-steps", 8)
    assert result.exit_code == 0, result.output
    assert "resuming at step 6 to 8" in result.output
    assert json.loads((tmp_path / "run" / "report.json").read_text())["model"]["step"] == 8
    refused = qattn("train", "--resume", "--out", tmp_path / "run", "--n-embd", 32)
    assert refused.exit_code == 2
    assert "n_embd" in refused.stderr


def test_a_long_run_says_how_long_before_it_starts(train: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("qiskit_qattn.training.pace.run_seconds", lambda *_, **__: [100.0, 50.0])
    result = train("--baseline")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0] == "time: about 2.5 min" and lines[1] == "model: training from step 0 to 6"


def test_every_setting_is_a_flag(qattn: Run):
    shown = qattn("train", "--help").output
    for name in SETTINGS:
        assert f"--{name.replace('_', '-')}" in shown


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.more)]
)
def test_an_interrupted_run_saves_and_says_how_to_go_on(
    qattn: Run, text_file: Path, tmp_path: Path, number: int, code: int
):
    out = tmp_path / "my run"
    flags = ENDLESS.split()
    process = subprocess.Popen(
        [*COMMAND, "train", *flags, "--data", str(text_file), "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if re.match(r"step +10 ", line):
            break
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == code
    assert len(errors.strip().splitlines()) == 1
    found = re.search(r"stopped at step (\d+) .* Resume with: qattn train --resume --out '(.*)'", errors)
    assert found, errors
    assert found[2] == str(out)
    step = int(found[1])
    assert (out / "checkpoints" / f"step-{step}" / "trainer.pt").is_file()
    result = qattn("train", "--resume", "--out", out, "--max-steps", step + 2)
    assert result.exit_code == 0, result.output
    assert f"resuming at step {step}" in result.output
