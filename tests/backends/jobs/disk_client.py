"""A process that sends a small request to a :class:`DiskDevice`: python disk_client.py FOLDER [OPTIONS as JSON]."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector

from qiskit_qattn.backends.jobs import client
from qiskit_qattn.backends.jobs import estimator as jobs_estimator
from qiskit_qattn.backends.jobs.estimator import ManagedEstimator
from qiskit_qattn.backends.jobs.ledger import Ledger

PRECISION = 0.1


def small_pubs(angle: float = 0.3) -> list[tuple]:
    """Return two PUBs of one circuit, with a column of observables against a row of bindings."""
    x = ParameterVector("x", 3)
    circuit = QuantumCircuit(2)
    circuit.ry(x[0], 0)
    circuit.cx(0, 1)
    circuit.rz(x[2] / 2 + 0.25, 1)
    values = [[angle, 0.5], [-0.7, 1.5], [0.0, 2.0]]
    return [(circuit, [["ZZ"], [{"XX": 0.5, "IZ": -1.0}]], values), (circuit, "ZI", values[0])]


def start(folder: Path, **options: Any) -> subprocess.Popen:
    """Start the process; its jobs go to FOLDER/device, its ledger is FOLDER/ledger.sqlite."""
    command = [sys.executable, __file__, str(folder), json.dumps(options)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def main() -> None:
    from disk_device import DiskDevice

    folder, options = Path(sys.argv[1]), json.loads(sys.argv[2])
    jobs_estimator.LONGEST_POLL, client.BACKOFF = 0.1, 0.001
    device = DiskDevice(folder / "device")
    estimator = ManagedEstimator(device, ledger=Ledger(folder / "ledger.sqlite"), precision=PRECISION, **options)
    result = estimator.run(small_pubs()).result()
    print(
        json.dumps(
            {
                "evs": result[0].data.evs.tolist(),
                "job_id": result[0].metadata["job_id"],
                "cached": result[0].metadata["cached"],
                "sent": estimator.jobs_sent,
                "seconds": estimator.spent.seconds,
            }
        )
    )


if __name__ == "__main__":
    main()
