"""The command that checks whether circuits side by side disturb each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from qiskit_qattn.backends.jobs.ledger import Ledger

Run = Callable[..., Any]


def test_each_tile_of_a_device_is_compared(qattn: Run) -> None:
    pytest.importorskip("qiskit_aer")
    pytest.importorskip("qiskit_ibm_runtime")
    text = "ibm:fake_torino?tiles=3&seed=1&shots=200&resilience=0&optimization=0"
    result = qattn("crosstalk", text, "--circuit", "angle", "-n", 2, "--rows", 2)
    assert result.exit_code == 0, result.output
    [row] = Ledger().rows()
    lines = [line.split() for line in result.stdout.splitlines() if line.strip()]
    tiles = [tuple(map(int, line[:2])) for line in lines if len(line) == 5 and line[0].isdecimal()]
    told = Ledger().request(row.id).pubs[0].circuit.metadata["qiskit-qattn tiles"]
    assert sorted(tiles) == sorted(map(tuple, told)) and len(tiles) == 3
    assert "Shot noise explains the differences on all tiles." in result.stdout
    assert f"job {row.job_id}: sent" in result.stderr and "time:" not in result.stderr


def test_a_long_check_says_how_long_before_it_starts(qattn: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("qiskit_ibm_runtime")
    monkeypatch.setattr("qiskit_qattn.evaluation.crosstalk._SECONDS", 30.0)
    text = "ibm:fake_torino?tiles=2&seed=1&shots=20&resilience=0&optimization=0"
    result = qattn("crosstalk", text, "--circuit", "angle", "-n", 2, "--rows", 1)
    assert result.exit_code == 0, result.output
    lines = result.stderr.splitlines()
    assert lines[0] == "time: about 2.0 min" and lines[1].endswith(": sent")


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        ("statevector", "statevector runs 4-qubit circuits one at a time; give tiles=auto"),
        ("ibm:fake_torino?tiles=2 -> statevector", "one backend string"),
        ("ibm:fake_torino?tiles=50", "circuits of 4 qubits fit on fake_torino"),
    ],
)
def test_what_cannot_be_checked_is_refused(qattn: Run, backend: str, words: str) -> None:
    result = qattn("crosstalk", backend)
    assert result.exit_code == 2 and words in " ".join(result.stderr.split())
    assert len(result.stderr.splitlines()) == 1
