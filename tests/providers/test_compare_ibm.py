"""``qattn compare`` on a paid device."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from qiskit_qattn.backends.jobs.ledger import Ledger
from qiskit_qattn.cli.app import app

from .ibm_server import IBMServer

BACKEND = "ibm:test_manila?gradient=simulated&optimization=0&resilience=0&shots=64"
TINY = (
    "--kinds qisa,classical --seeds 3 --preset smoke --n-layer 1 --n-head 1 --n-embd 4 --num-qubits 2 --block-size 2 "
    "--batch-size 1 --max-steps 3 --eval-batches 1 --val-windows 1 --device cpu"
)


def test_without_a_budget_it_says_what_all_cells_would_take_and_sends_nothing(
    ibm_server: IBMServer, tmp_path: Path
) -> None:
    text, out = tmp_path / "text.txt", tmp_path / "study"
    text.write_text("abc\n" * 30)
    options = ["--data", str(text), "--out", str(out), "--backend", BACKEND]
    result = CliRunner().invoke(app, ["compare", *TINY.split(), *options])
    assert result.exit_code == 2
    [row] = [line.split() for line in result.stderr.splitlines() if "qisa, 3 cells" in line]
    assert int(row[3]) == 3 * 7  # jobs: three steps and two validations of two batches, of each cell
    assert "classical, " not in result.stderr  # no circuit
    [error] = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "no budget is given, so nothing was sent" in error
    assert not ibm_server.jobs and Ledger().rows() == [] and not out.exists()
