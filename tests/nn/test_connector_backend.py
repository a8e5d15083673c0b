"""Someone's own EstimatorQNN on backends: layout, shots, gradients, closing, and what is refused."""

import copy

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.primitives import StatevectorEstimator
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit.quantum_info import Operator, Pauli, SparseObservable, SparsePauliOp, Statevector
from qiskit.transpiler import generate_preset_pass_manager
from qiskit_machine_learning.connectors import TorchConnector as QiskitTorchConnector
from qiskit_machine_learning.neural_networks import EstimatorQNN, SamplerQNN
from safetensors.torch import save_file

from qiskit_qattn import AttentionCircuit, QuantumHead, TorchConnector, compile_qnn, get_backend
from qiskit_qattn.backends.counting import CountingEstimator
from qiskit_qattn.backends.pub import PubProgram
from qiskit_qattn.errors import CheckpointError, CircuitError, ConfigError, EncodingError, UnknownNameError
from qiskit_qattn.nn.audit import FallbackWarning
from qiskit_qattn.simulation.density_matrix import DensityMatrixProgram
from qiskit_qattn.simulation.statevector import StatevectorProgram

WEIGHTS = np.array([0.4, -0.6, 1.1])
OBSERVABLES = [SparsePauliOp("IZ"), SparsePauliOp(["XX", "ZI", "II"], [0.5, -1.0, 0.25])]
SAMPLING = [
    "statevector?shots=256&seed=1",
    "statevector?method=mps&shots=256&seed=1",
    "density_matrix?noise=depolarizing&p1=0.01&p2=0.02&shots=256&seed=1",
    "aer?shots=256&seed=1",
    "aer?noise=fake_manila&shots=256&seed=1",
    "braket:local?shots=256",
    "ibm:fake_manila?shots=256&seed=1&resilience=0",
]


def needs(backend):
    """Skip without the packages of a backend."""
    if backend.startswith("braket"):
        pytest.importorskip("braket")
        pytest.importorskip("qiskit_braket_provider")
    elif backend not in ("statevector", "statevector?shots=256&seed=1"):
        pytest.importorskip("qiskit_aer")
    if "fake_" in backend:
        pytest.importorskip("qiskit_ibm_runtime")


def mixed_circuit():
    """Return a circuit in which inputs and weights alternate and meet in an angle, and both."""
    x, w = ParameterVector("x", 2), ParameterVector("w", 3)
    circuit = QuantumCircuit(2)
    circuit.ry(w[0], 0)
    circuit.rx(x[1], 0)
    circuit.ry(x[0] * w[1], 1)
    circuit.cx(0, 1)
    circuit.rz(w[2] + x[0], 1)
    circuit.rx(0.3, 1)
    return circuit, x, w


def mixed_network(**options):
    circuit, x, w = mixed_circuit()
    options = {"input_gradients": True, "observables": OBSERVABLES} | options
    return EstimatorQNN(circuit=circuit, input_params=[x[0], x[1]], weight_params=[w[2], w[0], w[1]], **options)


def sampler_network():
    circuit, x, w = mixed_circuit()
    options = {"input_params": x, "weight_params": w, "output_shape": 2}
    return SamplerQNN(circuit=circuit, interpret=lambda outcome: outcome % 2, **options)


def exact_values(rows, weights=WEIGHTS):
    """Return the values of Qiskit's own Statevector."""
    circuit, x, w = mixed_circuit()
    order = [x[0], x[1], w[2], w[0], w[1]]
    states = [Statevector(circuit.assign_parameters(dict(zip(order, [*row, *weights], strict=True)))) for row in rows]
    return np.array([[state.expectation_value(each).real for each in OBSERVABLES] for state in states])


def exact_gradients(rows):
    """Return the derivatives of the sum of all values with respect to inputs and weights, by differences."""
    step = 1e-5

    def slope(move_rows, move_weights):
        ahead, behind = (
            exact_values(rows + sign * move_rows, WEIGHTS + sign * move_weights).sum() for sign in (step, -step)
        )
        return (ahead - behind) / (2 * step)

    units = np.eye(rows.size).reshape(-1, *rows.shape)
    inputs = np.array([slope(unit, 0) for unit in units]).reshape(rows.shape)
    return inputs, np.array([slope(0, unit) for unit in np.eye(len(WEIGHTS))])


