"""The backend aer: parity with the exact and the noisy engine, sampling, and what it refuses."""

import sys

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.quantum_info import SparsePauliOp

from qiskit_qattn import GPT, GPTConfig, QuantumHead, attention_circuit, get_backend, list_circuits
from qiskit_qattn.backends.aer import AerEstimator
from qiskit_qattn.backends.gradients import SPSA
from qiskit_qattn.backends.mps import MPSEstimator
from qiskit_qattn.errors import BackendError, CircuitError, ConfigError, UnknownNameError

qiskit_aer = pytest.importorskip("qiskit_aer")
METHODS = ["aer", "aer:density_matrix", "aer:matrix_product_state"]
NOISES = [
    "depolarizing&p1=0.01&p2=0.03&readout=0.04",
    "amplitude_damping&gamma=0.02",
    "phase_damping&gamma=0.03&readout=0.01",
    "thermal&t1=50&t2=40&time2=500",
    "readout&readout=0.1",
    "fake_manila",
    "fake_manila&readout=off",
]


def one_qubit(*gates):
    circuit = QuantumCircuit(1)
    for gate in gates:
        getattr(circuit, gate)(0)
    return circuit


def expectations(backend, circuit, observables, *bindings):
    backend = get_backend(backend) if isinstance(backend, str) else backend
    isa = circuit if backend.pass_manager is None else backend.pass_manager.run(circuit)
    operators = [[SparsePauliOp(op).apply_layout(isa.layout)] for op in observables]
    return backend.estimator.run([(isa, operators, *bindings)], precision=backend.precision).result()[0]


@pytest.mark.parametrize("text", METHODS)
@pytest.mark.parametrize("name", list_circuits())
def test_exact_values_and_gradients_are_the_exact_engines(name, text):
    head = QuantumHead(attention_circuit(name, 4)).double()
    x = torch.randn(2, head.num_features, dtype=torch.float64, requires_grad=True)
    exact = head(x)
    expected = torch.autograd.grad(exact.sum(), (x, head.weight))
    head.to_backend(text)
    assert (head.backend.differentiable, head.backend.precision, head.backend.name) == (False, 0.0, text)
    values = head(x)
    torch.testing.assert_close(values, exact, atol=1e-6, rtol=0)
    found = torch.autograd.grad(values.sum(), (x, head.weight))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("name", "noise"),
    [
        (name, noise)
        for name in list_circuits()
        for noise in NOISES
        if name == "zz" or noise in (NOISES[0], "fake_manila")
    ],
)
def test_noisy_values_are_the_noisy_engines(name, noise):
    """Heads on 4 of a device's 5 qubits: routed, cut to the qubits in use, and observables moved with them."""
    if "fake" in noise:
        pytest.importorskip("qiskit_ibm_runtime")
    head = QuantumHead(attention_circuit(name, 4)).double()
    x = torch.randn(2, head.num_features, dtype=torch.float64)
    exact = head(x)
    noisy = head.to_backend(f"density_matrix?noise={noise}")(x)
    torch.testing.assert_close(head.to_backend(f"aer?noise={noise}")(x), noisy, atol=1e-6, rtol=0)
    assert (noisy - exact).abs().max() > 1e-3


def test_readout_error_is_in_exact_and_sampled_values():
    """A flip of probability p scales ⟨Z⟩ by 1 − 2p and ⟨ZZ⟩ by its square."""
    state = QuantumCircuit(2)
    state.x(0)
    for text in ("aer?noise=readout&readout=0.1", "aer?noise=readout&readout=0.1&shots=40000&seed=1"):
        result = expectations(text, state, ["IZ", "ZI", "ZZ", "II"])
        tolerance = 1e-12 if "shots" not in text else 5 / np.sqrt(40000)
        np.testing.assert_allclose(result.data.evs[:, 0], [-0.8, 0.8, -0.64, 1.0], atol=tolerance)


def test_readout_error_that_depends_on_the_bit(rng):
    """⟨Z⟩ is read as α⟨Z⟩ + β, on each qubit by its own matrix."""
    model = qiskit_aer.noise.NoiseModel()
    flips = {0: [[0.9, 0.1], [0.2, 0.8]], 2: [[0.97, 0.03], [0.05, 0.95]]}
    for qubit, matrix in flips.items():
        model.add_readout_error(matrix, [qubit])
    angles = ParameterVector("a", 3)
    circuit = QuantumCircuit(3)
    for qubit in range(3):
        circuit.ry(angles[qubit], qubit)
    values = rng.uniform(-1, 1, size=(4, 3))
    observables = [[SparsePauliOp(label)] for label in ("IIZ", "IZI", "ZII", "ZIZ")]
    pub = (circuit, observables, values)
    simulator = qiskit_aer.AerSimulator(method="density_matrix", enable_truncation=False)
    exact = AerEstimator(simulator, model).run([pub]).result()[0].data.evs
    z0, z1, z2 = np.cos(values).T
    read0, read2 = 0.7 * z0 + 0.1, 0.92 * z2 + 0.02
    np.testing.assert_allclose(exact, [read0, z1, read2, read0 * read2], atol=1e-12)
    sampled = AerEstimator(simulator, model, seed=1).run([pub], precision=0.01).result()[0].data.evs
    np.testing.assert_allclose(sampled, exact, atol=0.05)


