"""Sums of transfer matrices equal the steps one after the other."""

from __future__ import annotations

import pytest
import torch
from qiskit.circuit import ParameterVector, QuantumCircuit
from qiskit.quantum_info import SparsePauliOp

from qiskit_qattn.simulation.density_matrix import DensityMatrixProgram
from qiskit_qattn.simulation.noise import DeviceNoise
from qiskit_qattn.simulation.transfer import PauliRotation, transfer_steps
from qiskit_qattn.simulation.transfer_sums import TransferSums

aer_noise = pytest.importorskip("qiskit_aer.noise")


def noise() -> DeviceNoise:
    model = aer_noise.NoiseModel()
    one = aer_noise.depolarizing_error(0.01, 1).compose(aer_noise.amplitude_damping_error(0.03))
    model.add_all_qubit_quantum_error(one, ["rx", "ry", "rz", "h"])
    model.add_all_qubit_quantum_error(aer_noise.depolarizing_error(0.05, 2), ["cx"])
    return DeviceNoise(model)


def circuit_of(num_qubits: int, layers: int) -> tuple[QuantumCircuit, list, list]:
    """Return data in the first layer and once more behind weights, and angles of both."""
    x, w = ParameterVector("x", num_qubits), ParameterVector("w", layers * num_qubits)
    circuit = QuantumCircuit(num_qubits)
    for q in range(num_qubits):
        circuit.rx(2 * x[q] + 0.1, q)
    for k, weight in enumerate(w):
        q = k % num_qubits
        getattr(circuit, ("ry", "rx", "rz")[k % 3])(weight, q)
        if num_qubits > 1:
            circuit.cx(q, (q + 1) % num_qubits)
    circuit.rz(x[0] * w[0], 0)
    for k, weight in enumerate(w):
        circuit.ry(weight - 0.5 * w[0], k % num_qubits)
        circuit.h(k % num_qubits)
    return circuit, list(x), list(w)


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("num_qubits", [1, 2, 3, 4])
def test_rows_are_those_of_the_steps(num_qubits, transpose, rng):
    circuit, x, w = circuit_of(num_qubits, 1)
    steps = transfer_steps(circuit, noise())
    params = torch.tensor(rng.normal(size=(3, len(x) + len(w))))
    rows = torch.tensor(rng.normal(size=(3, 4**num_qubits)))
    found = TransferSums(steps, [*x, *w], num_qubits, transpose=transpose).double()(rows, params)
    values = [dict(zip([*x, *w], row, strict=True)) for row in params.tolist()]
    for step in reversed(steps) if transpose else steps:
        module, waves = step.module(num_qubits).double(), ()
        if isinstance(step, PauliRotation):
            bound = [{p: v for p, v in each.items() if p in step.angle.parameters} for each in values]
            angles = torch.tensor([float(step.angle.bind(each)) for each in bound], dtype=torch.float64)
            waves = torch.cos(angles), torch.sin(angles)
        rows = (module.transpose if transpose else module)(rows, *waves)
    torch.testing.assert_close(found, rows, rtol=0, atol=1e-12)


def program_of(num_qubits: int, layers: int) -> DensityMatrixProgram:
    circuit, x, w = circuit_of(num_qubits, layers)
    observables = [SparsePauliOp("Z" * num_qubits), SparsePauliOp("X" * num_qubits)]
    return DensityMatrixProgram(circuit, observables, input_params=x, weight_params=w, noise=noise(), all_outcomes=True)


@pytest.mark.parametrize("num_qubits", [1, 2, 3, 4, 5])
def test_values_and_gradients_with_few_calls_are_those_of_steps(num_qubits, rng):
    program = program_of(num_qubits, 2)
    x = torch.tensor(rng.uniform(-20, 20, (2, 5, num_qubits)), dtype=torch.float32, requires_grad=True)
    weights = torch.tensor(rng.uniform(-20, 20, (2, 2 * num_qubits)), dtype=torch.float32, requires_grad=True)
    found = []
    for dtype in (torch.float32, None):
        program.form_in(dtype)
        values = program(x, weights)
        found.append(
            (values, *torch.autograd.grad(values.square().sum(), (x, weights)), program.probabilities(x, weights))
        )
    for ours, theirs in zip(*found, strict=True):
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=5e-6)
    assert float((found[0][0] - found[1][0]).detach().abs().max()) <= 1e-6


def test_circuits_without_angles_of_one_kind_are_sums_too(rng):
    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.cx(0, 1)
    (w,) = ParameterVector("w", 1)
    observables = [SparsePauliOp("ZZ"), SparsePauliOp("XX")]
    bell = DensityMatrixProgram(circuit, observables, noise=noise())
    circuit.rx(w, 0)
    turned = DensityMatrixProgram(circuit, observables, weight_params=[w], noise=noise())
    for program, weights in ((bell, torch.zeros(0)), (turned, torch.tensor([0.7]))):
        before = program(torch.zeros(3, 0), weights)
        program.form_in(torch.float32)
        torch.testing.assert_close(program(torch.zeros(3, 0), weights), before, rtol=0, atol=1e-6)


def test_autocast_leaves_the_noisy_engine_in_float32(rng):
    program, weights = program_of(2, 1), torch.tensor(rng.normal(size=2), dtype=torch.float32)
    x = torch.tensor(rng.normal(size=(4, 2)), dtype=torch.float32)
    before = program(x, weights)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(program(x, weights), before)
    program.form_in(torch.float32)
    before = program(x, weights)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(program(x, weights), before)
