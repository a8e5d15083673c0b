from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter

from qiskit_qattn.backends.jobs.device import Cost
from qiskit_qattn.backends.jobs.ledger import Ledger
from qiskit_qattn.backends.jobs.owners import Owner
from qiskit_qattn.backends.jobs.request import Request
from qiskit_qattn.backends.jobs.rows import Row
from qiskit_qattn.backends.registry import get_backend

Run = Callable[..., Any]
SNAPSHOT = "ibm:fake_manila?resilience=0&seed=1&shots=64"


def request_of(device: str = "far:one", angle: float = 0.1) -> Request:
    theta = Parameter("t")
    circuit = QuantumCircuit(1)
    circuit.ry(theta, 0)
    return Request.of([(circuit, "Z", [angle])], 0.1, device, "level=1")


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


def row_of(ledger: Ledger, request: Request, job_id: str | None = None, owner: Owner | None = None) -> Row:
    cost = Cost(jobs=1, circuits=1, shots=100, seconds=2.5, usd=4.0)
    row = ledger.open(request, owner or ledger.new_owner(), cost)
    assert row is not None
    return ledger.sent(row.id, job_id) if job_id else row


@pytest.fixture
def rows(ledger: Ledger) -> list[Row]:
    """Return rows in all states but done: sending, sent, failed."""
    failed = row_of(ledger, request_of(angle=0.3), "job-c")
    return [
        row_of(ledger, request_of(angle=0.1)),
        row_of(ledger, request_of("ibm:ibm_fez", 0.2), "job-b"),
        ledger.close(failed.id, "failed", "it was too warm", Cost(jobs=1, seconds=1.25)),
    ]


