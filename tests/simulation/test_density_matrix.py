"""The noisy engine equals Aer's density-matrix simulation, in values and gradients."""

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit, transpile
from qiskit.circuit.library import real_amplitudes
from qiskit.quantum_info import SparsePauliOp
from qiskit.transpiler import generate_preset_pass_manager

from qiskit_qattn.errors import CircuitError
from qiskit_qattn.library.attention_circuit import AttentionCircuit
from qiskit_qattn.library.catalog import attention_circuit, list_circuits
from qiskit_qattn.simulation.density_matrix import DensityMatrixProgram, NoisyEngine
from qiskit_qattn.simulation.estimator import TorchEstimator
from qiskit_qattn.simulation.noise import DeviceNoise
from qiskit_qattn.simulation.statevector import StatevectorProgram

aer_noise = pytest.importorskip("qiskit_aer.noise")


def strong_noise():
    """Errors by gate and by qubits, of unitary and of dissipative kinds."""
    model = aer_noise.NoiseModel()
    one = aer_noise.depolarizing_error(0.01, 1).compose(aer_noise.amplitude_damping_error(0.03))
    model.add_all_qubit_quantum_error(one, ["rx", "ry", "rz", "h", "p"])
    model.add_quantum_error(aer_noise.depolarizing_error(0.05, 2), ["cx"], [0, 1])
    model.add_quantum_error(aer_noise.depolarizing_error(0.2, 2), ["cx"], [1, 0])
    relaxed = aer_noise.thermal_relaxation_error(50, 30, 5)
    model.add_quantum_error(relaxed.tensor(aer_noise.phase_damping_error(0.1)), ["cx"], [1, 2])
    return model


def params_of(circuit):
    return {"input_params": circuit.input_params, "weight_params": circuit.weight_params}


def program_of(circuit, **options):
    return DensityMatrixProgram(circuit.circuit, circuit.observables, **params_of(circuit), **options).double()


def draw(circuit, rng, batch=3):
    inputs = torch.from_numpy(rng.normal(size=(batch, len(circuit.input_params))))
    return inputs, torch.from_numpy(rng.normal(size=len(circuit.weight_params)))


def by_aer(circuit, inputs, weights, model):
    from qiskit_aer.primitives import EstimatorV2

    options = {"default_precision": 0.0, "backend_options": {"method": "density_matrix", "noise_model": model}}
    values = np.concatenate([inputs.numpy(), np.tile(weights.numpy(), (len(inputs), 1))], 1)
    params = (*circuit.input_params, *circuit.weight_params)
    pub = (circuit.circuit, [[op] for op in circuit.observables], {params: values})
    return EstimatorV2(options=options).run([pub]).result()[0].data.evs.T


def built(name, num_qubits, num_observables):
    """Return a circuit of the catalog; ``compound`` has two qubits at least, and few observables."""
    if name == "compound":
        return attention_circuit(name, max(num_qubits, 2))
    return attention_circuit(name, num_qubits, num_observables=num_observables)


@pytest.mark.parametrize("name", list_circuits())
@pytest.mark.parametrize("num_qubits", [1, 2, 3, 4])
def test_noisy_values_equal_aers(name, num_qubits, rng):
    circuit = built(name, num_qubits, min(2 * num_qubits, 2))
    if name == "quixer":  # Aer has no controlled RX
        plain = transpile(circuit.circuit, basis_gates=["rx", "ry", "rz", "cx"], optimization_level=0)
        circuit = AttentionCircuit.from_circuit(plain, circuit.observables, circuit.input_params, circuit.weight_params)
    inputs, weights = draw(circuit, rng)
    model = strong_noise()
    ours = program_of(circuit, noise=DeviceNoise(model))(inputs, weights)
    np.testing.assert_allclose(ours, by_aer(circuit, inputs, weights, model), atol=1e-12)


@pytest.mark.parametrize("name", ["qisa", "zz"])
def test_five_qubits_use_local_matrices(name, rng):
    circuit = attention_circuit(name, 5)
    inputs, weights = draw(circuit, rng, batch=2)
    model = strong_noise()
    ours = program_of(circuit, noise=DeviceNoise(model))(inputs, weights)
    np.testing.assert_allclose(ours, by_aer(circuit, inputs, weights, model), atol=1e-12)


