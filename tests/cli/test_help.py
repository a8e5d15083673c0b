from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

import pytest
import typer

from qiskit_qattn.cli.app import app
from qiskit_qattn.cli.help import nearest_options, say

Run = Callable[..., Any]


def paths(command: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Return the words that call a command and each one below it."""
    below = getattr(command, "commands", {})
    return [path, *(found for name, each in below.items() for found in paths(each, (*path, name)))]


COMMANDS = paths(typer.main.get_command(app))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_fits_80_columns_and_cuts_no_word(qattn: Run, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]):
    monkeypatch.setenv("COLUMNS", "80")
    narrow = qattn(*command, "--help").output
    monkeypatch.setenv("COLUMNS", "1000")
    wide = qattn(*command, "--help").output
    assert max(map(len, narrow.splitlines())) <= 80
    assert narrow.split() == wide.split()
    arguments = wide.strip().splitlines()[0].partition("[OPTIONS]")[2]
    assert arguments == arguments.upper()  # as the text names them


def test_every_option_of_a_command_is_in_its_help_under_its_heading(qattn: Run):
    text = qattn("train", "--help").output
    headings = re.findall(r"^(\w+):$", text, re.MULTILINE)
    assert headings == ["Run", "Model", "Optimisation", "Evaluation", "Sample", "Options"]
    options = [name for param in typer.main.get_command(app).commands["train"].params for name in param.opts]  # type: ignore[attr-defined]
    assert options
    assert [name for name in options if not re.search(rf"(?<![\w-]){name}(?![\w-])", text)] == []


def test_the_list_of_commands_gives_whole_sentences(qattn: Run):
    text = " ".join(qattn("--help").output.split())
    assert "Continue a prompt with the model of RUN, character by character." in text


def test_lines_end_between_words_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    long = "model: validation loss 3.1342 (last position 3.1491), 30,902 tokens/s, leakage 0.0e+00"
    text = f"{long}\nreport: runs/a-b/report.md"
    monkeypatch.setenv("COLUMNS", "80")
    say(text)
    assert capsys.readouterr().out == text + "\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    say(text)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80 and " ".join(lines).split() == text.split()
    assert lines[1:] == ["0.0e+00", "report: runs/a-b/report.md"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("--lr", ["--learning-rate"]),
        ("--wd", ["--weight-decay"]),
        ("--learning_rate", ["--learning-rate"]),
        ("--steps", ["--max-steps", "--warmup-steps"]),
        ("--qubits", ["--num-qubits"]),
        ("--batch", ["--batch-size"]),
        ("--layers", ["--n-layer"]),
        ("--max-new-tokens", ["--tokens"]),
        ("--sed", ["--seed"]),
        ("--zzz", []),
        ("-q", []),
    ],
)
def test_the_nearest_options(given: str, expected: list[str]):
    known = ["--learning-rate", "--weight-decay", "--max-steps", "--warmup-steps", "--num-qubits", "--batch-size"]
    assert nearest_options(given, [*known, "--n-layer", "--tokens", "--min-lr", "--seed", "-y"]) == expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("train", "--lr", "1"), "No such option: --lr. Did you mean --learning-rate? See qattn train --help."),
        (("jobs", "list", "--stat", "x"), "No such option: --stat. Did you mean --state? See qattn jobs list --help."),
        (("train", "--zzz"), "No such option: --zzz. See qattn train --help."),
        (("trian",), "No such command 'trian'. Did you mean 'train'? See qattn --help."),
        (("jobs", "lst"), "No such command 'lst'. Did you mean 'list'? See qattn jobs --help."),
        (("generate",), "Missing argument 'RUN'. See qattn generate --help."),
        (
            ("export", "r", "--out", "o", "--format", "x"),
            "Invalid value for '--format': 'x' is not one of 'onnx', 'torch'. See qattn export --help.",
        ),
    ],
)
def test_a_command_line_that_cannot_be_read_is_answered_in_one_line(
    qattn: Run, arguments: tuple[str, ...], expected: str
):
    result = qattn(*arguments)
    assert result.exit_code == 2
    assert result.stderr == f"error: {expected}\n"