def run(layer, rows):
    """Return values, and gradients of their sum with respect to inputs and weights."""
    x = torch.tensor(rows, dtype=torch.float64, requires_grad=True)
    layer.zero_grad()
    y = layer(x)
    y.sum().backward()
    return y.detach().numpy(), x.grad.numpy(), layer.weight.grad.numpy()


@pytest.mark.parametrize(
    "backend",
    [
        "statevector",
        "statevector?method=mps",
        "density_matrix",
        "aer",
        "aer:density_matrix",
        "aer:matrix_product_state",
        "braket:local",
    ],
)
def test_exact_backends_give_the_values_and_gradients_of_qiskits_statevector(backend, rng):
    needs(backend)
    rows = rng.uniform(-2, 2, (3, 2))
    layer = TorchConnector(mixed_network(), WEIGHTS, backend=backend).double()
    values, inputs, weights = run(layer, rows)
    np.testing.assert_allclose(values, exact_values(rows), atol=1e-6)
    wanted_inputs, wanted_weights = exact_gradients(rows)
    np.testing.assert_allclose(inputs, wanted_inputs, atol=1e-5)
    np.testing.assert_allclose(weights, wanted_weights, atol=1e-5)
    assert list(layer.state_dict()) == ["weight", "_weights"]


@pytest.mark.parametrize(
    "backend",
    [
        "statevector?shots=4000&seed=1",
        "density_matrix?shots=4000&seed=1",
        "aer?shots=4000&seed=1",
        "braket:local?shots=4000",
        "ibm:fake_manila?noise=off&resilience=0&shots=4000&seed=1",
    ],
)
def test_sampling_backends_are_within_their_error(backend, rng):
    needs(backend)
    rows = rng.uniform(-2, 2, (3, 2))
    layer = TorchConnector(mixed_network(), WEIGHTS, backend=backend).double()
    values, inputs, weights = run(layer, rows)
    error = 4000**-0.5
    assert 0 < np.abs(values - exact_values(rows)).max() < 6 * error
    wanted_inputs, wanted_weights = exact_gradients(rows)
    assert np.abs(inputs - wanted_inputs).max() < 12 * error
    assert np.abs(weights - wanted_weights).max() < 20 * error


def test_noise_is_the_devices():
    pytest.importorskip("qiskit_aer")
    pytest.importorskip("qiskit_ibm_runtime")
    rows = np.array([[0.9, 2.0], [2.5, 0.7]])
    exact, noisy = exact_values(rows), []
    for backend in ("aer?noise=fake_manila", "density_matrix?noise=fake_manila", "ibm:fake_manila?shots=20000&seed=1"):
        layer = TorchConnector(mixed_network(), WEIGHTS, backend=backend).double()
        noisy.append(layer(torch.from_numpy(rows)).detach().numpy())
    assert 0.01 < np.abs(noisy[0] - exact).max() < 0.2
    np.testing.assert_allclose(noisy[1], exact, atol=0.2)
    np.testing.assert_allclose(noisy[2], exact, atol=0.2)


