"""A sampler on a string or a chain: circuits as they are written, and every fall visible."""

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.circuit.library import real_amplitudes, z_feature_map
from qiskit_machine_learning.algorithms import VQC
from qiskit_machine_learning.neural_networks import SamplerQNN
from qiskit_machine_learning.optimizers import COBYLA

import qiskit_qattn as qa
from qiskit_qattn.backends.jobs import retries
from qiskit_qattn.backends.jobs.budget import Budget
from qiskit_qattn.backends.jobs.estimator import ManagedEstimator
from qiskit_qattn.backends.jobs.ledger import Ledger
from qiskit_qattn.backends.jobs.sampler import ManagedSampler
from qiskit_qattn.backends.place import Place
from qiskit_qattn.backends.registry import Backend
from qiskit_qattn.errors import BackendError, CircuitError, ConfigError
from qiskit_qattn.nn.audit import FallbackWarning
from tests.backends.jobs.disk_device import DiskDevice

pytest.importorskip("qiskit_aer")
A = Parameter("a")


def circuit():
    made = QuantumCircuit(3, metadata={"mine": 1})
    made.ry(A, 0)
    made.ccx(0, 1, 2)
    made.cx(0, 2)
    made.measure_all()
    return made


@pytest.fixture
def device(tmp_path, request, monkeypatch):
    monkeypatch.setattr(retries, "BACKOFF", 0.001)
    return DiskDevice(tmp_path / "device", name=f"disk:{request.node.name}", paid=True)


def chain(device, tmp_path, budget="unlimited"):
    estimator = ManagedEstimator(
        device, ledger=Ledger(tmp_path / "ledger.sqlite"), budget=Budget.parse(budget), precision=0.1
    )
    backend = Backend(device.name, estimator, precision=0.1, sampler=ManagedSampler(estimator, shots=100))
    return qa.sampler(Place(((device.name, backend), ("exact", qa.get_backend("statevector?shots=100&seed=1")))))


def test_circuits_are_put_into_the_gates_of_the_backend_once(monkeypatch):
    pytest.importorskip("qiskit_ibm_runtime")
    backend = qa.get_backend("ibm:fake_manila?shots=500&seed=1&noise=off&optimization=1")
    sampler, made, calls = qa.sampler(backend), circuit(), []
    right = type(backend.pass_manager).run
    monkeypatch.setattr(type(backend.pass_manager), "run", lambda self, each: calls.append(1) or right(self, each))
    result = sampler.run([(made, [[np.pi], [0.0]])]).result()
    assert [set(result[0].data.meas.get_counts(row)) for row in (0, 1)] == [{"101"}, {"000"}]
    assert result[0].metadata["backend"] == backend.name and result[0].metadata["circuit_metadata"] == {"mine": 1}
    sampler.run([(made, [np.pi])]).result()
    assert len(calls) == 1
    made.data.pop(0)  # edited in place
    assert set(sampler.run([made]).result()[0].data.meas.get_counts()) == {"000"}
    assert len(calls) == 2 and sampler.audit.calls == {backend.name: 3}
    isa = backend.pass_manager.run(circuit())
    assert set(sampler.run([(isa, [np.pi])]).result()[0].data.meas.get_counts()) == {"101"}


def test_the_work_is_the_same_on_every_device():
    pytest.importorskip("qiskit_ibm_runtime")
    works = []
    for name in ("fake_manila", "fake_quito", "fake_manila"):
        backend = qa.get_backend(f"ibm:{name}?shots=100&optimization=0")
        sampler = qa.sampler(backend)
        pubs = sampler.on(backend.name, backend, sampler.run([(circuit(), [0.3])])._pubs)
        angles = [0.3] if len(works) < 2 else [0.4]
        works.append(backend.sampler.request([(pubs[0].circuit, angles)]).work)
    assert works[0] == works[1] != works[2]


