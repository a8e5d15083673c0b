"""Input that nobody means well: one line and exit code 2, at once; and output that a terminal survives."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from qiskit_qattn.training.tokenizer import CharTokenizer

Run = Callable[..., Any]
QATTN = [sys.executable, "-c", "from qiskit_qattn.cli.main import main; main()"]
LONG = "x" * 5000


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run ``qattn`` in a process of its own, for at most a minute."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment}
    return subprocess.run(
        [*QATTN, *map(os.fsencode, map(str, arguments))], env=env, capture_output=True, timeout=60, check=False
    )


def refused(result: Any) -> str:
    """Check that a command ended in one line and exit code 2, and return the line."""
    assert result.exit_code == 2, result.output
    [line] = result.stderr.splitlines()
    assert line.startswith("error: ") and line.isprintable()
    assert len(line) < 2000
    return line


@pytest.fixture
def copied(finished_run: Path, tmp_path: Path) -> Path:
    """Return a copy of a finished run, to be spoilt."""
    return Path(shutil.copytree(finished_run, tmp_path / "copied"))


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "ascii:strict", "cp437", "utf-8"])
def test_a_drawing_that_the_code_page_cannot_show_is_drawn_with_replacements(encoding: str):
    done = run("draw", "qisa", PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert (done.returncode, done.stderr) == (0, b"")
    page = "utf-8" if encoding.startswith("ascii") else encoding  # click takes ASCII for a missing setting
    lines = done.stdout.decode(page).splitlines()
    assert any("q_3" in line for line in lines)
    if encoding == "cp1252":
        assert any("??" in line for line in lines)


@pytest.mark.more
def test_a_run_is_reported_whatever_the_code_page(tmp_path: Path):
    (tmp_path / "text.txt").write_text("übermäßig schöne Größen — ψ ☃\n" * 60, "utf-8")
    flags = ["--preset", "smoke", "--max-steps", "2", "--eval-interval", "2", "--trackers", "none", "--device", "cpu"]
    flags += ["--num-qubits", "3"]
    done = run(
        *("train", *flags, "--data", tmp_path / "text.txt", "--out", tmp_path / "run", "--sample-prompt", "☃"),
        PYTHONIOENCODING="ascii",
        PYTHONUTF8="0",
        PYTHONPATH=os.pathsep.join(filter(None, sys.path)),
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.md").is_file()
    done.stdout.decode("utf-8")


def test_a_run_with_an_emoji_as_its_prompt_is_reported_and_resumed(train: Run, qattn: Run, tmp_path: Path):
    (tmp_path / "text.txt").write_text("so 😀 and 🚀 it is\n" * 200, "utf-8")
    assert train("--data", tmp_path / "text.txt", "--sample-prompt", "😀").exit_code == 0
    assert qattn("report", tmp_path / "run", "--recompute").exit_code == 0
    assert qattn("train", "--resume", "--out", tmp_path / "run").exit_code == 0
    assert "😀" in (tmp_path / "run" / "report.md").read_text("utf-8")


def test_a_file_whose_name_is_not_utf8_is_refused_before_a_run(tmp_path: Path):
    name = os.path.join(os.fsencode(tmp_path), b"caf\xe9.txt")
    with open(name, "w") as stream:
        stream.write("text of a file\n" * 200)
    done = run("train", "--preset", "smoke", "--data", os.fsdecode(name), "--out", tmp_path / "run")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"must be Unicode text" in done.stderr and done.stderr.count(b"\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--data", "/dev/zero"], "no regular file"),
        (["--data", "pipe"], "no regular file"),
        (["--config", "pipe"], "no regular file"),
        (["--config", "/dev/zero"], "no regular file"),
        (["--data", LONG], "5,000 characters"),
        (["--data", "x" * 300], "too long"),
        (["--out", "x" * 300], "too long"),
        (["--config", LONG], "too long"),
        (["--n-embd", "1048576"], "GiB"),
        (["--n-layer", "9" * 4000], "n_layer can be at most 10,000"),
        (["--batch-size", "2000000000"], "GiB"),
        (["--max-steps", "9" * 5000], "max-steps"),
        (["--learning-rate", "1e999"], "learning_rate"),
        (["--data", "\x1b]0;owned\x07"], r"\x1b]0;owned\x07"),
        (["--preset", "\x1b[31m\u202e"], r"\u202e"),
        (["--heads", "\x1b[2J:1"], r"\x1b[2J"),
    ],
)
def test_a_hostile_setting(
    train: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    assert told in refused(train(*arguments))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "command",
    [
        ["generate", LONG],
        ["report", LONG],
        ["estimate", LONG, "--backend", "aer"],
        ["noise-sweep", LONG],
        ["train", "--resume", "--out", "x" * 300],
        ["draw", "qisa", "-o", "x" * 300 + ".svg"],
        ["draw", "qisa", "--num-qubits", "9" * 30],
        ["draw", "qisa", "--reps", "9" * 12],
        ["compare", "--out", "x" * 300],
        ["backends", "x" * 5000],
        ["jobs", "show", "x" * 5000],
        ["reproduce", "qisa-leak", "--out", "x" * 300],
        ["reproduce", "qisa-leak", "--seed", str(2**32)],
    ],
    ids=lambda command: " ".join(command)[:20],
)
def test_a_hostile_name(qattn: Run, text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Any):
    monkeypatch.chdir(tmp_path)
    data = ["--data", str(text_file)] if command[0] in ("compare", "reproduce") else []
    refused(qattn(*command, *data))


def test_seeds_beyond_what_a_generator_takes(qattn: Run, text_file: Path, tmp_path: Path):
    study = ["compare", "--data", text_file, "--out", tmp_path / "study", "--block-size", "8"]
    assert "at most 4294967295" in refused(qattn(*study, "--seed", str(2**32 - 1), "--seeds", "2"))
    assert "from 1 to 10,000" in refused(qattn(*study, "--seeds", str(10**12)))
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"model": None},
        {"model": []},
        {"config": {"data": 1}},
        {"versions": "x"},
        {"prompt": None},
        {"baseline": None},
        {"text_differences": None},
        {"text_differences": {"length": "x"}},
        {"val_loss": "low"},
        {"created": 5},
    ],
    ids=str,
)
def test_a_report_of_wrong_types(qattn: Run, copied: Path, change: dict[str, Any]):
    assert qattn("report", copied, "--recompute").exit_code == 0
    path = copied / "report.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **change}))
    assert "report.json" in refused(qattn("report", copied))


@pytest.mark.parametrize("name", ["metrics.json", "config.toml", "model/config.json", "model/tokenizer.json"])
@pytest.mark.parametrize("content", ["[" * 100_000, "9" * 5000, "x = " + "9" * 5000, "[1]", "\0", "null", '{"a": 1}'])
def test_a_run_folder_with_anything_in_it(qattn: Run, copied: Path, name: str, content: str):
    (copied / name).write_text(content)
    refused(qattn("report", copied, "--recompute"))


def test_text_from_a_corpus_is_escaped_on_a_terminal_and_not_in_a_file(copied: Path):
    path = copied / "model" / "tokenizer.json"
    tokenizer = CharTokenizer.load(path)
    evil = "\x1b\x07" + "".join(sorted(set(tokenizer.characters) - {"\n"}))[2:] + "\n"
    CharTokenizer(evil).save(path)
    command = [*QATTN, "generate", str(copied), "--tokens", "60", "--seed", "1", "--prompt", "\x1b"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TERM": "dumb"}
    piped = subprocess.run(command, env=env, capture_output=True, timeout=60, check=True).stdout
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        process = subprocess.Popen(command, env=env, stdout=theirs, stderr=subprocess.DEVNULL)
        os.close(theirs)
        shown = b""
        try:
            while part := terminal.read(4096):
                shown += part
        except OSError:  # the end of a terminal
            pass
        assert process.wait(60) == 0
    assert piped.startswith(b"\x1b")
    shown = shown.removesuffix(b"\x1b[0m")  # what the command line's own library ends with
    assert shown.startswith(rb"\x1b") and b"\x1b" not in shown and b"\x07" not in shown


BROKEN = """
class Angry:
    def __getattr__(self, name):
        raise RuntimeError("no")
def __getattr__(name):
    import sys
    {act}
"""


@pytest.mark.parametrize(
    "act", ["raise RuntimeError('\\x1b[31mboo')", "sys.exit(7)", "raise OSError(5, 'x')", "1 / 0", "return Angry()"]
)
def test_a_package_that_fails_in_any_way_does_not_hide_the_others(
    qattn: Run, install_package: Callable[[str, str, str, Mapping[str, str]], None], act: str
):
    install_package("qattn-broken", "qattn_broken", BROKEN.format(act=act), {"broken": "qattn_broken:provider"})
    result = qattn("backends")
    assert result.exit_code == 0, result.output
    assert "statevector" in result.output and "broken" in result.output and "\x1b[31mboo" not in result.output
    assert "broken" in refused(qattn("backends", "broken"))