def test_engines_are_differentiable_where_the_backend_has_one():
    layer = TorchConnector(mixed_network(), WEIGHTS, backend="statevector").double()
    assert isinstance(layer._program, StatevectorProgram)
    x = torch.rand(2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(layer, x)
    layer.to_backend("density_matrix?noise=depolarizing&p1=0.01&p2=0.02")
    assert isinstance(layer._program, DensityMatrixProgram)
    assert torch.autograd.gradcheck(layer, x)


def test_more_than_twenty_qubits_are_matrix_product_states():
    pytest.importorskip("qiskit_aer")
    x, w = ParameterVector("x", 22), ParameterVector("w", 1)
    circuit = QuantumCircuit(22)
    for qubit in range(22):
        circuit.ry(x[qubit] + w[0], qubit)
    circuit.cx(0, 21)
    network = EstimatorQNN(
        circuit=circuit,
        input_params=x,
        weight_params=w,
        observables=[SparsePauliOp("Z" + 21 * "I"), SparsePauliOp(21 * "I" + "Z")],
    )
    rows = torch.rand(2, 22)
    angles = rows.numpy() + 0.2
    expected = np.stack([np.cos(angles[:, 21]) * np.cos(angles[:, 0]), np.cos(angles[:, 0])], 1)
    for backend in ("statevector", "statevector?shots=400&seed=1&method=mps"):
        values = TorchConnector(network, np.array([0.2]), backend=backend)(rows).detach().numpy()
        np.testing.assert_allclose(values, expected, atol=0.3 if "shots" in backend else 1e-6)


def test_the_shots_are_the_backends():
    backend = get_backend("statevector?shots=256&seed=1")
    counting = CountingEstimator(estimator=backend.estimator)
    where = type(backend)(backend.name, counting, precision=backend.precision, shots=256)
    layer = TorchConnector(mixed_network(), WEIGHTS, backend=where)  # whose network asks for 4,096
    layer(torch.rand(3, 2))
    assert counting.total.shots == 256 * counting.total.circuits == 256 * 6  # two bases


@pytest.mark.parametrize("gradient", ["parameter_shift", "spsa", "simulated"])
def test_the_gradient_rule_is_the_backends(gradient):
    backend = get_backend(f"statevector?shots=100&seed=1&gradient={gradient}")
    counting = CountingEstimator(estimator=backend.estimator)
    where = type(backend)(
        backend.name, counting, precision=backend.precision, shots=100, gradient=backend.gradient, max_pub_size=2
    )
    layer = TorchConnector(mixed_network(), WEIGHTS, backend=where)
    layer(torch.rand(3, 2, requires_grad=True)).sum().backward()
    rows = {"parameter_shift": 3 * 2 * 4, "spsa": 3 * 2 * 8, "simulated": 0}[gradient]  # of four angles each
    assert [sum(job) for job in counting.pubs] == ([3, rows] if rows else [3])
    assert max(map(max, counting.pubs)) == 2


def test_moving_keeps_weights_and_a_block_comes_back():
    network = mixed_network(estimator=StatevectorEstimator(), default_precision=0.0)
    layer = TorchConnector(network, WEIGHTS)
    x = torch.rand(3, 2)
    before, weight = layer(x), layer.weight
    assert layer.backend is None and layer.audit() == {}
    with layer.to_backend("statevector?shots=16&seed=1") as inside:
        assert inside is layer and layer.backend.name == "statevector?seed=1&shots=16"
        assert isinstance(layer._program, PubProgram) and not torch.equal(layer(x), before)
        layer.double()
    assert layer.backend is None and layer.weight is weight
    torch.testing.assert_close(layer(x.double()), before.double())
    with TorchConnector(network, WEIGHTS, backend="statevector") as other:
        torch.testing.assert_close(other(x), before)
    torch.testing.assert_close(other(x), before)
    network.estimator = StatevectorEstimator()  # is noticed again
    torch.testing.assert_close(other(x), before)


@pytest.mark.usefixtures("laboratory")
def test_a_chain_falls_with_a_record_and_closes_what_it_opened():
    layer = TorchConnector(mixed_network(), WEIGHTS).double()
    x = torch.rand(3, 2, dtype=torch.float64, requires_grad=True)
    expected = layer(x)
    with layer.to_backend("lab?fails=all -> statevector"):
        estimator = layer.backend.links[0][1].estimator
        with pytest.warns(FallbackWarning, match=r"^EstimatorQNN, call 1, forward pass: lab\?fails=all failed"):
            values = layer(x)
        values.sum().backward()
        assert estimator.device.closed == 0
    torch.testing.assert_close(values, expected)
    assert estimator.device.closed == 1
    audit = layer.audit()
    assert audit["calls"] == audit["gradients"] == {"statevector": 1}
    assert [(fall["kind"], fall["reason"]) for fall in audit["falls"]] == [
        ("EstimatorQNN", "The laboratory is closed.")
    ]


@pytest.mark.parametrize(
    "observable",
    ["ZX", Pauli("ZX"), Operator(Pauli("ZX")), SparseObservable("ZX"), SparsePauliOp("ZX")],
    ids=lambda each: type(each).__name__,
)
def test_observables_of_every_kind(observable):
    circuit, w = ry_circuit(2)
    network = EstimatorQNN(circuit=circuit, weight_params=w, observables=[observable])
    for backend in ("statevector", "statevector?shots=40000&seed=1"):
        value = TorchConnector(network, np.array([0.4, 0.6]), backend=backend)(torch.zeros(1, 0)).item()
        assert value == pytest.approx(np.cos(0.6) * np.sin(0.4), abs=0.03 if "?" in backend else 1e-6)


@pytest.mark.usefixtures("laboratory")
def test_what_a_string_opened_is_closed_by_the_next_move_and_with_the_layer():
    layer, x = TorchConnector(mixed_network(), WEIGHTS, backend="lab"), torch.rand(2, 2)
    first = layer.backend.estimator.device
    layer(x)
    layer.to_backend("lab")
    second = layer.backend.estimator.device
    layer(x)
    assert (first.closed, second.closed) == (1, 0)
    del layer
    assert second.closed == 1


def test_a_copy_runs_where_the_layer_does():
    layer, x = TorchConnector(mixed_network(), WEIGHTS, backend="statevector?shots=100&seed=1"), torch.rand(2, 2)
    twin = copy.deepcopy(layer)
    assert twin.backend.name == layer.backend.name and twin.weight is not layer.weight
    twin.to_backend("statevector")
    torch.testing.assert_close(twin(x), TorchConnector(mixed_network(), WEIGHTS)(x))
    assert layer.backend.shots == 100 and isinstance(layer._program, PubProgram)


def test_shapes_and_dtypes_are_as_without_a_backend():
    layer = TorchConnector(mixed_network(), WEIGHTS)
    for shape in ((2,), (1, 2), (4, 2), (2, 3, 2), (0, 2)):
        x = torch.rand(shape)
        expected = layer(x)
        with layer.to_backend("aer" if shape == (4, 2) and _installed("qiskit_aer") else "statevector?shots=9"):
            assert layer(x).shape == expected.shape == (*shape[:-1], 2) and layer(x).dtype == expected.dtype


def _installed(package):
    try:
        __import__(package)
    except ImportError:
        return False
    return True


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_device_is_asked_for_what_is_no_number(value):
    layer = TorchConnector(mixed_network(), WEIGHTS, backend="statevector?shots=9")
    with pytest.raises(EncodingError):
        layer(torch.tensor([[0.1, value]]))


class Other(EstimatorQNN):
    """A network that computes something else."""

    def _forward_postprocess(self, num_samples, result):
        return super()._forward_postprocess(num_samples, result) ** 2


def test_other_networks_are_refused_on_a_backend():
    circuit, x, w = mixed_circuit()
    params = {"input_params": x, "weight_params": w}
    layer = TorchConnector(Other(circuit=circuit, **params))
    with pytest.raises(ConfigError, match=r"an EstimatorQNN or a SamplerQNN of .* only, got a subclass, Other\."):
        layer.to_backend("statevector?shots=9")
    assert layer.backend is None
    with pytest.raises(UnknownNameError, match="Did you mean 'statevector'"):
        TorchConnector(mixed_network(), backend="statevectr")


# Qiskit Machine Learning's default observable and a layout


def layout_network(circuit, params, layout, device_qubits=5, **options):
    """Return a network on a circuit that a layout put on some qubits of a device."""
    device = GenericBackendV2(device_qubits, seed=1)
    manager = generate_preset_pass_manager(1, backend=device, initial_layout=layout, seed_transpiler=1)
    return EstimatorQNN(circuit=circuit, weight_params=params, pass_manager=manager, **options)


def ry_circuit(num_qubits):
    w = ParameterVector("w", num_qubits)
    circuit = QuantumCircuit(num_qubits)
    for qubit in range(num_qubits):
        circuit.ry(w[qubit], qubit)
    return circuit, list(w)


def test_the_wrong_way_is_refused_and_the_right_call_gives_the_value():
    """Qiskit's own connector gives 1 for cos 0.4 cos 0.6 = 0.76 without a word."""
    circuit, w = ry_circuit(2)
    network, weights = layout_network(circuit, w, [3, 4]), np.array([0.4, 0.6])
    assert QiskitTorchConnector(network, weights)(torch.zeros(1, 0)).item() == pytest.approx(1.0, abs=1e-6)
    message = r"measures Z on qubits 0 to 1, .* put the circuit's 2 qubits on \[3, 4\].*backend='ibm"
    for options in ({}, {"backend": "statevector"}, {"backend": "statevector?shots=9"}):
        with pytest.raises(CircuitError, match=message):
            TorchConnector(network, weights, **options)
    with pytest.raises(CircuitError, match=message):
        compile_qnn(network)
    right = EstimatorQNN(circuit=circuit, weight_params=w)
    layer = TorchConnector(right, weights, backend="aer" if _installed("qiskit_aer") else "statevector")
    assert layer(torch.zeros(1, 0)).item() == pytest.approx(np.cos(0.4) * np.cos(0.6), abs=1e-6)


@pytest.mark.parametrize("backend", [None, "statevector", "statevector?shots=9"])
def test_observables_that_never_saw_the_layout_are_refused(backend):
    circuit, w = ry_circuit(2)
    network = layout_network(circuit, w, [3, 4], observables=[SparsePauliOp("ZZ"), SparsePauliOp("IX")])
    with pytest.raises(CircuitError, match=r"observables on 2 qubits, but its circuit is on 5, .*apply_layout"):
        TorchConnector(network, backend=backend)


@pytest.mark.parametrize("layout", [[1, 2], [1, 3], [4, 0]])
def test_layouts_that_share_a_qubit_are_refused_too(layout):
    circuit, w = ry_circuit(2)
    with pytest.raises(CircuitError, match="Z on qubits 0 to 1"):
        TorchConnector(layout_network(circuit, w, layout))


@pytest.mark.parametrize(("layout", "device_qubits"), [([0, 1], 5), ([1, 0], 5), ([1, 0], 2)])
def test_a_layout_on_the_same_qubits_is_right(layout, device_qubits):
    """The parity of two qubits does not depend on their order."""
    circuit, w = ry_circuit(2)
    layer = TorchConnector(layout_network(circuit, w, layout, device_qubits), np.array([0.4, 0.6]))
    for backend in (None, "statevector"):
        if backend is not None:
            layer.to_backend(backend)
        assert layer(torch.zeros(1, 0)).item() == pytest.approx(np.cos(0.4) * np.cos(0.6), abs=1e-6)


def test_idle_qubits_do_not_matter():
    w = ParameterVector("w", 1)
    circuit = QuantumCircuit(3)
    circuit.ry(w[0], 0)
    network = layout_network(circuit, list(w), [2, 4, 3])  # measures 0, 1 and 2; 1 of 2, 3 and 4 is in use
    assert TorchConnector(network, np.array([0.4]))(torch.zeros(1, 0)).item() == pytest.approx(np.cos(0.4), abs=1e-6)
    with pytest.raises(CircuitError):
        TorchConnector(layout_network(circuit, list(w), [4, 2, 3]))


@pytest.mark.parametrize("backend", [None, "statevector", "statevector?shots=40000&seed=1", "aer"])
def test_a_transpiled_circuit_with_its_observables_in_the_layout_is_right(backend):
    if backend == "aer":
        pytest.importorskip("qiskit_aer")
    circuit, w = ry_circuit(2)
    network = layout_network(circuit, w, [3, 1])
    isa = network.circuit
    observables = [SparsePauliOp(label).apply_layout(isa.layout) for label in ("IZ", "ZI", "ZZ")]
    right = EstimatorQNN(circuit=isa, weight_params=w, observables=observables)
    values = TorchConnector(right, np.array([0.4, 0.6]), backend=backend)(torch.zeros(1, 0)).detach().numpy()
    first, second = np.cos(0.4), np.cos(0.6)
    np.testing.assert_allclose(values, [[first, second, first * second]], atol=0.03 if backend else 1e-6)


def test_a_circuit_in_the_layout_of_a_large_device_runs_on_the_exact_engine():
    circuit, w = ry_circuit(2)
    network = layout_network(circuit, w, [30, 17], 40)
    observables = SparsePauliOp("ZX").apply_layout(network.circuit.layout)
    right = EstimatorQNN(circuit=network.circuit, weight_params=w, observables=observables)
    layer = TorchConnector(right, np.array([0.4, 0.6]), backend="statevector")
    assert layer(torch.zeros(1, 0)).item() == pytest.approx(np.sin(0.4) * np.cos(0.6), abs=1e-6)


@pytest.mark.parametrize(
    "backend", ["statevector", "statevector?shots=40000&seed=1", "ibm:fake_manila?noise=off&seed=1"]
)
def test_measurements_at_the_end_are_left_out(backend):
    """Before transpiling too, which would drop what a measurement of Z does not see."""
    needs(backend)
    circuit, w = ry_circuit(2)
    circuit.rz(0.7, 0)
    circuit.measure_all()
    observables = [SparsePauliOp("IX"), SparsePauliOp("ZI")]
    network = EstimatorQNN(circuit=circuit, weight_params=w, observables=observables)
    values = TorchConnector(network, np.array([0.4, 0.6]), backend=backend)(torch.zeros(1, 0)).detach().numpy()
    expected = [[np.sin(0.4) * np.cos(0.7), np.cos(0.6)]]
    np.testing.assert_allclose(values, expected, atol=0.08 if "?" in backend else 1e-6)


# Gradients of inputs


@pytest.mark.parametrize("backend", [None, "statevector", "statevector?shots=100&seed=1", "aer"])
def test_nothing_flows_to_inputs_unless_the_network_says_so(backend):
    if backend == "aer":
        pytest.importorskip("qiskit_aer")
    network = mixed_network(input_gradients=False)
    for layer in (QiskitTorchConnector(network, WEIGHTS), TorchConnector(network, WEIGHTS, backend=backend)):
        before = torch.nn.Linear(2, 2)
        x = torch.rand(3, 2, requires_grad=True)
        y = layer(before(x))
        y.sum().backward()
        assert x.grad is None and before.weight.grad is None and layer.weight.grad is not None
        with pytest.raises(RuntimeError, match="appears to not have been used in the graph"):
            torch.autograd.grad(layer(x).sum(), x)
        layer.weight.requires_grad_(False)  # nothing to differentiate, and no error either
        y = layer(x)
        assert y.requires_grad
        y.sum().backward()
        assert x.grad is None
        y = layer(x)
        y *= 2  # in place
        assert not layer(x.detach()).requires_grad


def test_no_circuit_is_paid_for_gradients_that_flow_nowhere():
    jobs = []
    for to_inputs in (True, False):
        backend = get_backend("statevector?shots=10&seed=1")
        counting = CountingEstimator(estimator=backend.estimator)
        where = type(backend)(backend.name, counting, precision=backend.precision, shots=10)
        layer = TorchConnector(mixed_network(input_gradients=to_inputs), WEIGHTS, backend=where)
        layer(torch.rand(3, 2, requires_grad=True)).sum().backward()
        layer.weight.requires_grad_(False)
        layer(torch.rand(3, 2, requires_grad=True)).sum().backward()
        jobs.append([sum(job) for job in counting.pubs])
    assert jobs == [[3, 3 * 2 * 4, 3, 3 * 2 * 3], [3, 3 * 2 * 3, 3]]  # one of four angles has no weight, one no input


# Equal rows


@pytest.mark.parametrize("backend", SAMPLING)
def test_equal_rows_share_a_sample_unless_dedupe_is_off(backend):
    needs(backend)
    rows = torch.tensor([[0.9, 2.0]]).expand(4, 2)
    layer = TorchConnector(mixed_network(), WEIGHTS)
    for text in (backend, f"{backend}&dedupe=on"):
        values = layer.to_backend(text)(rows)
        assert (values == values[0]).all()
    x = rows.clone().requires_grad_()
    values = layer.to_backend(f"{backend}&dedupe=off")(x)
    assert len(values.unique(dim=0)) > 1
    values.sum().backward()
    assert len(x.grad.unique(dim=0)) > 1
    assert layer.backend.dedupe is False


@pytest.mark.parametrize("dedupe", ["on", "off"])
def test_a_row_costs_its_own_circuits_where_dedupe_is_off(dedupe):
    backend = get_backend(f"statevector?shots=10&seed=1&dedupe={dedupe}")
    counting = CountingEstimator(estimator=backend.estimator)
    where = type(backend)(
        backend.name, counting, precision=backend.precision, shots=10, dedupe=backend.dedupe, max_pub_size=3
    )
    layer = TorchConnector(mixed_network(), WEIGHTS, backend=where)
    layer(torch.zeros(4, 2)).sum().backward()
    rows = 4 if dedupe == "off" else 1
    assert [sum(job) for job in counting.pubs] == [rows, rows * 2 * 3]


def test_a_circuit_without_parameters_is_sampled_for_each_row_too():
    circuit = QuantumCircuit(1)
    circuit.h(0)
    layer = TorchConnector(EstimatorQNN(circuit=circuit), backend="statevector?shots=1000&seed=1&dedupe=off")
    assert len(layer(torch.zeros(4, 0)).unique()) > 1
    assert len(layer.to_backend("statevector?shots=1000&seed=1")(torch.zeros(4, 0)).unique()) == 1


@pytest.mark.parametrize(
    "text", ["statevector?dedupe=off", "density_matrix?dedupe=on", "aer?dedupe=off", "braket:local?dedupe=off"]
)
def test_exact_backends_have_nothing_to_sample_apart(text):
    needs(text)
    with pytest.raises(ConfigError, match="dedupe is for sampled values"):
        get_backend(text)
    with pytest.raises(UnknownNameError, match="Known: off, on"):
        get_backend("statevector?shots=9&dedupe=no")


# AttentionCircuit.from_circuit


def test_a_circuit_of_someones_own_is_an_attention_circuit():
    circuit, x, w = mixed_circuit()
    own = AttentionCircuit.from_circuit(circuit, ["IZ", OBSERVABLES[1]], [x[1], x[0]], [w[2], w[0], w[1]])
    assert own.circuit is circuit and own.input_params == (x[1], x[0]) and own.weight_params == (w[2], w[0], w[1])
    assert own.observables == tuple(OBSERVABLES) and own.encoding.num_features == 2
    report = own.shots(0.1)  # of variances of 1, and of 1² + 0.5² in two bases
    assert (report.num_observables, report.shots, len(report.bases)) == (2, 125, 2)
    assert "measure" in str(own.draw())
    values = own.qnn().forward([[0.3, -1.2]], WEIGHTS)
    np.testing.assert_allclose(values, exact_values([[-1.2, 0.3]]), atol=1e-6)


def test_a_head_of_someones_own_circuit_has_a_gain_for_each_observable():
    circuit, x, w = mixed_circuit()
    head = QuantumHead(AttentionCircuit.from_circuit(circuit, OBSERVABLES[1:], [x[0], x[1]], [w[2], w[0], w[1]]))
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(WEIGHTS))
        head.gain.fill_(1.0)
    rows = np.array([[0.3, -1.2], [0.9, 2.0]])
    for backend in ("statevector", "statevector?shots=40000&seed=1"):
        values = head.to_backend(backend)(torch.tensor(rows, dtype=torch.float32)).detach().numpy()
        np.testing.assert_allclose(values, exact_values(rows)[:, 1:], atol=0.03 if "?" in backend else 1e-6)


