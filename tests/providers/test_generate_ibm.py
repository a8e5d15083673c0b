"""``qattn generate`` on a paid device."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from qiskit_qattn.backends.jobs.ledger import Ledger
from qiskit_qattn.cli.app import app
from qiskit_qattn.nn.config import GPTConfig
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.training.tokenizer import CharTokenizer

from .ibm_server import IBMServer

BACKEND = "ibm:test_manila?resilience=0&shots=64"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    tokenizer = CharTokenizer("\nabc")
    size = tokenizer.vocab_size
    GPT(GPTConfig(size, 4, 1, 2, 8, heads="qisa:1,classical:1", num_qubits=2)).save_pretrained(tmp_path)
    tokenizer.save(tmp_path / "tokenizer.json")
    return tmp_path


def qattn(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_paid_device_without_a_budget_gets_nothing(ibm_server: IBMServer, model: Path) -> None:
    result = qattn("generate", model, "--backend", BACKEND, "--tokens", 3)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "plan pay-as-you-go" in result.stderr  # the estimate comes first
    [error] = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "no budget is given, so nothing was sent" in error and "--yes" in error
    assert not ibm_server.jobs and Ledger().rows() == []


@pytest.mark.parametrize("agreed", ["--yes", "budget=60s"])
def test_agreed_to_it_runs_and_tells_what_was_used(ibm_server: IBMServer, model: Path, agreed: str) -> None:
    flags = ["--yes", "--backend", BACKEND] if agreed == "--yes" else ["--backend", f"{BACKEND}&{agreed}"]
    result = qattn("generate", model, *flags, "--tokens", 2, "--seed", 1)
    assert result.exit_code == 0, result.output
    assert len(result.stdout) == 1 + 2 + 1
    used = result.stderr.splitlines()[-1]
    assert used.startswith("ibm:test_manila: jobs sent: 2; served from the ledger: 0; used: ") and "USD" in used
    assert len(ibm_server.jobs) == 2


def test_a_budget_stops_before_it_is_passed(ibm_server: IBMServer, model: Path) -> None:
    result = qattn("generate", model, "--backend", f"{BACKEND}&budget=1s", "--tokens", 3)
    assert result.exit_code == 2
    assert "would pass the budget of 1s" in result.stderr.splitlines()[-1]
    assert not ibm_server.jobs


def test_jobs_on_the_device_are_resumed_and_cancelled(ibm_server: IBMServer, model: Path) -> None:
    ibm_server.hold()
    flags = ["--backend", f"{BACKEND}&budget=60s&timeout=1", "--tokens", 1]
    assert "has not ended after 1 s" in qattn("generate", model, *flags).stderr
    [row] = Ledger().rows()
    waiting = qattn("jobs", "resume", row.id)
    assert waiting.exit_code == 0, waiting.output
    assert waiting.stdout == f"Job {row.id} ({row.job_id}) on ibm:test_manila: sent\n"
    ibm_server.release()
    for _ in range(100):
        done = qattn("jobs", "resume", row.id)
        if ": done" in done.stdout:
            break
    assert ": done" in done.stdout
    assert len(ibm_server.jobs) == 1
    assert (
        qattn("generate", model, *flags)
        .stderr.splitlines()[-1]
        .startswith("ibm:test_manila: jobs sent: 0; served from the ledger: 1")
    )


def test_estimate_sends_nothing_and_names_a_price(
    ibm_server: IBMServer, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    own = model / "prices.toml"
    own.write_text('[ibm]\nplan = "ours"\n[ibm.second]\nours = 1000.0')
    monkeypatch.setenv("QATTN_PRICES", str(own))
    result = qattn("estimate", model, "--backend", BACKEND, "--tokens", 2)
    assert result.exit_code == 0, result.output
    seconds, price = (
        next(line for line in result.stdout.splitlines() if line.startswith(name)).split()[1]
        for name in ("processor", "price")
    )
    assert float(price.replace(",", "")) == pytest.approx(1000 * float(seconds), rel=0.01)
    assert "plan ours" in result.stdout
    assert not ibm_server.jobs
