"""Derivatives of every order, and all of torch's ways to ask for them, agree on every engine."""

from __future__ import annotations

import copy
from functools import lru_cache, partial

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.quantum_info import SparsePauliOp
from torch.autograd import forward_ad
from torch.autograd.functional import hessian, jacobian

from qiskit_qattn.simulation.density_matrix import DensityMatrixProgram
from qiskit_qattn.simulation.statevector import StatevectorProgram

# what torch itself warns of where forward mode is used first
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
X, W = list(ParameterVector("x", 3)), list(ParameterVector("w", 4))


def circuit_of(num_qubits, *gates):
    """Return a circuit of gates given as name, angles, qubits, with entangling gates at the end."""
    circuit = QuantumCircuit(num_qubits)
    for name, *arguments in gates:
        getattr(circuit, name)(*arguments)
    for qubit in range(1, num_qubits):
        circuit.cx(qubit - 1, qubit)
        circuit.ry(0.3 * qubit, qubit)
    return circuit


def layers(num_qubits, count):
    """Return a circuit that encodes data ``count`` times between trained rotations."""
    circuit = QuantumCircuit(num_qubits)
    for layer in range(count):
        for qubit in range(num_qubits):
            circuit.ry(W[(layer + qubit) % 4] + 0.2 * qubit, qubit)
            circuit.rx(X[qubit % 3] * (1 + 0.1 * layer), qubit)
        for qubit in range(1, num_qubits):
            circuit.cx(qubit - 1, qubit)
    for qubit in range(num_qubits):
        circuit.rz(W[qubit % 4], qubit)
        circuit.ry(W[3], qubit)
    return circuit


def ansatz(num_qubits):
    """Return what follows amplitude encoding, with complex gates."""
    circuit = circuit_of(num_qubits, *[("ry", W[q % 4], q) for q in range(num_qubits)])
    circuit.rx(W[1] * W[2], 0)
    circuit.rz(W[3], 0)
    circuit.ry(W[0], 0)
    return circuit


CIRCUITS = {
    "a product of data and weight": circuit_of(1, ("rx", X[0] * W[0], 0)),
    "a sum of data and weight": circuit_of(1, ("rx", X[0] + W[0], 0), ("ry", W[1], 0)),
    "a weight before and after data": circuit_of(1, ("ry", W[0], 0), ("rx", X[0], 0), ("ry", W[0], 0)),
    "functions of parameters": circuit_of(
        2, ("rx", X[0] * X[1] * W[0], 0), ("ry", (W[1] * X[2]).sin(), 1), ("rz", W[2] * W[3], 0), ("ry", W[2].exp(), 0)
    ),
    "repeated parameters": circuit_of(
        3, *[("rx", X[0], q) for q in range(3)], *[("ry", W[0], q) for q in range(3)], ("rz", X[0] - 2 * W[0], 1)
    ),
    "two phases": layers(2, 2),
    "two phases, 4 qubits": layers(4, 2),
    "six phases": layers(3, 6),
    "one phase, 6 qubits": layers(6, 1),
    "one phase, 7 qubits": layers(7, 1),
    "two phases, 8 qubits": layers(8, 2),
    "one phase, 10 qubits": layers(10, 1),
    "no data": circuit_of(2, ("ry", W[0], 0), ("rx", W[1], 1), ("rz", W[0], 1)),
    "no weights": circuit_of(2, ("ry", X[0], 0), ("rx", X[1], 1), ("rz", X[0], 1)),
}
CASES = [
    *[("statevector", name) for name in CIRCUITS],
    *[("dense", name) for name, circuit in CIRCUITS.items() if circuit.num_qubits in (6, 7, 8)],
    *[("density_matrix", name) for name, circuit in CIRCUITS.items() if circuit.num_qubits <= 3],
    *[("amplitude", num_qubits) for num_qubits in (1, 3, 5, 6, 9)],
]
SMALL = [case for case in CASES if case[1] not in (6, 9) and "qubits" not in str(case[1])]


@lru_cache
def made(engine, name, dtype=torch.float64):
    circuit = ansatz(name) if engine == "amplitude" else CIRCUITS[name]
    size = circuit.num_qubits
    observables = [
        SparsePauliOp("Z" * size),
        SparsePauliOp(["X" + "I" * (size - 1), "I" * (size - 1) + "Y"], [1, -0.5]),
    ]
    if engine == "amplitude":
        return StatevectorProgram(circuit, observables, weight_params=W, input_kind="amplitude").to(dtype)
    kind = DensityMatrixProgram if engine == "density_matrix" else StatevectorProgram
    program = kind(circuit, observables, input_params=X, weight_params=W).to(dtype)
    if engine == "dense":  # as for many rows
        assert program.dense
        program.fewest_rows = 0
        program.effective = None if program.effective is None else 0
    return program


def draw(engine, name, rng, rows=3, dtype=torch.float64):
    """Return data and weights."""
    count = 2**name if engine == "amplitude" else len(X)
    return [torch.from_numpy(rng.uniform(0.3, 1.5, size)).to(dtype) for size in ((rows, count), len(W))]


