"""Gradient rules: against autograd, and by the circuits they run."""

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.primitives import BackendEstimatorV2, StatevectorEstimator
from qiskit.quantum_info import SparsePauliOp
from qiskit.transpiler import generate_preset_pass_manager

from qiskit_qattn import QuantumHead, attention_circuit, get_backend, list_circuits
from qiskit_qattn.backends.counting import CountingEstimator
from qiskit_qattn.backends.gradients import SPSA, ParameterShift, Simulated, VectorJacobian, unique_rows
from qiskit_qattn.backends.pub import PubProgram, SimulatedGradient
from qiskit_qattn.backends.pub_jobs import Jobs
from qiskit_qattn.backends.registry import Backend
from qiskit_qattn.errors import ConfigError, UnknownNameError
from qiskit_qattn.simulation.estimator import TorchEstimator


def gradients(head, x, cotangent):
    return torch.autograd.grad(head(x), (x, head.weight), cotangent)


@pytest.mark.parametrize("engine", ["statevector", "density_matrix"])
def test_a_backend_string_chooses_the_rule(engine):
    assert get_backend(engine).gradient == ParameterShift()
    assert get_backend(f"{engine}?shots=10").gradient == ParameterShift()
    assert get_backend(f"{engine}?shots=10&gradient=parameter_shift").gradient == ParameterShift()
    assert get_backend(f"{engine}?shots=10&gradient=simulated").gradient == Simulated()
    spsa = get_backend(f"{engine}?shots=10&gradient=spsa").gradient
    assert (spsa.samples, spsa.epsilon) == (8, 0.1)
    assert get_backend(f"{engine}?shots=10&gradient=spsa&spsa_samples=3").gradient.samples == 3
    assert Backend("test", StatevectorEstimator()).gradient == ParameterShift()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("shots=9&gradient=spas", "Did you mean 'spsa'. Known: parameter_shift, simulated, spsa"),
        ("shots=9&spsa_samples=3", "gradient of .* is parameter_shift"),
        ("shots=9&spsa_samples=3&gradient=simulated", "gradient of .* is simulated"),
        ("shots=9&spsa_samples=0&gradient=spsa", "spsa_samples must be an integer of at least 1"),
        ("gradient=parameter_shift", "leave gradient out, or give shots"),
        ("spsa_samples=3", "leave spsa_samples out, or give shots"),
    ],
)
@pytest.mark.parametrize("engine", ["statevector", "density_matrix"])
def test_choices_that_cannot_be(engine, options, message):
    with pytest.raises(ConfigError, match=message):
        get_backend(f"{engine}?{options}")


def test_an_unknown_rule_is_an_unknown_name():
    with pytest.raises(UnknownNameError):
        get_backend("statevector?shots=9&gradient=adjoint")


def test_parameter_shift_needs_no_jacobian_in_one_piece(rng, monkeypatch):
    monkeypatch.setattr("qiskit_qattn.backends.gradients._CHUNK", 50)  # two rows a chunk
    frequencies = rng.normal(size=(6, 4))

    def evaluate(angles):  # one frequency an angle, so that the shift rule holds
        return np.sin(angles) @ frequencies

    angles, cotangent = rng.normal(size=(5, 6))[[0, 1, 1, 2, 3, 4, 0]], rng.normal(size=(7, 4))
    wanted = np.array([1, 0, 1, 1, 1, 1], dtype=bool)
    jacobian = VectorJacobian(ParameterShift(), angles, cotangent, wanted)
    found = jacobian.product(evaluate(jacobian.angles))
    np.testing.assert_allclose(found, np.cos(angles) * (cotangent @ frequencies.T) * wanted, atol=1e-12)


