from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qiskit_qattn.training.tokenizer import CharTokenizer

Run = Callable[..., Any]


def refused(result: Any) -> str:
    """Check that a command ended in one line and exit code 2, and return the line."""
    assert result.exit_code == 2, result.output
    lines = result.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--preset", "nanno"], "Did you mean 'nano'?"),
        (["--heads", "qissa:1,classical:1"], "qisa"),
        (["--heads", "qisa:1,classical:2"], "2"),
        (["--heads", "qisa"], "qisa"),
        (["--num-qubits", "1", "--n-embd", "64"], "observables"),
        (["--backend", "statevektor"], "statevector"),
        (["--block-size", "100000"], "too short"),
        (["--data", ""], "name of the text is empty"),
        (["--data", "no-such-file.txt"], "no-such-file.txt"),
        (["--sample-prompt", "ÿ"], "'ÿ'"),
        (["--learning-rate", "0.00001"], "min_lr"),
        (["--config", "no-such-file.toml"], "no-such-file.toml"),
        (["--trackers", "tensorbord"], "tensorboard"),
    ],
)
def test_a_setting_that_cannot_work_leaves_no_folder(train: Run, tmp_path: Path, arguments: list[str], told: str):
    assert told in refused(train(*arguments))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n\x00\x00", b"short", b"text with \x00 in it" * 100])
def test_a_file_that_is_no_text_leaves_no_folder(train: Run, tmp_path: Path, content: bytes):
    (tmp_path / "file.txt").write_bytes(content)
    refused(train("--data", tmp_path / "file.txt"))
    assert not (tmp_path / "run").exists()


def test_a_folder_that_exists_is_left_alone(train: Run, tmp_path: Path):
    (tmp_path / "run").mkdir()
    assert "exists" in refused(train())
    assert not list((tmp_path / "run").iterdir())


def test_a_run_folder_that_cannot_be_made(train: Run, text_file: Path):
    assert "Cannot write" in refused(train("--out", text_file / "run"))


def test_nothing_to_resume(train: Run, tmp_path: Path):
    assert "no run folder" in refused(train("--resume"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda model: (model / "model.safetensors").write_bytes(b"\x00" * 20), "model"),
        (lambda model: (model / "config.json").write_text("{}"), "model"),
        (lambda model: (model / "config.json").unlink(), "model"),
        (lambda model: (model / "tokenizer.json").write_text('{"a": 1}'), "tokenizer"),
        (lambda model: shutil.rmtree(model), "No model"),
    ],
)
def test_a_damaged_or_foreign_model_does_not_generate(
    qattn: Run, finished_run: Path, tmp_path: Path, damage: Callable[[Path], Any], told: str
):
    copied = tmp_path / "model"
    shutil.copytree(finished_run / "model", copied)
    damage(copied)
    assert told in refused(qattn("generate", copied, "--tokens", 3))


def test_a_prompt_outside_the_vocabulary(qattn: Run, finished_run: Path):
    line = refused(qattn("generate", finished_run, "--prompt", "the ☃"))
    assert "'☃'" in line
    assert "empty" in refused(qattn("generate", finished_run, "--prompt", ""))


def test_an_error_shows_its_traceback_on_request(train: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("QATTN_DEBUG", "1")
    result = train("--preset", "nanno")
    assert "nanno" in str(result.exception)
    assert not isinstance(result.exception, SystemExit)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["train", "--n-layer", "many"], "--n-layer"),
        (["train", "--no-such-flag"], "--no-such-flag"),
        (["train", "--preset"], "--preset"),
        (["generate"], "qattn generate --help"),
        (["generate", "run", "--tokens", "0"], "--tokens"),
        (["dance"], "dance"),
        (["--no-such-flag"], "--no-such-flag"),
    ],
)
def test_a_command_line_that_cannot_be_read(qattn: Run, arguments: list[str], told: str):
    assert told in refused(qattn(*arguments))


@pytest.mark.parametrize("value", ["nan", "inf", "-1"])
@pytest.mark.parametrize("flag", ["--temperature", "--seed"])
def test_a_bad_option_is_told_before_the_prompt(qattn: Run, finished_run: Path, flag: str, value: str):
    result = qattn("generate", finished_run, flag, value)
    assert flag[2:] in refused(result)
    assert not result.stdout


def test_a_seed_beyond_what_torch_takes(qattn: Run, finished_run: Path):
    assert "seed" in refused(qattn("generate", finished_run, "--seed", 2**63))


def test_a_tokenizer_of_another_model(qattn: Run, finished_run: Path, tmp_path: Path):
    copied = tmp_path / "model"
    shutil.copytree(finished_run / "model", copied)
    CharTokenizer("\nab").save(copied / "tokenizer.json")
    result = qattn("generate", copied)
    assert "has 3 characters" in refused(result)
    assert not result.stdout


@pytest.mark.parametrize("command", [["train", "--resume", "--out"], ["report", "--recompute"]])
def test_foreign_figures(qattn: Run, finished_run: Path, tmp_path: Path, command: list[str]):
    copied = tmp_path / "run"
    shutil.copytree(finished_run, copied)
    (copied / "metrics.json").write_text('{"val_loss": 1}')
    assert "metrics.json" in refused(qattn(*command, copied))
