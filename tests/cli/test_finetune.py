"""``qattn finetune`` on a tiny BERT."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest


@pytest.fixture
def run(qattn, tiny_bert, reviews, tmp_path):
    """Return a function that runs ``qattn finetune`` for one epoch, with more arguments."""

    def call(*arguments, model=tiny_bert, task=reviews):
        flags = ["--num-qubits", 2, "--epochs", 1, "--max-length", 12, "--device", "cpu", "--learning-rate", 0.01]
        return qattn("finetune", "--model", model, "--task", task, "--out", tmp_path / "out", *flags, *arguments)

    return call


def test_methods_are_trained_compared_and_reported(run, qattn, tmp_path):
    done = run("--method", "qisa,lora", "--seeds", 2, "--no-save-models")
    assert done.exit_code == 0, done.output
    assert "2/4 lora seed 0: Accuracy" in done.output
    assert "Not enough seeds to distinguish qisa and lora: 2 paired" in done.output
    folder = tmp_path / "out"
    assert {path.name for path in folder.iterdir()} >= {"config.toml", "report.json", "report.md", "scores.png"}
    report = json.loads((folder / "report.json").read_text())
    assert report["reference"] == "lora" and report["methods"]["qisa"]["seeds"] == [0, 1]
    text = (folder / "report.md").read_text()
    assert "| Method | Accuracy | F1 | Matthews correlation | Loss |" in text and "## Comparison with `lora`" in text
    before = (folder / "qisa" / "seed-0" / "result.json").stat().st_mtime_ns
    again = qattn("finetune", "--out", folder, "--method", "probe")
    assert again.exit_code == 0, again.output
    assert "qisa seed" not in again.output and "probe: Accuracy" in again.output
    assert (folder / "qisa" / "seed-0" / "result.json").stat().st_mtime_ns == before


def test_a_long_fine_tuning_says_how_long_before_it_starts(run, monkeypatch):
    monkeypatch.setattr("qiskit_qattn.training.finetune.cell_seconds", lambda *_: [100.0, 200.0])
    done = run("--method", "probe", "--seeds", 2, "--no-save-models")
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[:2] == ["time: about 5.0 min", "probe seed 0: training from step 0 to 3"]


def test_settings_come_from_a_file_and_flags_win(qattn, tiny_bert, reviews, tmp_path):
    config = tmp_path / "c.toml"
    config.write_text(f'model = "{tiny_bert}"\ntask = "{reviews}"\nmethods = "lora"\nepochs = 0\nmax_length = 12\n')
    out = tmp_path / "out"
    done = qattn("finetune", "--config", config, "--method", "probe", "--out", out, "--device", "cpu")
    assert done.exit_code == 0, done.output
    report = json.loads((out / "report.json").read_text())
    assert list(report["methods"]) == ["probe"] and report["config"]["epochs"] == 0
    assert "One seed" in (out / "report.md").read_text()


def refused(result, *texts):
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), result.stderr
    for text in texts:
        assert text in lines[0]
    assert not result.exception or isinstance(result.exception, SystemExit)


def test_what_is_wrong_is_one_line(run, qattn, tmp_path):
    columns = tmp_path / "columns.tsv"
    columns.write_text("text\tlabel\na\t1\n")
    one_class = tmp_path / "one.tsv"
    one_class.write_text("sentence\tlabel\n" + "the film was good\t1\n" * 5)
    refused(run(task=columns), "no column sentence")
    refused(run(task=one_class), "has one class, '1'")
    refused(run(task="colla"), "Did you mean 'cola'?")
    refused(run("--method", "qissa"), "Unknown method 'qissa'. Did you mean 'qisa'?")
    refused(run(model="nobody/nothing"), "There is no model 'nobody/nothing'")
    refused(run(model=tmp_path), "holds no tokenizer that can be loaded")
    refused(run("--adapter", tmp_path), "holds no adapters that can be loaded")
    refused(run("--method", "qisa,lora", "--adapter", tmp_path), "those of one method")
    refused(run("--batch-size", 0), "batch_size is 0, but must be at least 1 and at most 65536")
    refused(run("--backend", "statevectr"), "Did you mean 'statevector'?")
    refused(qattn("finetune", "--model", "minilm"), "needs a task")
    refused(qattn("finetune", "--config", tmp_path / "missing.toml"), "Cannot read the configuration")
    assert not (tmp_path / "out").exists()


@pytest.mark.more
@pytest.mark.skipif(os.name == "nt", reason="signals are those of POSIX")
def test_ctrl_c_saves_and_the_same_command_continues(tiny_bert, reviews, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-c", "from qiskit_qattn.cli.main import main; main()", "finetune", "--out", str(out)]
    command += ["--model", str(tiny_bert), "--task", str(reviews), "--max-length", "12", "--num-qubits", "2"]
    command += ["--epochs", "2000", "--batch-size", "8", "--device", "cpu", "--threads", "1"]
    command += ["--checkpoint-interval", "20", "--method", "probe"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 120
        while not list(out.glob("probe/seed-0/checkpoints/checkpoint-*/trainer_state.json")):
            assert time.monotonic() < deadline and child.poll() is None
            time.sleep(0.1)
        child.send_signal(signal.SIGINT)
        _, stderr = child.communicate(timeout=60)
    finally:
        child.kill()
        child.communicate()
    assert child.returncode == 130, stderr
    assert "was saved in" in stderr and f"qattn finetune --out {out}" in stderr and "Traceback" not in stderr
    (checkpoint,) = out.glob("probe/seed-0/checkpoints/checkpoint-*")
    assert f"stopped at step {checkpoint.name.partition('-')[2]}" in stderr
