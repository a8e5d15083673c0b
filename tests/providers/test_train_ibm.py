"""``qattn train`` on a paid device."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from qiskit_qattn.backends.jobs.ledger import Ledger
from qiskit_qattn.cli.app import app

from .ibm_server import TOKEN, IBMServer

BACKEND = "ibm:test_manila?gradient=simulated&optimization=0&resilience=0&shots=64"
TINY = (
    "--preset smoke --n-layer 1 --n-head 1 --n-embd 4 --heads qisa:1 --num-qubits 2 --block-size 2 --batch-size 1 "
    "--max-steps 3 --eval-batches 1 --val-windows 1 --sample-prompt a --sample-tokens 1 --trackers none --device cpu"
)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("abc\n" * 30)
    return path


def qattn(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def train(text: Path, *arguments: object) -> Result:
    return qattn("train", *TINY.split(), "--data", text, "--out", text.parent / "run", *arguments)


def test_without_a_budget_it_says_what_it_would_take_and_sends_nothing(ibm_server: IBMServer, text: Path) -> None:
    result = train(text, "--backend", BACKEND)
    assert result.exit_code == 2
    rows = {line.split("  ")[0].strip(): line.split() for line in result.stderr.splitlines() if "USD" in line}
    assert [name for name in rows if not name.startswith("error")] == [
        *("training steps", "validations", "last validation", "report's sample", "total")
    ]
    assert rows["training steps"][2] == "3" and rows["total"][1] == "8"
    [error] = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "no budget is given, so nothing was sent" in error and "--yes" in error
    assert not ibm_server.jobs and Ledger().rows() == [] and not (text.parent / "run").exists()


def test_a_budget_stops_it_and_it_goes_on_with_what_was_paid_for(ibm_server: IBMServer, text: Path) -> None:
    run = text.parent / "run"
    result = train(text, "--backend", f"{BACKEND}&budget=2.2s")
    stops = 0
    while result.exit_code == 2:
        error = result.stderr.splitlines()[-1]
        assert "would pass the budget of 2.2s" in error
        assert error.endswith(f"The trained steps are saved; continue with: qattn train --resume --out {run}")
        assert "used: " in result.stderr and " USD" in result.stderr
        stops += 1
        assert stops < 9
        result = qattn("train", "--resume", "--out", run)
    assert result.exit_code == 0, result.output
    assert stops > 0
    rows = Ledger().rows()
    assert len(ibm_server.jobs) == len(rows) == len({row.key for row in rows})  # none twice
    report = json.loads((run / "report.json").read_text())
    assert [head["backend"] for head in report["model"]["head_backends"]] == [
        f"ibm:test_manila?budget=2.2s&{BACKEND[16:]}"
    ]
    assert report["model"]["leakage"] == 0 and report["model"]["leakage_backend"] == "statevector"
    written = b"".join(path.read_bytes() for path in [*run.rglob("*"), Ledger().path] if path.is_file())
    assert TOKEN.encode() not in written and TOKEN not in result.output


def test_a_device_that_fails_for_good_leaves_what_was_trained(ibm_server: IBMServer, text: Path) -> None:
    ibm_server.refuse("POST /jobs", 400, message="No more today.", times=1)
    refused = train(text, "--backend", f"{BACKEND}&budget=60s")
    assert refused.exit_code == 2 and "No more today" in refused.stderr
    assert not (text.parent / "run").exists()  # not a step was done
    chain = train(text, "--backend", f"{BACKEND} -> statevector", "--yes")
    assert chain.exit_code == 0, chain.output
    report = json.loads((text.parent / "run" / "report.json").read_text())
    assert set(report["model"]["audit"]["calls"]) == {BACKEND}


def test_a_profile_tells_the_cost_of_its_steps_and_sends_what_it_told(ibm_server: IBMServer, text: Path) -> None:
    assert train(text, "--backend", "statevector").exit_code == 0
    run, out = text.parent / "run", text.parent / "profile"
    result = qattn("profile", run, "--steps", 4, "--backend", BACKEND, "--out", out)
    assert result.exit_code == 2 and "no budget is given, so nothing was sent" in result.stderr
    [row] = [line.split() for line in result.stderr.splitlines() if "training steps" in line]
    assert row[2] == "4" and not ibm_server.jobs and not out.exists()
    result = qattn("profile", run, "--steps", 4, "--backend", BACKEND, "--out", out, "--yes")
    assert result.exit_code == 0, result.output
    assert len(ibm_server.jobs) == 4 and "`jobs` (circuits)" in (out / "profile.md").read_text()
