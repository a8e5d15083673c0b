"""Sessions of IBM Quantum that a moved model opened, and what closes them."""

from __future__ import annotations

import copy
import gc
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

import qiskit_qattn as qa
from qiskit_qattn.backends.place import wait_until_closed

from .ibm_server import IBMServer

BACKEND = "ibm:test_manila?budget=60s&mode=session&optimization=0&resilience=0&shots=64"
TOKENS = torch.zeros(1, 1, dtype=torch.long)


def small_model() -> qa.GPT:
    return qa.GPT(qa.GPTConfig(5, 4, 1, 2, 8, heads="qisa:1,classical:1", num_qubits=2))


@torch.no_grad()
def run(model: qa.GPT) -> None:
    model(TOKENS)


def states(server: IBMServer) -> list[str]:
    return [session.state for session in server.state.sessions.values()]


@pytest.fixture(autouse=True)
def own_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QATTN_LEDGER", str(tmp_path / "ledger.sqlite"))


def test_a_move_closes_the_session_it_leaves(ibm_server: IBMServer) -> None:
    model = small_model()
    run(model.to_backend(BACKEND))
    assert states(ibm_server) == ["active"]
    model.to_backend("statevector")
    assert states(ibm_server) == ["closed"]
    run(model.to_backend(f"{BACKEND}&cache=off -> statevector"))
    assert states(ibm_server) == ["closed", "active"]
    run(model.to_backend(f"{BACKEND}&cache=off"))
    assert states(ibm_server) == ["closed", "closed", "active"]
    del model
    gc.collect()
    wait_until_closed()
    assert states(ibm_server) == 3 * ["closed"]


def test_a_session_that_two_models_share_is_closed_after_both(ibm_server: IBMServer) -> None:
    model = small_model().to_backend(BACKEND)
    run(model)
    other = copy.deepcopy(model)
    model.to_backend("statevector")
    other.wte.weight.data.neg_()
    run(other)
    assert states(ibm_server) == ["active"] and len(ibm_server.jobs) == 2
    other.to_backend("statevector")
    assert states(ibm_server) == ["closed"]


def test_the_callers_own_backend_stays_open(ibm_server: IBMServer) -> None:
    with qa.session(BACKEND) as backend:
        model = small_model()
        run(model.to_backend(backend))
        model.to_backend("statevector")
        assert states(ibm_server) == ["active"]
    assert states(ibm_server) == ["closed"]


CHILDREN = """
for end in (lambda: os.kill(os.getpid(), signal.SIGTERM), sys.exit):
    child = os.fork()
    if not child:
        end()
        time.sleep(60)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGTERM), status
model.wte.weight.data.neg_()
run(model)  # in the same session
"""
WORKING_CHILD = """
child = os.fork()
model.wte.weight.data.neg_()  # in both, so that only one of them sends the job
if not child:
    run(model)
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
run(model)
model.wte.weight.data.mul_(0.5)
run(model)  # in the parent's session
"""
ENDS = {
    "the end of the program": ("", 0),
    "Ctrl-C": ("os.kill(os.getpid(), signal.SIGINT)", -signal.SIGINT),
    "SIGTERM": ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
    "children that end before": (CHILDREN, 0),
    "a child with a session of its own": (WORKING_CHILD, 0),
}


@pytest.mark.more
@pytest.mark.parametrize("end", ENDS)
def test_a_program_that_ends_closes_its_sessions(ibm_server: IBMServer, end: str) -> None:
    code, status = ENDS[end]
    program = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs ignore it
        "import qiskit_qattn as qa\n"
        "from tests.providers.test_ibm_sessions import BACKEND, run, small_model\n"
        "model = small_model().to_backend(BACKEND)\n"
        "run(model)\n"
        "print(len(model.quantum_heads()), flush=True)\n"
        f"{code}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | ibm_server.proxy_environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.stdout == "1\n", done.stderr
    assert done.returncode == status, done.stderr
    assert states(ibm_server) == ["closed"] * (2 if code == WORKING_CHILD else 1)
    if code == WORKING_CHILD:
        jobs = Counter(job.session_id for job in ibm_server.jobs.values())
        assert sorted(jobs.values()) == [1, 2]