def test_the_list_fits_and_can_be_narrowed(qattn: Run, rows: list[Row], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    result = qattn("jobs", "list")
    assert result.exit_code == 0, result.output
    assert max(map(len, result.stdout.splitlines())) <= 80
    lines = {words[0]: line for line in result.stdout.splitlines() if len(words := line.split()) > 6}
    assert "sending" in lines[str(rows[0].id)] and "~2.5 s, 4.00 USD" in lines[str(rows[0].id)]
    assert "ibm:ibm_fez" in lines[str(rows[1].id)]
    assert "failed" in lines[str(rows[2].id)] and " 1.25 s " in lines[str(rows[2].id)]
    assert "1 sending, 1 sent, 1 failed" in result.stdout
    assert qattn("jobs", "list", "--state", "sent").stdout.count("2.5 s") == 1
    assert qattn("jobs", "list", "--device", "ibm:").stdout.count("2.5 s") == 1
    asked = "None of the 3 jobs in .* has state done and a device whose name begins with 'braket:'"
    assert re.search(asked, qattn("jobs", "list", "--device", "braket:", "--state", "done").stdout)


def test_an_empty_ledger_says_that_it_is_empty(qattn: Run, ledger: Ledger):
    expected = f"No jobs have been sent to devices yet; the ledger {ledger.path} is empty.\n"
    assert qattn("jobs", "list").stdout == qattn("jobs", "list", "--state", "sent").stdout == expected


def test_the_list_says_whose_cost_is_not_known(qattn: Run, ledger: Ledger, rows: list[Row]):
    assert "without a known cost" not in qattn("jobs", "list").stdout
    ledger.finish(rows[1].id, [], None)
    assert "1 ended without a known cost; qattn jobs resume ID asks" in qattn("jobs", "list").stdout
    assert "QISKIT_IBM_TOKEN" in qattn("jobs", "resume", rows[1].id).stderr  # it is asked


def test_show_tells_all_but_the_data(qattn: Run, rows: list[Row], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "200")
    result = qattn("jobs", "show", "job-c")
    assert result.exit_code == 0, result.output
    row = rows[2]
    for text in ("failed", "far:one", "job-c", row.tag, row.key, "level=1", "it was too warm", "1.25 s", "4.00 USD"):
        assert text in result.stdout
    assert "1 qubit, 1 parameter set, 1 observable" in result.stdout


def test_resume_fetches_what_ended_and_sends_nothing(qattn: Run, ledger: Ledger):
    pytest.importorskip("qiskit_aer")
    pytest.importorskip("qiskit_ibm_runtime")
    owner = ledger.new_owner()
    row = row_of(ledger, request_of("ibm:fake_manila"), "1234", owner)
    assert "is a job on ibm:fake_manila, not on ibm:fake_lima" in (
        qattn("jobs", "resume", row.id, "--backend", "ibm:fake_lima").stderr
    )
    assert qattn("jobs", "resume", row.id).stdout == f"Job {row.id} (1234) on ibm:fake_manila: sent\n"  # at work
    ledger.release(owner)
    result = qattn("jobs", "resume", row.id)  # of a snapshot, whose jobs end with their process
    assert result.exit_code == 0, result.output
    assert result.stdout == f"Job {row.id} (1234) on ibm:fake_manila: failed: It ran in a process that has ended.\n"
    assert ledger.row(row.id).state == "failed"
    assert qattn("jobs", "resume", row.id).stdout == result.stdout
    assert len(ledger.rows()) == 1


def test_cancel_gives_up_what_never_reached_the_device(qattn: Run, ledger: Ledger):
    pytest.importorskip("qiskit_aer")
    pytest.importorskip("qiskit_ibm_runtime")
    row = row_of(ledger, request_of("ibm:fake_manila"))
    result = qattn("jobs", "cancel", row.id, "--backend", SNAPSHOT)
    assert result.exit_code == 0, result.output
    assert ": cancelled" in result.stdout and ledger.row(row.id).state == "cancelled"
    again = qattn("jobs", "cancel", row.id)
    assert again.exit_code == 2
    assert "is cancelled; only a job on its way can be cancelled" in again.stderr


def test_clear_keeps_what_is_on_its_way(qattn: Run, ledger: Ledger, rows: list[Row]):
    assert qattn("jobs", "clear", "--before", 1).stdout.startswith("Deleted 0 ")
    result = qattn("jobs", "clear")
    assert result.stdout.startswith("Deleted 1 of the jobs") and "2 on their way stay" in result.stdout
    assert {row.state for row in ledger.rows()} == {"sending", "sent"}
    assert qattn("jobs", "clear", "--device", "far:", "--force").stdout.startswith("Deleted 1 ")
    assert qattn("jobs", "clear", "--force").stdout.startswith("Deleted 1 ")
    assert ledger.rows() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("list", "--state", "don"), "Did you mean 'done'"),
        (("show", "99"), "number, key or id '99'"),
        (("resume", "99"), "number, key or id '99'"),
        (("cancel", "job-c"), "is failed; only a job on its way can be cancelled"),
        (("resume", "1", "--backend", "statevector"), "has no jobs; job"),
        (("resume", "1"), "Unknown backend 'far'"),
        (("clear", "--before", "-1"), "greater than or equal to 0"),
        (("sho",), "No such command 'sho'"),
    ],
)
def test_errors_are_one_line(qattn: Run, rows: list[Row], arguments: tuple[str, ...], message: str):
    given = [str(rows[0].id) if argument == "1" else argument for argument in arguments]
    result = qattn("jobs", *given)
    assert result.exit_code == 2, result.output
    assert len(result.stderr.splitlines()) == 1
    assert message in result.stderr


def test_a_name_that_is_no_backend_string_asks_for_one(qattn: Run, ledger: Ledger):
    row = row_of(ledger, request_of("braket:Forte Enterprise 1"), "job")
    assert "give the one the job was sent with as --backend" in qattn("jobs", "resume", row.id).stderr


def test_a_job_of_a_sampler_is_shown_and_fetched(qattn: Run, ledger: Ledger):
    backend = get_backend(SNAPSHOT)
    circuit = QuantumCircuit(2)
    circuit.measure_all()
    job = backend.sampler.run([circuit])
    shown = qattn("jobs", "show", "1").stdout
    assert "2 qubits, 1 parameter set, 2 classical bits" in shown and "64 per circuit" in shown
    while qattn("jobs", "resume", "1", "--backend", SNAPSHOT).stdout.count(": done") == 0:
        pass
    assert job.result()[0].data.meas.get_counts().keys() <= {"00", "01", "10", "11"}


def test_without_a_command_the_help_is_shown(qattn: Run):
    result = qattn("jobs")
    assert result.exit_code == 0 and result.stderr == ""
    assert all(name in result.stdout for name in ("list", "show", "resume", "cancel", "clear"))