@pytest.mark.parametrize(
    ("inputs", "weights", "observables", "message"),
    [
        ([0, 1], [0, 1], ["ZZ"], r"in neither: \['w\[2\]'\], more than once: \[\]"),
        ([0, 0, 1], [0, 1, 2], ["ZZ"], r"more than once: \['x\[0\]'\]"),
        ([0, 1], [0, 1, 2], [], "at least one"),
        ([0, 1], [0, 1, 2], ["ZZZ"], "strings of 2 letters"),
    ],
)
def test_a_circuit_that_does_not_fit_is_refused(inputs, weights, observables, message):
    circuit, x, w = mixed_circuit()
    with pytest.raises(CircuitError, match=message):
        AttentionCircuit.from_circuit(circuit, observables, [x[i] for i in inputs], [w[i] for i in weights])


# Files


def test_a_saved_network_comes_back(tmp_path, recwarn):
    layer = TorchConnector(mixed_network(), WEIGHTS).double()
    with torch.no_grad():
        layer.weight.add_(1e-12)  # which float32 does not hold
    layer.save_pretrained(tmp_path / "a" / "network")
    assert sorted(path.name for path in (tmp_path / "a" / "network").iterdir()) == [
        "model.safetensors",
        "network.json",
        "network.qpy",
    ]
    loaded = TorchConnector.from_pretrained(tmp_path / "a" / "network")
    x = torch.rand(3, 2, dtype=torch.float64)
    assert loaded.weight.dtype == torch.float64 and torch.equal(loaded.weight, layer.weight)
    torch.testing.assert_close(loaded(x), layer(x))
    assert loaded.neural_network.input_gradients is True
    elsewhere = TorchConnector.from_pretrained(tmp_path / "a" / "network", backend="statevector?shots=9&seed=1")
    assert elsewhere.backend.shots == 9
    assert not recwarn.list


def test_weights_of_another_network_are_refused(tmp_path):
    TorchConnector(mixed_network(), WEIGHTS).save_pretrained(tmp_path)
    save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"has weights of shape \(2,\), but the network has 3"):
        TorchConnector.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"none")
    with pytest.raises(CheckpointError, match=r"model\.safetensors in .* cannot be read"):
        TorchConnector.from_pretrained(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        TorchConnector(mixed_network()).save_pretrained(tmp_path / "file")
    with pytest.raises(ConfigError, match="got a SamplerQNN"):
        TorchConnector(sampler_network()).save_pretrained(tmp_path)