def test_unique_rows_keep_their_order(rng):
    rows = rng.normal(size=(4, 3))[[3, 3, 0, 2, 0]]
    unique, which = unique_rows(rows)
    np.testing.assert_array_equal(unique, rows[[0, 2, 3]])
    assert which.tolist() == [0, 0, 1, 2, 1]
    assert [part.shape for part in unique_rows(np.zeros((3, 0)))] == [(1, 0), (3,)]
    assert [part.shape for part in unique_rows(np.zeros((0, 3)))] == [(0, 3), (0,)]


def test_rows_that_differ_by_rounding_are_equal(rng):
    rows = rng.normal(size=(50, 3))
    noisy = rows[rng.integers(50, size=200)] + rng.uniform(-1, 1, (200, 3)) * 1e-7
    unique, which = unique_rows(np.concatenate([rows, noisy]), 1e-6)
    np.testing.assert_array_equal(unique, rows)
    np.testing.assert_allclose(unique[which[50:]], noisy, atol=1e-7, rtol=0)
    assert len(unique_rows(np.concatenate([rows, noisy]))[0]) == 250


def test_spsa_along_one_angle_is_a_difference_quotient():
    a = Parameter("a")
    circuit = QuantumCircuit(1)
    circuit.ry(a, 0)
    program = PubProgram(
        circuit,
        [SparsePauliOp("Z")],
        input_params=[a],
        weight_params=[],
        estimator=StatevectorEstimator(),
        precision=0.0,
        gradient=SPSA(samples=3),
    )
    x = torch.tensor([[0.3], [1.2]], dtype=torch.float64, requires_grad=True)
    program(x, torch.zeros(0)).sum().backward()
    torch.testing.assert_close(x.grad, -torch.sin(x.detach()) * np.sin(0.1) / 0.1, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", list_circuits())
def test_the_mean_of_spsa_is_the_gradient(name):
    """One estimate's entries have a spread of at most |g|; the mean of 4,000 must lie within 6 of its spreads.

    The bias, of order Kε²/2, is given a tenth of |g| with ε = 0.05.
    """
    head = QuantumHead(attention_circuit(name, 2)).double()
    x = torch.randn(2, head.num_features, dtype=torch.float64, requires_grad=True)
    angles = x if not head.amplitude else torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    head.to_backend(Backend("test", TorchEstimator()))
    program = head._program
    every = program.angles(torch.cat([angles, head.weight.expand(2, -1)], -1)).detach().numpy()
    cotangent = np.random.default_rng(1).normal(size=(2, len(head.circuit.observables)))
    wanted = np.ones(every.shape[1], dtype=bool)

    def product(rule):
        jacobian = VectorJacobian(rule, every, cotangent, wanted)
        [(table, _)] = Jobs([program], [jacobian.angles]).tables()
        return jacobian.product(table)

    exact = product(ParameterShift())
    mean = product(SPSA(samples=4000, epsilon=0.05, rng=np.random.default_rng(2)))
    size = np.linalg.norm(exact, axis=1, keepdims=True)
    assert (np.abs(mean - exact) < (6 / np.sqrt(4000) + 0.1) * size).all()


def test_spsa_is_seeded_and_never_repeats_itself():
    def run(text):
        torch.manual_seed(5)
        head = QuantumHead(attention_circuit("zz", 2)).to_backend(text)
        x = torch.randn(3, 2, requires_grad=True)
        return [gradients(head, x, torch.ones(3, 2))[0] for _ in range(2)]

    one, again = run("statevector?shots=10&gradient=spsa&seed=1"), run("statevector?shots=10&gradient=spsa&seed=1")
    assert torch.equal(one[0], again[0]) and torch.equal(one[1], again[1])
    assert not torch.equal(one[0], one[1])
    assert not torch.equal(one[0], run("statevector?shots=10&gradient=spsa&seed=2")[0])


def test_directions_are_not_the_samples_random_numbers():
    backend = get_backend("statevector?shots=10&gradient=spsa&seed=1")
    assert backend.gradient.rng.random() != np.random.default_rng(1).random()


@pytest.mark.parametrize(
    ("gradient", "backward"),
    [(ParameterShift(), [[12 * 2 * 27]]), (SPSA(samples=5), [[12 * 2 * 5]]), (Simulated(), [])],
)
def test_circuits_of_a_head_of_four_qubits_on_twelve_tokens(gradient, backward):
    estimator = CountingEstimator(estimator=TorchEstimator(seed=1))
    head = QuantumHead(attention_circuit("qisa", 4)).to_backend(
        Backend("test", estimator, precision=0.1, gradient=gradient)
    )
    x = torch.randn(12, 16, requires_grad=True)
    head(x).sum().backward()
    assert estimator.pubs == [[12], *backward]
    assert x.grad.ne(0).any() and head.weight.grad.ne(0).any()


def test_frozen_weights_cost_no_circuits():
    estimator = CountingEstimator(estimator=TorchEstimator())
    head = QuantumHead(attention_circuit("qisa", 4), trainable=False).to_backend(Backend("test", estimator))
    head(torch.randn(3, 16, requires_grad=True)).sum().backward()
    assert estimator.pubs == [[3], [3 * 2 * 15]]


@pytest.mark.parametrize("name", list_circuits())
def test_simulated_gradients_are_those_of_the_engine(name):
    head = QuantumHead(attention_circuit(name, 3), (2,)).double()
    x = torch.randn(2, 5, head.num_features, dtype=torch.float64, requires_grad=True)
    cotangent = torch.randn(2, 5, 3, dtype=torch.float64)
    values, expected = head(x), gradients(head, x, cotangent)
    head.to_backend("statevector?shots=100&seed=1&gradient=simulated")
    sampled = head(x)
    assert 0 < ((sampled - values) / head.gain[:, None]).abs().max() < 0.6  # the values are the sampled ones
    torch.testing.assert_close(gradients(head, x, cotangent), expected, atol=1e-10, rtol=0)


def test_simulated_gradients_at_precision_zero_pass_gradcheck(rng):
    head = QuantumHead(attention_circuit("zz", 2)).double()
    head.to_backend(Backend("test", StatevectorEstimator(), gradient=Simulated()))
    assert isinstance(head._program, SimulatedGradient)
    x = torch.from_numpy(rng.normal(size=(3, 2))).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, w: head._program(x, w), (x, head.weight))


