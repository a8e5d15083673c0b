"""Each call of the adapter with each wrong answer: what a user does, and how it must end."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np

from qiskit_qattn.backends.jobs.client import cancel
from qiskit_qattn.backends.jobs.ledger import Ledger
from qiskit_qattn.backends.place import session
from qiskit_qattn.backends.registry import get_backend
from qiskit_qattn.errors import BackendError

from .ibm_client import Pub
from .ibm_faults import CALLS
from .ibm_server import IBMServer

BACKEND = "ibm:test_manila?optimization=0&resilience=0&shots=100&budget=unlimited&retries=2&timeout=20"


def attack(server: IBMServer, pub: Pub, call: str, answer: str) -> BackendError | None:
    """Run a PUB while all requests of a call get a wrong answer, and again when they get the right one.

    Args:
        server: A server without jobs; the ledger in the environment is empty.
        pub: What to run.
        call: A key of `CALLS`.
        answer: A key of `ANSWERS`.

    Returns:
        The error that the run ended in, if any.

    Raises:
        AssertionError: If the second run does not bring the values, or a job was paid twice or lost.
        Exception: Any but a `BackendError`, as the run raised it.
    """
    raised: BackendError | None = None
    if call == "find":
        server.drop("POST /jobs", "after")
    if call == "cancel":
        server.hold()
    server.spoil(CALLS[call], answer)
    try:
        _use(server, pub, call)
    except BackendError as error:
        raised = error
    for row in Ledger().rows(states=["failed", "cancelled"]):
        assert row.job_id is None or server.jobs[row.job_id].status == "Cancelled", f"job {row.job_id} was given up"
    server.mend()
    server.release()
    values = _result(pub)
    assert values.shape == (3, 2) and np.isfinite(values).all()
    paid = [job for job in server.jobs.values() if job.status == "Completed"]
    assert len(paid) == 1, f"{len(paid)} jobs were paid"
    [row] = Ledger().rows(states=["done"])
    assert row.job_id == paid[0].id
    return raised


def _use(server: IBMServer, pub: Pub, call: str) -> None:
    if call == "cancel":
        with session(BACKEND) as backend:
            estimator: Any = backend.estimator
            estimator.run([pub])
            cancel(estimator.ledger, estimator.ledger.rows()[0], estimator.device)
        return
    with session(BACKEND) as backend:
        backend.estimator.run([pub]).result()


def _result(pub: Pub) -> np.ndarray:
    """Return what a later run of the same finds; a job that was cancelled is told once."""
    estimator = get_backend(BACKEND).estimator
    with suppress(BackendError):
        return estimator.run([pub]).result()[0].data.evs
    return estimator.run([pub]).result()[0].data.evs
