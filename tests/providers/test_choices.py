"""A choice such as ``ibm:least_busy`` is a device once it is opened: in names, labels, records and jobs."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

import qiskit_qattn as qa
from qiskit_qattn.backends.jobs.ledger import Ledger
from qiskit_qattn.backends.place import Place
from qiskit_qattn.backends.registry import get_backend
from qiskit_qattn.cli.app import app
from qiskit_qattn.errors import BackendError, ConfigError
from qiskit_qattn.training.config import TrainConfig
from qiskit_qattn.training.run import saved_config, train_run

from .braket_adapter import eight_circuits
from .ibm_server import IBMServer

OPTIONS = "budget=60s&gradient=simulated&optimization=1&resilience=0&shots=100"
BUSY, NAIROBI, MANILA = (f"ibm:{name}?{OPTIONS}" for name in ("least_busy", "test_nairobi", "test_manila"))
TINY = {
    **{"preset": "smoke", "n_layer": 1, "n_head": 1, "n_embd": 4, "heads": "qisa:1", "num_qubits": 2},
    **{"block_size": 2, "batch_size": 1, "max_steps": 2, "eval_batches": 1, "val_windows": 1},
    **{"sample_prompt": "a", "sample_tokens": 1, "trackers": "none", "device": "cpu"},
}


def make_manila_less_busy(server: IBMServer) -> None:
    with server.lock:
        server.state.devices.queues["test_manila"] = 0


def head_on(backend: str) -> qa.QuantumHead:
    torch.manual_seed(5)
    return qa.QuantumHead(qa.attention_circuit("angle", 2)).to_backend(backend)


def devices_of(server: IBMServer) -> list[str]:
    return [job.backend for job in server.jobs.values()]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("abc\n" * 30)
    return path


def qattn(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def flags(settings: dict[str, Any]) -> list[str]:
    return [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", str(value))]


# names and labels


def test_what_is_opened_has_the_name_of_the_device(ibm_server: IBMServer) -> None:
    assert get_backend(BUSY).name == NAIROBI
    assert Place.open(f"{BUSY} -> statevector").name == f"{NAIROBI} -> statevector"
    assert get_backend(MANILA).name == MANILA


def test_labels_audit_and_ledger_name_the_device(ibm_server: IBMServer) -> None:
    head = head_on(f"{BUSY} -> statevector")
    head(torch.rand(2, 2))
    assert head.ran_on == {NAIROBI: 1}
    model = qa.GPT(qa.GPTConfig(11, 8, 1, 2, 8, heads="qisa:1,classical:1", num_qubits=2)).to_backend(BUSY)
    assert [row["backend"] for row in model.head_backends()] == [NAIROBI, "torch"]
    assert {row.device for row in Ledger().rows()} == {"ibm:test_nairobi"}


def test_commands_print_the_device(ibm_server: IBMServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qiskit_qattn.training.tokenizer import CharTokenizer

    monkeypatch.setenv("COLUMNS", "200")
    tokenizer = CharTokenizer("\nabc")
    qa.GPT(qa.GPTConfig(tokenizer.vocab_size, 4, 1, 1, 4, heads="qisa:1", num_qubits=2)).save_pretrained(tmp_path)
    tokenizer.save(tmp_path / "tokenizer.json")
    for command in ("estimate", "generate"):
        result = qattn(command, tmp_path, "--backend", f"{BUSY} -> statevector", "--tokens", 1)
        assert result.exit_code == 0, result.output
        assert NAIROBI in result.output and "least_busy" not in result.output


@pytest.mark.parametrize("spelling", ["TEST-garnet", "arn:aws:braket:eu-north-1::device/qpu/iqm/Test-Garnet"])
def test_spellings_of_a_device_of_braket_are_one_device(aws: Any, rng: Any, spelling: str) -> None:
    options = "budget=unlimited&s3=results/here&shots=400"
    backends = [get_backend(f"braket:{target}?{options}") for target in ("test-garnet", spelling)]
    assert [backend.name for backend in backends] == [f"braket:test-garnet?{options}"] * 2
    pub = eight_circuits(rng)
    first, second = (backend.estimator.run([pub]).result()[0].data.evs for backend in backends)
    assert (first == second).all() and len(Ledger().rows()) == 1


@pytest.mark.parametrize("target", ["SV1", "arn:aws:braket:::device/quantum-simulator/amazon/sv1"])
def test_spellings_of_a_simulator_of_braket_are_one_device(aws: Any, target: str) -> None:
    assert get_backend(f"braket:{target}?shots=10").name == "braket:sv1?shots=10"


# paid once


def test_results_of_another_device_are_offered_and_nothing_is_sent(ibm_server: IBMServer) -> None:
    x = torch.rand(3, 2)
    values = head_on(BUSY)(x)
    assert torch.equal(head_on(BUSY)(x), values)
    make_manila_less_busy(ibm_server)
    before = len(ibm_server.requests)
    offer = (
        r"ibm:least_busy is ibm:test_manila now, but the next job was sent to ibm:test_nairobi before \(results: 1 "
        r"stored, .*\)\. Nothing was sent\. Name the device: ibm:test_nairobi takes those .* ibm:test_manila runs"
    )
    with pytest.raises(ConfigError, match=offer):
        head_on(f"{BUSY} -> statevector")(x)
    assert not any(request.line == "POST /jobs" for request in ibm_server.requests[before:])
    assert torch.equal(head_on(NAIROBI)(x), values)
    assert devices_of(ibm_server) == ["test_nairobi"]
    head_on(MANILA)(x)
    assert torch.equal(head_on(BUSY)(x), head_on(MANILA)(x))  # now this device has them too
    assert devices_of(ibm_server) == ["test_nairobi", "test_manila"]


def test_a_job_on_its_way_to_another_device_is_offered(ibm_server: IBMServer) -> None:
    x = torch.rand(3, 2)
    ibm_server.hold()
    with pytest.raises(BackendError, match="has not ended after 1 s"):
        head_on(f"{BUSY}&timeout=1")(x)
    make_manila_less_busy(ibm_server)
    with pytest.raises(ConfigError, match="results: 1 on its way"):
        head_on(BUSY)(x)
    ibm_server.release()
    head_on(NAIROBI)(x)
    assert devices_of(ibm_server) == ["test_nairobi"]


@pytest.mark.parametrize("change", ["other inputs", "other weights", "other shots", "cache=off", "named"])
def test_other_work_and_new_samples_that_were_asked_for_are_sent(ibm_server: IBMServer, change: str) -> None:
    x = torch.rand(3, 2)
    head_on(BUSY)(x)
    make_manila_less_busy(ibm_server)
    text = {"other shots": BUSY.replace("shots=100", "shots=101"), "cache=off": f"{BUSY}&cache=off", "named": MANILA}
    head = head_on(text.get(change, BUSY))
    if change == "other weights":
        head.weight.data += 0.1
    head(x + 0.1 if change == "other inputs" else x)
    assert devices_of(ibm_server) == ["test_nairobi", "test_manila"]


def test_a_ledger_without_the_column_is_used_and_gets_it(ibm_server: IBMServer) -> None:
    x = torch.rand(3, 2)
    values = head_on(BUSY)(x)
    with sqlite3.connect(Ledger().path) as db:  # as the release before wrote it
        for name in ("work", "charge"):
            db.execute(f"DROP INDEX jobs_by_{name}")
            db.execute(f"ALTER TABLE jobs DROP COLUMN {name}")
        db.execute("ALTER TABLE about DROP COLUMN charges")
        db.execute("PRAGMA user_version=1")
    assert torch.equal(head_on(BUSY)(x), values)
    head_on(BUSY)(x + 0.1)
    make_manila_less_busy(ibm_server)
    with pytest.raises(ConfigError, match="ibm:test_nairobi takes"):
        head_on(BUSY)(x + 0.1)
    assert len(ibm_server.jobs) == 2


# runs


def test_a_run_records_the_device_and_is_resumed_on_it(ibm_server: IBMServer, text: Path) -> None:
    run = text.parent / "run"
    start = ["train", *flags(TINY), "--data", text, "--out", run, "--baseline"]
    stopped = qattn(*start, "--backend", BUSY.replace("60s", "2.35s"))
    assert stopped.exit_code == 2 and "would pass the budget" in stopped.stderr, stopped.output
    nairobi = NAIROBI.replace("60s", "2.35s")
    assert saved_config(run).backend == nairobi
    make_manila_less_busy(ibm_server)
    for options in ([], ["--backend", BUSY.replace("60s", "2.35s")]) * 4:
        result = qattn("train", "--resume", "--out", run, *options)
        if result.exit_code == 0:
            break
        assert "would pass the budget" in result.stderr, result.output
    assert set(devices_of(ibm_server)) == {"test_nairobi"}
    report = json.loads((run / "report.json").read_text())
    assert [row["backend"] for row in report["model"]["head_backends"]] == [nairobi]
    assert "least_busy" not in (run / "report.md").read_text() + (run / "metrics.json").read_text()


def test_a_run_on_another_device_is_refused(ibm_server: IBMServer, text: Path) -> None:
    run = text.parent / "run"
    train_run(TrainConfig.from_dict({**TINY, "data": str(text), "out": str(run), "backend": BUSY}))
    assert saved_config(run).backend == NAIROBI
    for other in (MANILA, BUSY.replace("shots=100", "shots=64"), f"{BUSY} -> statevector"):
        result = qattn("train", "--resume", "--out", run, "--backend", other)
        assert result.exit_code == 2 and "The run was started with backend" in result.stderr


def test_all_cells_of_a_comparison_run_on_the_device_of_the_first(ibm_server: IBMServer, text: Path) -> None:
    from qiskit_qattn.evaluation.comparison.cell import run_cell
    from qiskit_qattn.evaluation.comparison.plan import load_study, open_study, plan_study

    settings = {**TINY, "data": str(text), "out": str(text.parent / "study"), "backend": BUSY}
    config = TrainConfig.from_dict(settings)
    study = plan_study(config, "qisa", 1, "classical")
    assert open_study(study) == study
    make_manila_less_busy(ibm_server)
    again = plan_study(config, "qisa", 1, "classical")
    assert open_study(again) == study
    assert study.config.backend == again.config.backend == load_study(study.folder).config.backend == NAIROBI
    [cell] = [cell for cell in study.cells() if cell.kind == "qisa"]
    run_cell(study, cell)
    assert set(devices_of(ibm_server)) == {"test_nairobi"}