def test_without_gradients_nothing_is_simulated():
    head = QuantumHead(attention_circuit("zz", 2)).to_backend("statevector?shots=20&seed=1&gradient=simulated")
    x = torch.randn(4, 2)
    with torch.no_grad():
        values = head(x)
    again = head.to_backend("statevector?shots=20&seed=1&gradient=simulated")(x)
    assert torch.equal(values, again.detach()) and again.requires_grad and not values.requires_grad


def test_simulated_gradients_of_a_circuit_on_a_wide_device():
    """The transpiled circuit has 27 qubits, too many for the engine: it takes the head's own."""
    aer = pytest.importorskip("qiskit_aer")
    provider = pytest.importorskip("qiskit_ibm_runtime.fake_provider")
    device = aer.AerSimulator.from_backend(provider.FakeHanoiV2(), seed_simulator=7)
    manager = generate_preset_pass_manager(optimization_level=1, backend=device, seed_transpiler=3)
    head = QuantumHead(attention_circuit("zz", 2)).double()
    x = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    cotangent = torch.randn(2, 2, dtype=torch.float64)
    values, expected = head(x), gradients(head, x, cotangent)
    estimator = BackendEstimatorV2(backend=device)
    for rule in (Simulated(), ParameterShift()):
        head.to_backend(Backend("hanoi", estimator, pass_manager=manager, precision=0.03, gradient=rule))
        assert ((head(x) - values) / head.gain).abs().max() < 0.3
        tolerance = 1e-10 if rule == Simulated() else 0.4  # noise of the device shrinks expectations
        for ours, theirs in zip(gradients(head, x, cotangent), expected, strict=True):
            assert (ours - theirs).norm() < tolerance * theirs.norm()
