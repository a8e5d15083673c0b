"""Wrong answers of the service to each call: a value or a BackendError, no job lost, none paid twice."""

from __future__ import annotations

from itertools import product

import pytest

from .ibm_client import Pub
from .ibm_faults import ANSWERS, CALLS
from .ibm_scenes import attack
from .ibm_server import IBMServer

# Two answers for each call, and nearly all answers over all calls.
FEW = [(call, list(ANSWERS)[(5 * n + skip) % len(ANSWERS)]) for n, call in enumerate(CALLS) for skip in (0, 14)]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qiskit_qattn.backends.jobs.retries.BACKOFF", 0.001)
    monkeypatch.setattr("qiskit_qattn.backends.jobs.retries.LONGEST_BACKOFF", 0.001)
    monkeypatch.setattr("qiskit_qattn.backends.ibm.transport.ACCOUNT_SECONDS", 2.0)


@pytest.mark.parametrize(("call", "answer"), FEW)
def test_some_wrong_answers_to_each_call(ibm_server: IBMServer, pub: Pub, call: str, answer: str) -> None:
    attack(ibm_server, pub, call, answer)


@pytest.mark.more
@pytest.mark.parametrize(("call", "answer"), [pair for pair in product(CALLS, ANSWERS) if pair not in FEW])
def test_all_other_wrong_answers_to_each_call(ibm_server: IBMServer, pub: Pub, call: str, answer: str) -> None:
    attack(ibm_server, pub, call, answer)