def test_a_run_that_fails_falls_visibly(device, tmp_path):
    sampler = chain(device, tmp_path)
    first = sampler.run([(circuit(), [0.3])]).result()
    assert first[0].metadata["backend"] == device.name == first[0].metadata["device"]
    device.free("failed")
    job = sampler.run([(circuit(), [0.4])])
    with pytest.warns(FallbackWarning, match=rf"sampler, call 2, .*{device.name} failed, exact is next\..*melted"):
        second = job.result()
    assert job.result() is second and job.done() and job.in_final_state() and not job.cancelled()
    assert second[0].metadata["backend"] == "exact" and "device" not in second[0].metadata
    assert sampler.audit.calls == {device.name: 1, "exact": 1}
    assert [(fall.call, fall.link, fall.to) for fall in sampler.audit.falls] == [(2, device.name, "exact")]


def test_a_budget_that_is_used_up_falls_and_sends_nothing(device, tmp_path):
    sampler = chain(device, tmp_path, budget="3s")
    sampler.run([(circuit(), [0.3])]).result()
    with pytest.warns(FallbackWarning, match="would pass the budget"):
        job = sampler.run([(circuit(), [0.4])])
    assert job.result()[0].metadata["backend"] == "exact" and len(device.jobs) == 1


def test_a_circuit_that_no_link_takes_raises_the_last_error():
    early = QuantumCircuit(1, 1)
    early.measure(0, 0)
    early.h(0)
    sampler = qa.sampler("density_matrix?shots=10 -> statevector")
    with (
        pytest.raises(CircuitError, match="uses classical bits before the end"),
        pytest.warns(FallbackWarning, match="statevector is next"),
    ):
        sampler.run([early]).result()


def test_a_link_that_cannot_be_opened_falls(tmp_path):
    closed = ("far", BackendError("far is closed."))
    sampler = qa.sampler(Place((closed, ("exact", qa.get_backend("statevector?shots=10")))))
    with pytest.warns(FallbackWarning, match="far is closed"):
        assert sampler.run([(circuit(), [0.3])]).result()[0].metadata["backend"] == "exact"
    with pytest.raises(BackendError, match="far is closed"):
        qa.sampler(Place((closed,))).run([(circuit(), [0.3])])


def test_what_a_sampler_has_no_use_for_is_refused():
    with pytest.raises(ConfigError, match="one backend per link"):
        qa.sampler("statevector?shots=10 + density_matrix?shots=10")
    with pytest.raises(ConfigError, match="has no classical twin"):
        qa.sampler("statevector -> classical")
    isa = qa.get_backend("aer?noise=fake_manila").pass_manager.run(circuit())
    with pytest.raises(CircuitError, match="give a chain the one before"), pytest.warns(FallbackWarning):
        qa.sampler("aer?shots=10 -> aer:density_matrix?shots=10").run([(isa, [0.1])])


def test_qiskit_machine_learning_takes_it(rng):
    encoding, ansatz = z_feature_map(2, reps=1), real_amplitudes(2, reps=1)
    with qa.sampler("aer?shots=200&seed=3") as sampler:
        network = SamplerQNN(
            circuit=encoding.compose(ansatz),
            sampler=sampler,
            input_params=encoding.parameters,
            weight_params=ansatz.parameters,
        )
        data, weights = rng.uniform(-1, 1, (3, 2)), rng.uniform(-1, 1, 4)
        exact = qa.fast(network, exact=True)
        assert np.abs(network.forward(data, weights) - exact.forward(data, weights)).max() < 0.15
        assert np.abs(network.backward(data, weights)[1] - exact.backward(data, weights)[1]).max() < 0.25
        model = VQC(feature_map=encoding, ansatz=ansatz, optimizer=COBYLA(maxiter=6), sampler=sampler)
        model.fit(data, np.array([0, 1, 0]))
        assert model.predict(data).shape == (3,)
    assert sampler.audit.calls.total() > 6
