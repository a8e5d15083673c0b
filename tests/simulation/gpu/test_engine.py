"""The exact engine gives the same values and gradients by kernels as by torch's operations."""

from __future__ import annotations

import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.quantum_info import SparsePauliOp
from torch._dynamo.testing import CompileCounter

import qiskit_qattn as qa
from qiskit_qattn.simulation import gpu
from qiskit_qattn.simulation.statevector import StatevectorProgram


def rotations(n, gate="ry", observables=("ZZ", "XI", "YY")):
    x, w = ParameterVector("x", n), ParameterVector("w", 2 * n)
    circuit = QuantumCircuit(n)
    for q in range(n):
        getattr(circuit, gate)(x[q], q)
        circuit.ry(w[q], q)
    for q in range(n - 1):
        circuit.cx(q, q + 1)
    for q in range(n):
        circuit.ry(w[n + q], q)
    operators = [SparsePauliOp(label + "I" * (n - 2)) for label in observables]
    return StatevectorProgram(circuit, operators, input_params=list(x), weight_params=list(w))


def products():
    x, w = ParameterVector("x", 2), ParameterVector("w", 2)
    circuit = QuantumCircuit(2)
    circuit.h([0, 1])
    circuit.rz(x[0] * x[1] - 0.4, 0)
    circuit.rzz(x[0].sin(), 0, 1)
    for q in range(2):
        circuit.ry(w[q], q)
    return StatevectorProgram(circuit, [SparsePauliOp("ZZ")], input_params=list(x), weight_params=list(w))


def mixed():
    x, w = ParameterVector("x", 2), ParameterVector("w", 2)
    circuit = QuantumCircuit(2)
    for q in range(2):
        circuit.rx(x[q] * w[q] + 0.3, q)
    circuit.cx(0, 1)
    return StatevectorProgram(circuit, [SparsePauliOp("ZY")], input_params=list(x), weight_params=list(w))


def vectors():
    circuit = qa.attention_circuit("qisa", num_qubits=3)
    return StatevectorProgram(
        circuit.ansatz, circuit.observables, weight_params=circuit.weight_params, input_kind="amplitude"
    )


PROGRAMS = {
    "vectors": vectors,
    "real": lambda: rotations(3, "ry", ["ZZ", "XI"]),
    "real parts by cosines": lambda: rotations(3, "rx", ["ZZ", "XI"]),
    "complex": lambda: rotations(4, "rx"),
    "functions and products": products,
    "angles of data and weights": mixed,
}


def draw(program, rng, device, *heads):
    inputs = torch.from_numpy(rng.normal(size=(*heads, 9, program.num_inputs))).float().to(device)
    weights = torch.from_numpy(rng.normal(size=(*heads, program.num_weights))).float().to(device)
    return inputs.requires_grad_(), weights.requires_grad_()


def derived(program, inputs, weights):
    values = program(inputs, weights)
    return values, *torch.autograd.grad(values.square().sum(), (inputs, weights))


@pytest.fixture
def in_torch(monkeypatch):
    """Return a function that does without kernels."""

    def compute(function, *args):
        with monkeypatch.context() as patch:
            patch.setattr(gpu, "DEVICES", ())
            return function(*args)

    return compute


@pytest.mark.parametrize("heads", [(), (2,)], ids=str)
@pytest.mark.parametrize("name", PROGRAMS)
def test_values_and_gradients(name, heads, device, in_torch, rng):
    program = PROGRAMS[name]().to(device)
    inputs, weights = draw(program, rng, device, *heads)
    found = derived(program, inputs, weights)
    assert "qiskit_qattn_expectations" in found[0].grad_fn.name()
    exact = (each.detach().double().requires_grad_() for each in (inputs, weights))
    for mine, expected in zip(found, in_torch(derived, program.double(), *exact), strict=True):
        torch.testing.assert_close(
            mine.double(), expected, rtol=0, atol=1e-6 * max(1, float(expected.detach().abs().max()))
        )


def test_without_gradients_and_with_fused_unitaries(device, in_torch, rng):
    for make in (vectors, lambda: rotations(3)):
        program = make().to(device)
        inputs, weights = draw(program, rng, device, 2)
        with torch.no_grad():
            signs = program.scaled_signs(torch.ones(2, program.num_outputs, device=device) * 3)
            found = program(inputs, weights, program.fused(weights), signs)
            expected = 3 * in_torch(program, inputs, weights)
        torch.testing.assert_close(found, expected, rtol=0, atol=3e-6)


def test_autocast_reads_half_precision_and_computes_in_float32(device, rng):
    program = vectors().to(device)
    inputs, weights = draw(program, rng, device)
    half = inputs.detach().bfloat16().requires_grad_()
    with torch.autocast(device, torch.bfloat16):
        values = program(half, weights)
    torch.testing.assert_close(values, program(half.float(), weights), rtol=0, atol=1e-6)
    assert values.dtype == torch.float32
    assert torch.autograd.grad(values.sum(), half)[0].dtype == torch.bfloat16


def test_float64_and_many_features_use_torch(device, rng):
    program = vectors().to(device).double()
    inputs, weights = draw(program, rng, device)
    double = program(inputs.double(), weights.double())
    assert double.dtype == torch.float64
    limit = gpu.LARGEST_FEATURES
    signs = torch.ones(2, 1, device=device)
    assert gpu.takes(inputs, signs, limit) and not gpu.takes(inputs, signs, limit + 1)
    assert not gpu.takes(inputs, signs.double(), limit)
    assert not gpu.takes(inputs.to("meta"), signs, limit)


@pytest.mark.parametrize("name", ["vectors", "complex"])
def test_compiled_whole(name, device, rng):
    program = PROGRAMS[name]().to(device)
    inputs, weights = draw(program, rng, device)
    expected = derived(program, inputs, weights)
    compiled = torch.compile(program, fullgraph=True, backend="aot_eager")
    for mine, exact in zip(derived(compiled, inputs, weights), expected, strict=True):
        torch.testing.assert_close(mine, exact, rtol=0, atol=1e-5)
    counter = CompileCounter()
    torch.compile(program, fullgraph=True, backend=counter)(inputs, weights)
    assert counter.frame_count == 1


def test_a_gpt_trains(device, in_torch):
    config = qa.GPTConfig(
        vocab_size=7, block_size=6, n_layer=1, n_head=3, n_embd=12, num_qubits=2, heads="qisa:1,angle:1,classical:1"
    )
    model = qa.GPT(config).to(device)
    tokens = torch.arange(12, device=device).reshape(2, 6) % 7

    def gradients():
        loss = model(tokens, tokens)[1]
        return loss, *torch.autograd.grad(loss, list(model.parameters()))

    for mine, expected in zip(gradients(), in_torch(gradients), strict=True):
        torch.testing.assert_close(mine, expected, rtol=0, atol=1e-5)


def test_transforms_of_torch_func(device, rng):
    program = vectors().to(device)
    inputs, weights = (each.detach() for each in draw(program, rng, device))
    slopes = torch.func.grad(lambda x: program(x, weights).sum())(inputs)
    leaf = inputs.clone().requires_grad_()
    torch.testing.assert_close(slopes, torch.autograd.grad(program(leaf, weights).sum(), leaf)[0], rtol=0, atol=1e-5)
