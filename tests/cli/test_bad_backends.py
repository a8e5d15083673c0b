"""A backend that cannot be: one line that says what to do, and nothing is started."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qiskit_qattn.backends.jobs.ledger import Ledger

Run = Callable[..., Any]
SNAPSHOT = "ibm:fake_manila?shots=16"


@pytest.fixture(autouse=True)
def no_accounts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Take away whatever credentials the user has."""
    for name in ("QISKIT_IBM_TOKEN", "QISKIT_IBM_URL", "QISKIT_IBM_INSTANCE", "AWS_PROFILE", "AWS_ACCESS_KEY_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    accounts = "qiskit_ibm_runtime.accounts.management._DEFAULT_ACCOUNT_CONFIG_JSON_FILE"
    monkeypatch.setattr(accounts, str(tmp_path / "qiskit-ibm.json"))


@pytest.mark.parametrize("command", ["generate", "estimate"])
@pytest.mark.parametrize(
    ("backend", "told"),
    [
        ("ibm:fake_manila?shots", "must be of the form key=value"),
        ("?shots=1", "expected name[:target][?key=value&…]"),
        ("statevector ->", "empty link"),
        ("statevectr", "Did you mean 'statevector'"),
        ("ibm:fake_manilla", "Did you mean 'fake_manila'"),
        ("ibm:ibm_fez", "save_account"),
        ("braket:sv1", "aws configure"),
        ("ibm:fake_armonk", "has 1; choose a larger device"),
        ("statevector?shots=0", "shots must be an integer of at least 1"),
        ("ibm:fake_manila?shots=0", "shots must be an integer of at least 1"),
        ("braket:local?shots=0", "shots must be an integer of at least 1"),
        ("ibm:fake_manila?budget=0s", "above 0, such as 60s or 5usd"),
    ],
)
def test_it_is_one_line(qattn: Run, finished_run: Path, command: str, backend: str, told: str) -> None:
    result = qattn(command, finished_run, "--backend", backend, "--tokens", 1)
    assert (result.exit_code, result.stdout) == (2, "")
    [line] = result.stderr.splitlines()[:1]
    assert line.startswith("error: ") and told in line
    assert Ledger().rows() == []


def newer(path: Path) -> str:
    Ledger(path).rows()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version=99")
    return "has version 99, this release reads up to 2. Update qiskit-qattn"


def corrupt(path: Path) -> str:
    path.write_bytes(b"no ledger" * 100)
    return "is no ledger: it is not an SQLite file. Nothing was changed. Move it away"


def folder(path: Path) -> str:
    path.mkdir()
    return "is no ledger: it is a directory. Nothing was changed. Move it away"


def pipe(path: Path) -> str:
    os.mkfifo(path)
    return "is no ledger: it is a pipe. Nothing was changed. Move it away"


@pytest.mark.parametrize("spoil", [newer, corrupt, folder, pipe])
def test_a_ledger_that_cannot_be_used_is_one_line(
    qattn: Run, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], str]
) -> None:
    path = tmp_path / "ledger.sqlite"
    monkeypatch.setenv("QATTN_LEDGER", str(path))
    told = spoil(path)
    for arguments in (("generate", finished_run, "--tokens", 1, "--backend", SNAPSHOT), ("jobs", "list")):
        result = qattn(*arguments)
        assert result.exit_code == 2
        errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1 and told in errors[0]
