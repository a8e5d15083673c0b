from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qiskit_qattn.cli.draw import command
from qiskit_qattn.library.catalog import list_circuits

Run = Callable[..., Any]


def test_text_goes_to_the_terminal(qattn: Run):
    result = qattn("draw", "qisa", "--num-qubits", 2)
    assert result.exit_code == 0, result.output
    assert "q_1" in result.stdout


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("a.svg", b"<?xml"),
        ("a.png", b"\x89PNG"),
        ("a.pdf", b"%PDF"),
        ("a.qasm", b"OPENQASM 3"),
        ("a.qpy", b"QISKIT"),
        ("a.tex", b"\\documentclass"),
    ],
)
def test_the_ending_of_the_file_is_the_format(qattn: Run, tmp_path: Path, name: str, start: bytes):
    result = qattn("draw", "zz", "-n", 2, "-o", tmp_path / name)
    assert result.exit_code == 0, result.output
    assert (tmp_path / name).read_bytes().startswith(start)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["qissa"], "qisa"),
        ([], "--gallery"),
        (["qisa", "--format", "png"], "-o FILE"),
        (["qisa", "-o", "picture.gif"], "svg"),
        (["qisa", "-n", "0"], "0"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(qattn: Run, arguments: list[str], told: str):
    result = qattn("draw", *arguments)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert told in result.stderr


def test_a_file_that_cannot_be_written_is_one_line(qattn: Run, text_file: Path):
    result = qattn("draw", "qisa", "-n", 2, "-o", text_file / "x.svg")
    assert result.exit_code == 2
    assert f"'{text_file}' is not a folder." in result.stderr


def test_the_gallery_has_every_circuit(qattn: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("qiskit_qattn.library.gallery.GALLERY_QUBITS", (2,))  # small ones are drawn faster
    result = qattn("draw", "--gallery", tmp_path / "circuits")
    assert result.exit_code == 0, result.output
    assert set(list_circuits()) <= {path.name for path in (tmp_path / "circuits").iterdir()}


def test_text_fits_the_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    command("qisa", num_qubits=2)
    lines = capsys.readouterr().out.splitlines()
    assert any("q_1" in line for line in lines) and max(map(len, lines)) <= 80