@pytest.mark.parametrize("name", list_circuits())
def test_without_noise_it_is_the_exact_engine(name, rng):
    circuit = built(name, 3, 6)
    inputs, weights = draw(circuit, rng)
    exact = StatevectorProgram(circuit.circuit, circuit.observables, **params_of(circuit)).double()
    torch.testing.assert_close(program_of(circuit)(inputs, weights), exact(inputs, weights), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", list_circuits())
def test_gradcheck(name, rng):
    circuit = attention_circuit(name, 2)
    inputs, weights = draw(circuit, rng, batch=2)
    program = program_of(circuit, noise=DeviceNoise(strong_noise()))
    assert torch.autograd.gradcheck(program, (inputs.requires_grad_(), weights.requires_grad_()))


def test_stacked_heads_equal_one_by_one(rng):
    circuit = attention_circuit("qisa", 2)
    program = program_of(circuit, noise=DeviceNoise(strong_noise()))
    inputs = torch.from_numpy(rng.normal(size=(4, 3, 3)))
    weights = torch.from_numpy(rng.normal(size=(4, 6)))
    together = program(inputs, weights)
    for h in range(4):
        torch.testing.assert_close(together[h], program(inputs[h], weights[h]))


def test_readout_error_is_in_the_values(rng):
    """Against outcome probabilities, flipped by hand."""
    model = strong_noise()
    flips = {0: [[0.9, 0.1], [0.2, 0.8]], 1: [[0.97, 0.03], [0.05, 0.95]]}
    for qubit, matrix in flips.items():
        model.add_readout_error(matrix, [qubit])
    circuit = attention_circuit("zz", 2, observables=["IZ", "ZI", "ZZ"])
    inputs, weights = draw(circuit, rng, batch=1)
    read = program_of(circuit, noise=DeviceNoise(model))(inputs, weights)[0]
    perfect = program_of(circuit, noise=DeviceNoise(model, readout=False))(inputs, weights)[0]
    z0, z1, zz = perfect.tolist()
    true = np.array([[1 + z0 + z1 + zz, 1 - z0 + z1 - zz], [1 + z0 - z1 - zz, 1 - z0 - z1 + zz]]) / 4  # [bit 1, bit 0]
    seen = np.array(flips[1]).T @ true @ np.array(flips[0])
    sign = np.array([1, -1])
    expected = [sign @ seen.sum(0), sign @ seen.sum(1), sign @ seen @ sign]
    np.testing.assert_allclose(read, expected, atol=1e-12)


def test_devices_circuits_are_transpiled_and_cut_to_the_qubits_in_use(rng):
    fake = pytest.importorskip("qiskit_ibm_runtime.fake_provider").FakeManilaV2()
    from qiskit_aer import AerSimulator

    model = aer_noise.NoiseModel.from_backend(fake)
    pass_manager = generate_preset_pass_manager(1, backend=fake, seed_transpiler=0)
    circuit = attention_circuit("qisa", 3, observables=["ZIZ", "XIY", "IZI"])
    inputs, weights = draw(circuit, rng, batch=2)
    engine = NoisyEngine(model, pass_manager, readout=False)
    program = engine(circuit.circuit, circuit.observables, **params_of(circuit)).double()
    isa = pass_manager.run(circuit.circuit)
    simulator = AerSimulator(method="density_matrix", noise_model=model)
    for row, values in zip(inputs.numpy(), program(inputs, weights), strict=True):
        bound = isa.assign_parameters(
            dict(zip(circuit.input_params, row, strict=True))
            | dict(zip(circuit.weight_params, weights.numpy(), strict=True))
        )
        bound.save_density_matrix()
        rho = simulator.run(transpile(bound, simulator, optimization_level=0)).result().data()["density_matrix"]
        expected = [rho.expectation_value(op.apply_layout(isa.layout)).real for op in circuit.observables]
        np.testing.assert_allclose(values, expected, atol=1e-10)


def test_sampling_under_noise_has_the_noisy_mean(rng):
    engine = NoisyEngine(strong_noise())
    circuit = real_amplitudes(2, reps=1).decompose()
    values = np.tile(rng.normal(size=4), (300, 1))
    observables = [[SparsePauliOp("ZX")], [SparsePauliOp("IZ")], [SparsePauliOp("YY")]]
    exact = TorchEstimator(engine).run([(circuit, observables, values)]).result()[0].data.evs
    sampled = TorchEstimator(engine, seed=2).run([(circuit, observables, values)], precision=0.05).result()[0].data.evs
    assert not np.allclose(
        exact, TorchEstimator().run([(circuit, observables, values)]).result()[0].data.evs, atol=1e-3
    )
    np.testing.assert_allclose(sampled.mean(1), exact[:, 0], atol=5 * 0.05 / np.sqrt(300))


def test_what_cannot_be_simulated_is_an_error():
    with pytest.raises(CircuitError, match="at most 6 qubits, got 7"):
        DensityMatrixProgram(QuantumCircuit(7), [SparsePauliOp("Z" * 7)])
    with pytest.raises(CircuitError, match="must match"):
        DensityMatrixProgram(QuantumCircuit(2), [SparsePauliOp("Z")])
    model = aer_noise.NoiseModel()
    model.add_readout_error(np.full((4, 4), 0.25), [0, 1])
    with pytest.raises(CircuitError, match="correlated"):
        DensityMatrixProgram(QuantumCircuit(2), [SparsePauliOp("ZZ")], noise=DeviceNoise(model))
