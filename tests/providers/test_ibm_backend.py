"""Backend strings of IBM Quantum, from the string to a head's gradients."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from qiskit.primitives.containers.estimator_pub import EstimatorPub

import qiskit_qattn as qa
from qiskit_qattn.backends.ibm.provider import PROVIDER
from qiskit_qattn.backends.place import session
from qiskit_qattn.backends.registry import Backend, Registration
from qiskit_qattn.backends.spec import BackendSpec
from qiskit_qattn.errors import (
    BackendError,
    BudgetError,
    ConfigError,
    JobError,
    MissingDependencyError,
    TransientBackendError,
    UnknownNameError,
)

from .ibm_client import Pub
from .ibm_server import TOKEN, IBMServer


@pytest.fixture(autouse=True)
def own_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QATTN_LEDGER", str(tmp_path / "ledger.sqlite"))


def build(text: str) -> Backend:
    return Registration("ibm", "qiskit-qattn", PROVIDER).build(BackendSpec.parse(text))


def device_of(backend: Backend) -> Any:
    return backend.estimator.device


# strings


def test_a_device_of_the_account(ibm_server: IBMServer) -> None:
    backend = build("ibm:test_nairobi?shots=100&resilience=2&twirling=on&dd=XpXm&instance=test&budget=9s")
    device = device_of(backend)
    assert (device.name, device.paid, backend.shots, backend.name) == (
        "ibm:test_nairobi",
        True,
        100,
        "ibm:test_nairobi?budget=9s&dd=XpXm&instance=test&resilience=2&shots=100&twirling=on",
    )
    assert device.settings == (
        "EstimatorSettings(resilience=2, twirling=True, decoupling='XpXm', seed=None, noise=True)"
    )
    assert not ibm_server.state.sessions


def test_least_busy_is_the_device_with_the_shortest_queue(ibm_server: IBMServer) -> None:
    assert device_of(build("ibm:least_busy")).name == "ibm:test_nairobi"


def test_an_unknown_device_lists_those_of_the_account(ibm_server: IBMServer) -> None:
    with pytest.raises(UnknownNameError, match=r"Did you mean 'test_manila'\? Known: least_busy, test_manila, test_na"):
        build("ibm:test_manilla")


@pytest.mark.parametrize("target", ["test_manila", "least_busy"])
def test_a_device_without_fractional_gates(ibm_server: IBMServer, target: str) -> None:
    with pytest.raises(BackendError, match="fractional gates"):
        build(f"ibm:{target}?fractional=on")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ibm", "needs a target"),
        ("ibm:fake_manilla", "Did you mean 'fake_manila'"),
        ("ibm:fake_manila?mode=bach", "Did you mean 'batch'"),
        ("ibm:fake_manila?shots=0", "shots must be an integer of at least 1"),
        ("ibm:fake_manila?resilience=3", "resilience must be an integer of at least 0 and at most 2"),
        ("ibm:fake_manila?optimization=4", "optimization must be"),
        ("ibm:fake_manila?max_time=0", "max_time must be"),
        ("ibm:fake_manila?twirling=yes", "Unknown twirling 'yes'"),
        ("ibm:fake_manila?dd=xy4", "Unknown dd 'xy4'. Known: XX, XY4, XpXm, off"),
        ("ibm:fake_manila?dd=XY4&noise=off", "leave one out"),
        ("ibm:fake_manila?fractional=on", "fake_fractional has"),
        ("ibm:fake_manila?instance=test", "is for devices of an account"),
        ("ibm:test_manila?seed=1", "is for fake_<device>"),
        ("ibm:test_manila?noise=off", "is for fake_<device>"),
        ("ibm:fake_manila?gradient=none", "Unknown gradient"),
        ("ibm:fake_manila?resiliense=1", "Did you mean 'resilience'"),
        ("ibm:fake_manila?budget=0s", "budget"),
    ],
)
def test_bad_strings_say_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(text)


def test_a_snapshot_needs_aer(monkeypatch: pytest.MonkeyPatch) -> None:
    find = "qiskit_qattn.backends.ibm.provider.find_spec"
    monkeypatch.setattr(find, lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"qiskit-qattn\[aer\]"):
        build("ibm:fake_manila")


# accounts


def test_no_account_says_how_to_save_one(ibm_server: IBMServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("QISKIT_IBM_TOKEN", "QISKIT_IBM_URL", "QISKIT_IBM_INSTANCE"):
        monkeypatch.delenv(name)
    with pytest.raises(BackendError, match=r"No IBM Quantum account .*save_account") as caught:
        build("ibm:test_manila")
    assert not isinstance(caught.value, TransientBackendError)
    assert not ibm_server.requests


def test_a_key_that_is_refused(ibm_server: IBMServer) -> None:
    ibm_server.refuse("POST /identity/token", 400, message=f"Provided API key {TOKEN} could not be found.", times=9)
    with pytest.raises(BackendError, match="Check the API key and the instance") as caught:
        build("ibm:test_manila")
    assert not isinstance(caught.value, TransientBackendError)
    assert TOKEN not in str(caught.value)


def test_an_instance_that_is_not_there(ibm_server: IBMServer) -> None:
    with pytest.raises(BackendError, match="elsewhere"):
        build("ibm:test_manila?instance=elsewhere")


def test_a_service_that_does_not_answer_is_transient(ibm_server: IBMServer) -> None:
    ibm_server.drop(".*", "before", times=100)
    with pytest.raises(TransientBackendError):
        build("ibm:test_manila")


# circuits and heads


def test_a_circuit_that_is_too_wide(ibm_server: IBMServer) -> None:
    with pytest.raises(BackendError, match="8 qubits and test_nairobi has 7"):
        qa.attention_circuit("angle", 8).qnn(build("ibm:test_nairobi"))


def run_head(circuit: qa.AttentionCircuit, backend: Backend | str, x: torch.Tensor) -> tuple[np.ndarray, ...]:
    """Return values, and gradients to inputs and weights, of a head with the same weights each time."""
    torch.manual_seed(5)
    head = qa.QuantumHead(circuit).to_backend(backend)
    x = x.clone().requires_grad_()
    y = head(x)
    weights = torch.linspace(-1, 1, y.numel()).reshape(y.shape)
    (y * weights).sum().backward()
    assert x.grad is not None and head.weight.grad is not None
    return y.detach().numpy() / head.gain.detach().numpy(), x.grad.numpy(), head.weight.grad.numpy()


@pytest.mark.parametrize(
    ("name", "device"),
    [
        ("angle", "fake_manila?mode=batch&"),
        ("qsann", "fake_manila?mode=session&"),
        ("qisa-v1", "fake_manila?mode=job&"),
        ("zz", "fake_fractional?fractional=on&"),
    ],
)
def test_a_head_on_a_snapshot_agrees_with_the_exact_engine(name: str, device: str) -> None:
    circuit = qa.attention_circuit(name, 2)
    x = torch.rand(2, circuit.encoding.num_features) + 0.5
    x = torch.cat([x, x[:1]])
    shots = 4096
    backend = build(f"ibm:{device}noise=off&shots={shots}&seed=3&resilience=0&optimization=1")
    with session(backend):
        values, inputs, weights = run_head(circuit, backend, x)
    exact_values, exact_inputs, exact_weights = run_head(circuit, "statevector", x)
    error = shots**-0.5
    assert 0 < np.abs(values - exact_values).max() < 5 * error
    # A shift is half a difference of two values, each times a weight below 1 and a gain of 2; M of them are summed.
    spread = error * 2 * np.sqrt(values.shape[1] / 2)
    steep = 4 if circuit.encoding.kind == "amplitude" else 1  # how fast angles change with a vector
    assert np.abs(inputs - exact_inputs).max() < 5 * spread * steep
    assert np.abs(weights - exact_weights).max() < 5 * spread * np.sqrt(len(x))
    assert (values[0] == values[2]).all()  # equal tokens are evaluated once
    assert backend.estimator.jobs_sent == 2  # forward and backward


def test_a_head_on_a_device_of_the_account(ibm_server: IBMServer) -> None:
    circuit = qa.attention_circuit("angle", 2)
    x = torch.tensor([[0.3, -0.8], [1.1, 0.4]])
    backend = build("ibm:test_manila?shots=2000&budget=unlimited&mode=session")
    with session(backend) as same:
        assert same is backend
        values, inputs, weights = run_head(circuit, backend, x)
    exact_values, exact_inputs, exact_weights = run_head(circuit, "statevector", x)
    assert np.abs(values - exact_values).max() < 0.2  # with readout mitigation, but gate noise
    assert np.abs(inputs - exact_inputs).max() < 1 and np.abs(weights - exact_weights).max() < 1
    assert len(ibm_server.jobs) == 2
    assert [item.accepting_jobs for item in ibm_server.state.sessions.values()] == [False]


def test_a_lost_answer_costs_no_second_job(
    ibm_server: IBMServer, pub: Pub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("qiskit_qattn.backends.jobs.retries.BACKOFF", 0.0)
    caplog.set_level(logging.DEBUG)
    ibm_server.drop("POST /jobs", "after")
    backend = build("ibm:test_manila?budget=60s")
    result = backend.estimator.run([pub], precision=0.1).result()
    assert result[0].data.evs.shape == (3, 2)
    assert (len(ibm_server.jobs), ibm_server.count("POST /jobs")) == (1, 1)
    assert "found by its tag, not sent again" in caplog.text
    assert TOKEN not in caplog.text


def test_a_job_of_a_killed_process_is_picked_up(ibm_server: IBMServer, pub: Pub) -> None:
    ibm_server.hold()
    code = (
        "import os, signal\n"
        "from tests.providers.ibm_client import small_pub\n"
        "from tests.providers.test_ibm_backend import build\n"
        "build('ibm:test_manila?budget=60s').estimator.run([small_pub()], precision=0.1)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    root = Path(__file__).parents[2]
    killed = subprocess.run([sys.executable, "-c", code], env=os.environ | ibm_server.proxy_environment, cwd=root)
    assert killed.returncode == -signal.SIGKILL
    ibm_server.release()
    estimator = build("ibm:test_manila?budget=60s").estimator
    assert estimator.run([pub], precision=0.1).result()[0].data.evs.shape == (3, 2)
    assert (len(ibm_server.jobs), ibm_server.count("POST /jobs"), estimator.jobs_sent) == (1, 1, 0)


def test_nothing_is_sent_to_a_paid_device_without_a_budget(ibm_server: IBMServer, pub: Pub) -> None:
    for options in ("", "?budget=1s"):  # the first job alone takes two seconds
        with pytest.raises(BudgetError):
            build(f"ibm:test_manila{options}").estimator.run([pub])
    assert ibm_server.count("POST /(jobs|sessions)") == 0


def test_a_job_beyond_the_services_limit_is_not_sent(ibm_server: IBMServer, pub: Pub) -> None:
    estimator = build("ibm:test_manila?budget=unlimited&resilience=0").estimator
    with pytest.raises(
        BackendError, match=r"4 circuits of 2,500,001 shots, 10,000,004 executions; .*at most 10,000,00"
    ):
        estimator.run([pub], precision=2_500_001**-0.5 * (1 + 1e-12))
    assert ibm_server.count("POST /(jobs|sessions)") == 0 and estimator.ledger.rows() == []
    assert estimator.device.estimate([EstimatorPub.coerce(pub, 0.1)], 2_500_000**-0.5 * (1 + 1e-12)).shots == 10**7


# sessions


def test_a_chain_has_no_one_session() -> None:
    with (
        pytest.raises(ConfigError, match=r"is a chain of backends, and one is expected .*with model\.to_backend\("),
        session("ibm:fake_manila?mode=session -> statevector"),
    ):
        pass


def test_a_session_spans_models_and_is_closed_if_the_block_fails(ibm_server: IBMServer, pub: Pub) -> None:
    with pytest.raises(ZeroDivisionError), session(build("ibm:test_manila?mode=session&budget=60s")) as backend:
        for shots in (100, 200):
            backend.estimator.run([pub], precision=shots**-0.5).result()
        _ = 1 / 0
    assert len(ibm_server.jobs) == 2
    assert [item.accepting_jobs for item in ibm_server.state.sessions.values()] == [False]


def test_the_error_of_the_block_is_the_one_raised(
    ibm_server: IBMServer, pub: Pub, caplog: pytest.LogCaptureFixture
) -> None:
    ibm_server.refuse("PATCH /sessions/.*", 500, times=12)
    with pytest.raises(ZeroDivisionError), session(build("ibm:test_manila?mode=session&budget=60s")) as backend:
        backend.estimator.run([pub], precision=0.1)
        _ = 1 / 0
    assert "could not be closed" in caplog.text
    with pytest.raises(TransientBackendError, match="closing the session"), session(backend):
        backend.estimator.run([pub], precision=0.2)


def test_a_backend_with_nothing_to_close_is_yielded_too() -> None:
    with session("statevector") as backend:
        assert backend.name == "statevector"
    with session(build("ibm:fake_manila?mode=session")) as backend:  # nothing was sent
        assert device_of(backend).name == "ibm:fake_manila"


def test_a_failed_job_reaches_the_user(ibm_server: IBMServer, pub: Pub) -> None:
    ibm_server.fail_jobs("The device broke.")
    with pytest.raises(JobError, match="The device broke"):
        build("ibm:test_manila?budget=60s").estimator.run([pub], precision=0.1).result()