@pytest.mark.parametrize(
    "text",
    [
        "aer",
        "aer:statevector?noise=depolarizing&p1=0.05&p2=0.1&readout=0.05",
        "aer:matrix_product_state?noise=depolarizing&p1=0.05&p2=0.1",
        "aer?noise=fake_manila",
    ],
)
def test_samples_have_the_exact_mean_and_the_errors_reported(text, rng):
    if "fake" in text:
        pytest.importorskip("qiskit_ibm_runtime")
    angles = ParameterVector("a", 3)
    circuit = QuantumCircuit(3)
    for qubit in range(3):
        circuit.ry(angles[qubit], qubit)
    circuit.cx(0, 2)
    circuit.s(2)
    values = np.tile(rng.normal(size=3), (80, 1))
    backend = get_backend(f"{text}{'&' if '?' in text else '?'}shots=100&seed=5")
    result = expectations(backend, circuit, ["ZZI", "XIX", "IYY", SparsePauliOp(["ZII", "XXI"], [1, 2])], values)
    reference = get_backend(text.replace(":statevector", "").replace(":matrix_product_state", ""))
    exact = expectations(reference, circuit, ["ZZI", "XIX", "IYY", SparsePauliOp(["ZII", "XXI"], [1, 2])], values[:1])
    assert result.metadata["shots"] == backend.shots == 100
    errors = result.data.evs.mean(1) - exact.data.evs[:, 0]
    assert (np.abs(errors) < 5 * result.data.stds.mean(1) / np.sqrt(80)).all(), errors
    np.testing.assert_allclose(result.data.evs.std(1), result.data.stds.mean(1), rtol=0.4)


def test_seeds_repeat_a_backend_but_not_a_call():
    first, again, other = (get_backend(f"aer?shots=1000&seed={seed}") for seed in (1, 1, 2))
    values = [expectations(first, one_qubit("h"), ["Z"]).data.evs[0, 0] for _ in range(3)]
    assert len(set(values)) > 1
    assert values == [expectations(again, one_qubit("h"), ["Z"]).data.evs[0, 0] for _ in range(3)]
    assert values != [expectations(other, one_qubit("h"), ["Z"]).data.evs[0, 0] for _ in range(3)]


@pytest.mark.parametrize("text", ["aer", "aer?shots=100000&seed=1", "aer?noise=readout&readout=0"])
def test_odd_pubs(text):
    """Nothing bound, nothing acted on, projectors, the identity, and no rows at all."""
    idle = QuantumCircuit(3)
    idle.x(1)
    estimator, precision = get_backend(text).estimator, get_backend(text).precision
    pub = (idle, [{"IIZ": 1, "I1I": 2, "III": 0.5}, "IZI", "III", "+II"])
    result = estimator.run([pub], precision=precision).result()[0]
    np.testing.assert_allclose(result.data.evs, [3.5, -1, 1, 0.5], atol=0.02)
    angle = QuantumCircuit(1)
    angle.ry(ParameterVector("a", 1)[0], 0)
    nowhere = (angle, [["Z"], ["X"]], np.zeros((0, 1)))
    assert estimator.run([nowhere], precision=precision).result()[0].data.evs.shape == (2, 0)
    assert len(estimator.run([], precision=precision).result()) == 0


@pytest.mark.parametrize("text", ["aer", "aer:density_matrix", "aer?shots=10", "aer?noise=depolarizing&p1=0.1&p2=0.1"])
def test_observables_of_the_identity_alone(text):
    circuit = QuantumCircuit(2)
    circuit.ry(ParameterVector("a", 1)[0], 0)
    observables = [SparsePauliOp("II"), SparsePauliOp(["II", "II"], [0.5, 1.0])]
    values = expectations(text, circuit, observables, [[0.1], [0.2], [0.3]]).data.evs
    np.testing.assert_allclose(values, [[1, 1, 1], [1.5, 1.5, 1.5]])


def test_a_wide_device_costs_only_the_qubits_in_use():
    pytest.importorskip("qiskit_ibm_runtime")
    head = QuantumHead(attention_circuit("angle", 2)).double()
    x = torch.zeros(1, 2, dtype=torch.float64)
    noisy = head.to_backend("density_matrix?noise=fake_kolkata")(x)  # 27 qubits
    torch.testing.assert_close(head.to_backend("aer?noise=fake_kolkata")(x), noisy, atol=1e-6, rtol=0)


