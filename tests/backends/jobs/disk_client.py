"""A process that sends a small request to a :class:`DiskDevice`: python disk_client.py FOLDER [OPTIONS as JSON]."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from qiskit import QuantumCircuit
from qiskit.circuit import ClassicalRegister, ParameterVector, QuantumRegister

from qiskit_qattn.backends.jobs import retries
from qiskit_qattn.backends.jobs import runner as jobs_runner
from qiskit_qattn.backends.jobs.budget import Budget
from qiskit_qattn.backends.jobs.estimator import ManagedEstimator
from qiskit_qattn.backends.jobs.ledger import Ledger
from qiskit_qattn.backends.jobs.sampler import ManagedSampler
from qiskit_qattn.errors import BackendError

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


def small_samples(angle: float = 0.3) -> list[tuple]:
    """Return two PUBs of one circuit that is measured into two registers; two of their rows are equal."""
    x = ParameterVector("x", 2)
    circuit = QuantumCircuit(QuantumRegister(2), ClassicalRegister(1, "first"), ClassicalRegister(9, "second"))
    circuit.ry(x[0], 0)
    circuit.cx(0, 1)
    circuit.ry(x[1], 1)
    circuit.measure([0, 1], [0, 9])
    return [(circuit, [[[angle, 0.5], [-0.7, 1.5]], [[angle, 0.5], [0.0, 2.0]]]), (circuit, [angle, 0.5])]


def start(folder: Path, **options: Any) -> subprocess.Popen:
    """Start the process; its jobs go to FOLDER/device, its ledger is FOLDER/ledger.sqlite.

    Args:
        folder: The folder.
        options: Of the estimator, or of the process: ``sampled`` (a sampler's PUBs are run), ``device`` (options of
            the device), ``elsewhere`` (its clock and the name of its host are not ours), ``angles`` (of the requests,
            one after another until one is refused), ``workers`` (the number of forked processes that share the angles)
            and ``gate`` (wait, with the estimator open, until there is a file of this name in the folder).
    """
    command = [sys.executable, __file__, str(folder), json.dumps(options)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def main() -> None:
    from disk_device import DiskDevice

    folder, options = Path(sys.argv[1]), json.loads(sys.argv[2])
    jobs_runner.LONGEST_POLL, retries.BACKOFF = 0.1, 0.001
    if options.pop("elsewhere", False):
        time.time, socket.gethostname = lambda: 4e9, lambda: "another"
    angles, workers, gate = options.pop("angles", [0.3]), options.pop("workers", 0), options.pop("gate", None)
    sampled = options.pop("sampled", False)
    device = DiskDevice(folder / "device", **options.pop("device", {}))
    budget = Budget.parse(options.pop("budget", "unlimited"))
    estimator = ManagedEstimator(
        device, ledger=Ledger(folder / "ledger.sqlite"), precision=PRECISION, budget=budget, **options
    )
    if gate is not None:
        (folder / f"{os.getpid()}.open").touch()
        while not (folder / gate).exists():
            time.sleep(0.01)
    children = []
    for worker in range(workers):
        if not (child := os.fork()):
            run(estimator, angles[worker::workers], sampled)
            os._exit(estimator.jobs_sent)
        children.append(child)
    said = {} if workers else run(estimator, angles, sampled)
    sent = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    print(json.dumps(said | {"sent": estimator.jobs_sent, "seconds": estimator.spent.seconds, "workers": sent}))


def run(estimator: ManagedEstimator, angles: list[float], sampled: bool = False) -> dict[str, Any]:
    """Return what is said of the last result, or of the error that a request ended with."""
    said = {}
    for angle in angles:
        try:
            if sampled:
                result = ManagedSampler(estimator, shots=100).run(small_samples(angle)).result()
            else:
                result = estimator.run(small_pubs(angle)).result()
        except BackendError as error:
            return {"error": str(error)}
        data = result[0].data
        values = {name: data[name].array.tolist() for name in data} if sampled else {"evs": data.evs.tolist()}
        said = values | {name: result[0].metadata[name] for name in ("job_id", "cached")}
    return said


if __name__ == "__main__":
    main()