def differences(function, at, step=1e-5):
    """Return the Jacobian of a function by central differences, shape ``(*values, len(at))``."""
    columns = []
    for unit in torch.eye(len(at), dtype=at.dtype):
        columns.append((function(at + step * unit) - function(at - step * unit)) / (2 * step))
    return torch.stack(columns, -1)


def gradient(function, at, *, create_graph=False):
    at = at.detach().requires_grad_()
    (found,) = torch.autograd.grad(function(at), at, create_graph=create_graph)
    return found.detach()


def scalar(program, data, weights, rng):
    """Return a function of all numbers of data and weights as one vector, and that vector."""
    factors = torch.from_numpy(rng.normal(size=(len(data), 2)))

    def function(flat):
        x, w = flat[: data.numel()].view_as(data), flat[data.numel() :]
        return (program(x, w) * factors).sum()

    return function, torch.cat([data.flatten(), weights])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_first_derivatives_with_and_without_a_graph(case, rng):
    function, at = scalar(made(*case), *draw(*case, rng, rows=2), rng)
    if len(at) > 40:  # a few directions tell as much
        turn = torch.from_numpy(np.linalg.qr(rng.normal(size=(len(at), 12)))[0])
        function, at = (lambda z, inner=function, base=at: inner(base + turn @ z)), torch.zeros(12, dtype=at.dtype)
    expected = differences(function, at)
    torch.testing.assert_close(gradient(function, at), expected, rtol=0, atol=1e-8)
    torch.testing.assert_close(gradient(function, at, create_graph=True), expected, rtol=0, atol=1e-8)
    second = differences(partial(gradient, function), at)
    torch.testing.assert_close(hessian(function, at), second, rtol=0, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("create_graph", [False, True])
def test_the_derivative_of_an_angle_that_mixes_data_and_weight(dtype, create_graph):
    program = made("statevector", "a product of data and weight", dtype)
    x, w = torch.full((1, 3), 0.9, dtype=dtype), torch.full((4,), 0.7, dtype=dtype, requires_grad=True)
    value = program(x, w)[0, 0]  # cos(x w)
    (found,) = torch.autograd.grad(value, w, create_graph=create_graph)
    assert found[0].item() == pytest.approx(-0.9 * np.sin(0.63), abs=1e-6)  # −0.5302


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_frozen_weights_and_data_without_gradient(case, rng):
    program, (x, w) = made(*case), draw(*case, rng)
    both = [x.clone().requires_grad_(), w.clone().requires_grad_()]
    expected = torch.autograd.grad(program(*both).square().sum(), both, materialize_grads=True)
    for place in range(2):
        pair = [x, w]
        pair[place] = pair[place].clone().requires_grad_()
        for create_graph in (False, True):
            values = program(*pair)
            if not values.requires_grad:  # the circuit does not use them
                assert not expected[place].any()
                continue
            (found,) = torch.autograd.grad(values.square().sum(), pair[place], create_graph=create_graph)
            torch.testing.assert_close(found.detach(), expected[place], rtol=0, atol=1e-12)


def test_data_that_are_a_function_of_the_weights(rng):
    program = made("statevector", "two phases")

    def function(z):
        return program(torch.stack([z[:3] * z[3], z[1:].sin()]), z).square().sum()

    at = torch.from_numpy(rng.uniform(0.3, 1.5, 4))
    expected = differences(function, at)
    torch.testing.assert_close(gradient(function, at, create_graph=True), expected, rtol=0, atol=1e-8)
    torch.testing.assert_close(hessian(function, at), differences(partial(gradient, function), at), rtol=0, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_torch_func_and_vectorised_derivatives(case, dtype, rng):
    program, (x, w) = made(*case, dtype), draw(*case, rng, dtype=dtype)
    close = partial(torch.testing.assert_close, rtol=0, atol=1e-10 if dtype == torch.float64 else 1e-4)
    of_data, of_weights = jacobian(program, (x, w))  # row by row, in plain autograd: (B, M, B, D), (B, M, P)
    values = program(x, w)
    own = torch.stack([of_data[b, :, b] for b in range(len(x))])  # (B, M, D)

    def one(row, weights):
        return program(row[None], weights)[0]

    close(torch.func.vmap(program, (None, 0))(x, w.expand(2, -1)), values.expand(2, -1, -1))
    close(torch.func.vmap(one, (0, None))(x, w), values)
    with torch.no_grad():
        close(torch.func.vmap(one, (0, None))(x, w), values)
    close(torch.func.vmap(torch.func.jacrev(one), (0, None))(x, w), own)
    close(torch.func.vmap(torch.func.jacfwd(one, 1), (0, None))(x, w), of_weights)
    close(torch.func.jacrev(program, (0, 1))(x, w), (of_data, of_weights))
    close(torch.func.jacfwd(program, 1)(x, w), of_weights)
    close(torch.func.grad(lambda v: program(x, v).sum())(w), of_weights.sum((0, 1)))
    close(torch.func.grad(lambda v: torch.func.vmap(one, (0, None))(x, v).sum())(w), of_weights.sum((0, 1)))
    close(jacobian(program, (x, w), vectorize=True), (of_data, of_weights))
    tangents = torch.ones_like(x), torch.ones_like(w)
    along = own.sum(-1) + of_weights.sum(-1)
    close(torch.func.jvp(program, (x, w), tangents), (values, along))
    with forward_ad.dual_level():
        dual = program(*(forward_ad.make_dual(*pair) for pair in zip((x, w), tangents, strict=True)))
        close(forward_ad.unpack_dual(dual).tangent, along)


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_second_derivatives_every_way(case, rng):
    function, at = scalar(made(*case), *draw(*case, rng, rows=2), rng)
    expected = hessian(function, at)
    close = partial(torch.testing.assert_close, rtol=0, atol=1e-10)
    close(torch.func.hessian(function)(at), expected)
    close(torch.func.jacrev(torch.func.grad(function))(at), expected)
    close(torch.func.vmap(torch.func.hessian(function))(at.expand(2, -1)), expected.expand(2, -1, -1))
    close(hessian(function, at, vectorize=True), expected)


@pytest.mark.parametrize("case", [CASES[3], CASES[5], ("density_matrix", "two phases"), ("amplitude", 3)], ids=str)
def test_torchs_own_checks(case, rng):
    program, tensors = made(*case), [tensor.requires_grad_() for tensor in draw(*case, rng, rows=2)]
    assert torch.autograd.gradcheck(program, tensors, check_batched_grad=True, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(program, tensors, check_batched_grad=True, check_fwd_over_rev=True)


def test_zero_vectors_in_forward_mode_and_torch_func():
    program, w = made("amplitude", 3), torch.full((4,), 0.4, dtype=torch.float64)
    x = torch.zeros(2, 8, dtype=torch.float64)
    expected = program(x, w)
    for found in (torch.func.jacfwd(program)(x, w), torch.func.jacrev(program)(x, w)):
        assert not found.any()
    torch.testing.assert_close(torch.func.vmap(program, (0, None))(x[:, None], w)[:, 0], expected)


def test_a_model_on_meta_takes_constants_from_where_the_weights_are(rng):
    """As torch's tutorial on ensembles does it."""

    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.program = copy.deepcopy(made("statevector", "two phases", torch.float32))
            self.weight = torch.nn.Parameter(torch.from_numpy(rng.uniform(size=4)).float())

        def forward(self, x):
            return self.program(x, self.weight)

    models = [Layer() for _ in range(3)]
    x, _ = draw("statevector", "two phases", rng, dtype=torch.float32)
    parameters, buffers = torch.func.stack_module_state(models)
    assert not buffers
    base = copy.deepcopy(models[0]).to("meta")
    call = torch.func.vmap(lambda p, b: torch.func.functional_call(base, (p, b), (x,)))
    torch.testing.assert_close(call(parameters, buffers), torch.stack([model(x) for model in models]))


@pytest.mark.parametrize("case", SMALL, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("rows", [1, 3])
def test_values_can_be_changed_in_place(case, dtype, rows, rng):
    program = made(*case, dtype)
    x, w = (tensor.requires_grad_() for tensor in draw(*case, rng, rows=rows, dtype=dtype))
    expected = torch.autograd.grad(
        (2 * program(x, w)).sigmoid().sum(), (x, w), materialize_grads=True, allow_unused=True
    )
    values = program(x, w)
    values *= 2
    found = torch.autograd.grad(values.sigmoid_().sum(), (x, w), materialize_grads=True, allow_unused=True)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("engine", ["statevector", "density_matrix"])
@pytest.mark.parametrize("rows", [1, 300])
def test_large_angles_in_float64_are_reduced_before_they_are_rounded(engine, rows, rng):
    for name, circuit in CIRCUITS.items():
        if circuit.num_qubits > 3:
            continue
        single, double = made(engine, name, torch.float32), made(engine, name)
        x = torch.from_numpy(1e6 + rng.uniform(size=(rows, 3))).requires_grad_()
        w = torch.full((4,), 0.5)
        values = single(x, w)
        assert values.dtype == torch.float32
        torch.testing.assert_close(values, double(x, w.double()).float(), rtol=0, atol=3e-6)
        if values.requires_grad:
            (found,) = torch.autograd.grad(values.sum(), x)
            assert found.dtype == torch.float64


def test_vectors_beyond_the_range_of_float32():
    program, w = made("amplitude", 3, torch.float32), torch.full((4,), 0.4)
    x = torch.arange(1.0, 9, dtype=torch.float64)
    expected = program(x[None], w)
    for factor in (1e-300, 1e-42, 1e42, 1e300):
        torch.testing.assert_close(program(factor * x[None], w), expected)


def test_lazily_negated_data():
    x = torch.complex(torch.zeros(2, 3), torch.full((2, 3), 0.7)).conj().imag
    program, w = made("statevector", "two phases", torch.float32), torch.full((4,), 0.4)
    assert x.is_neg()
    torch.testing.assert_close(program(x, w), program(x.clone(), w))