def test_a_model_trains_and_generates_on_aer():
    config = GPTConfig(vocab_size=11, block_size=4, n_layer=1, n_head=2, n_embd=8, num_qubits=2, heads="qisa:1,zz:1")
    text = "aer?noise=depolarizing&p1=0.01&p2=0.02&readout=0.02"
    model = GPT(config)
    idx = torch.randint(0, 11, (1, 3))
    reference = model.to_backend(text.replace("aer", "density_matrix"))(idx, idx)[1]
    expected = torch.autograd.grad(reference, list(model.circuit_parameters()))
    loss = model.to_backend(text)(idx, idx)[1]
    torch.testing.assert_close(loss, reference, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.autograd.grad(loss, list(model.circuit_parameters())), expected, atol=1e-5, rtol=0)
    assert {row["backend"] for row in model.head_backends()} == {get_backend(text).name}
    assert model.generate(idx, 2, seed=1).shape == (1, 5)


@pytest.mark.parametrize(
    ("text", "method"),
    [
        ("aer", "statevector"),
        ("aer:statevector", "statevector"),
        ("aer:density_matrix", "density_matrix"),
        ("aer?noise=readout&readout=0.1", "density_matrix"),
        ("aer:statevector?noise=readout&readout=0.1&shots=5", "statevector"),
        ("aer:matrix_product_state?noise=readout&readout=0.1&shots=5", "matrix_product_state"),
    ],
)
def test_the_target_is_aers_method(text, method):
    assert get_backend(text).estimator.simulator.options.method == method


def test_gradient_rules_and_bond_dimension():
    rule = get_backend("aer?shots=10&gradient=spsa&spsa_samples=3").gradient
    assert isinstance(rule, SPSA) and rule.samples == 3
    assert get_backend("aer:matrix_product_state?max_bond=7").estimator.max_bond == 7
    assert isinstance(get_backend("aer:matrix_product_state?shots=5").estimator, MPSEstimator)
    noisy = get_backend("aer:matrix_product_state?max_bond=7&noise=readout&readout=0.1&shots=5").estimator
    assert noisy.simulator.options.matrix_product_state_max_bond_dimension == 7


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("aer:statevectr", UnknownNameError, "Did you mean 'statevector'.*Known: density_matrix, matrix_product"),
        ("aer?max_bond=8", ConfigError, "max_bond=8 needs aer:matrix_product_state, got aer:statevector"),
        ("aer:matrix_product_state?max_bond=0", ConfigError, "max_bond must be an integer of at least 1"),
        ("aer:statevector?noise=readout&readout=0.1", ConfigError, "give shots, or take aer:density_matrix"),
        ("aer?device=TPU", UnknownNameError, "device of backend 'aer': 'TPU'.*Known: CPU, GPU"),
        ("aer?shots=0", ConfigError, "shots must be an integer of at least 1"),
        ("aer?shot=1", UnknownNameError, "Did you mean 'shots'"),
        ("aer?noise=depolarizing&p1=0.1", ConfigError, "needs p2"),
        ("aer?gradient=spas", UnknownNameError, "Did you mean 'spsa'"),
    ],
)
def test_errors_say_what_is_allowed(text, error, message):
    with pytest.raises(error, match=message):
        get_backend(text)


def test_a_gpu_needs_an_aer_built_for_one():
    if "GPU" in qiskit_aer.AerSimulator().available_devices():
        assert get_backend("aer?device=gpu").estimator.simulator.options.device == "GPU"
        return
    with pytest.raises(ConfigError, match="device=GPU: this Aer was built for CPU only"):
        get_backend("aer?device=gpu")


def test_circuits_that_cannot_run():
    estimator = get_backend("aer").estimator
    measured = QuantumCircuit(1, 1)
    measured.measure(0, 0)
    with pytest.raises(CircuitError, match=r"without classical bits in use, got \['measure'\]"):
        estimator.run([(measured, "Z")]).result()
    angle = QuantumCircuit(1)
    angle.ry(ParameterVector("a", 1)[0], 0)
    with pytest.raises(CircuitError, match="must be finite, got nan"):
        estimator.run([(angle, "Z", [[0.1], [np.nan]])]).result()
    with pytest.raises(ConfigError, match="got -1"):
        estimator.run([], precision=-1)
    wide = QuantumCircuit(60)
    wide.h(range(60))
    with pytest.raises(BackendError, match="Aer could not run the circuit"):
        estimator.run([(wide, "Z" * 60)]).result()


def test_without_aer_the_error_tells_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "qiskit_aer", None)
    with pytest.raises(ImportError, match=r'needs qiskit_aer, .*pip install "qiskit-qattn\[aer\]"'):
        get_backend("aer")
