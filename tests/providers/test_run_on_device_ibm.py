"""``qattn run-on-device`` on a paid device: consent, interruptions, and what the page says of cost and calibration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from qiskit_ibm_runtime.fake_provider import FakeManilaV2
from typer.testing import CliRunner, Result

from qiskit_qattn.backends.jobs.ledger import Ledger
from qiskit_qattn.cli import devices
from qiskit_qattn.cli.app import app
from qiskit_qattn.nn.config import GPTConfig
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.training.tokenizer import CharTokenizer

from .ibm_server import IBMServer

BACKEND = "ibm:test_manila?resilience=0&shots=64&budget=60s"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    tokenizer = CharTokenizer("\nabc")
    config = GPTConfig(tokenizer.vocab_size, 8, 1, 2, 8, heads="qisa:1,classical:1", num_qubits=2)
    GPT(config).save_pretrained(tmp_path / "model")
    tokenizer.save(tmp_path / "model" / "tokenizer.json")
    return tmp_path / "model"


def run_on_device(model: Path, backend: str, *arguments: object, answer: str = "") -> Result:
    flags = ("--backend", backend, "--tokens", 2, "--out", model.parent / "page", *arguments)
    return CliRunner().invoke(app, ["run-on-device", str(model), *map(str, flags)], input=answer)


def jobs_in(model: Path) -> dict[str, Any]:
    record = json.loads((model.parent / "page" / "report.json").read_text("utf-8"))
    [device] = record["devices"]
    assert device["is_hardware"]
    return device["jobs"]


@pytest.mark.parametrize("backend", [BACKEND, BACKEND.replace("&budget=60s", "")])
def test_nothing_is_sent_unasked(ibm_server: IBMServer, model: Path, backend: str) -> None:
    result = run_on_device(model, backend)
    assert result.exit_code == 2
    assert "plan pay-as-you-go" in result.stderr  # the estimate comes first
    assert "agree with --yes, or run the command at a terminal" in result.stderr.splitlines()[-1]
    assert not ibm_server.jobs and Ledger().rows() == [] and not (model.parent / "page").exists()


def test_at_a_terminal_it_asks(ibm_server: IBMServer, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_is_terminal", lambda: True)
    refused = run_on_device(model, BACKEND, answer="n\n")
    assert refused.exit_code == 2 and "Send these jobs to ibm:test_manila? [y/N]" in refused.stderr
    assert not ibm_server.jobs
    agreed = run_on_device(model, BACKEND, answer="y\n")
    assert agreed.exit_code == 0, agreed.output
    assert len(ibm_server.jobs) == 2


def test_the_page_has_the_jobs_their_cost_and_the_calibration(ibm_server: IBMServer, model: Path) -> None:
    result = run_on_device(model, BACKEND, "--yes")
    assert result.exit_code == 0, result.output
    jobs, rows = jobs_in(model), Ledger().rows()
    assert (jobs["count"], jobs["from_ledger"], jobs["is_paid"], jobs["is_estimate"]) == (2, 0, True, False)
    assert sorted(jobs["ids"]) == sorted(ibm_server.jobs) == sorted(row.job_id for row in rows)
    assert jobs["seconds"] == pytest.approx(sum(row.used.seconds for row in rows)) and jobs["seconds"] > 0
    assert jobs["usd"] == pytest.approx(sum(row.used.usd for row in rows))
    assert (jobs["circuits"], jobs["executions"]) == (4, 4 * 64)  # two bases
    text = (model.parent / "page" / "report.md").read_text("utf-8")
    assert "No quantum processor" not in text and f"{jobs['usd']:,.4g} USD" in text
    record = json.loads((model.parent / "page" / "report.json").read_text("utf-8"))
    calibration, snapshot = record["devices"][0]["calibration"], FakeManilaV2().properties()
    assert calibration["date"] and len(calibration["qubits"]) == 2
    for each in calibration["qubits"]:
        assert each["readout"] == pytest.approx(snapshot.readout_error(each["qubit"]))


def test_an_interrupted_run_goes_on_without_paying_twice(ibm_server: IBMServer, model: Path) -> None:
    whole = f"{BACKEND}&timeout=1"
    ibm_server.fail_jobs("the fridge warmed up", times=1)
    first = run_on_device(model, whole, "--yes")
    assert first.exit_code == 2 and "the fridge warmed up" in first.stderr
    assert "it takes the results of the jobs that were sent from the ledger" in first.stderr.splitlines()[-1]
    assert not (model.parent / "page").exists()
    ibm_server.hold()
    waiting = run_on_device(model, whole, "--yes")
    assert waiting.exit_code == 2 and "has not ended after 1 s" in waiting.stderr
    ibm_server.release()
    done = run_on_device(model, whole, "--yes")
    assert done.exit_code == 0, done.output
    assert len(ibm_server.jobs) == 1 + 2  # the one that failed, and one for each token
    assert jobs_in(model)["count"] == 2 and "jobs sent: 1;" in done.stderr
    again = run_on_device(model, whole, "--yes")
    assert len(ibm_server.jobs) == 3 and "jobs sent: 0; served from the ledger: 2" in again.stderr
    assert jobs_in(model)["from_ledger"] == 2 and jobs_in(model)["usd"] > 0  # what was paid then
