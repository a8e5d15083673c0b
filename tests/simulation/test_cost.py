"""Whichever way is chosen, values and gradients are the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.quantum_info import SparsePauliOp, Statevector

from qiskit_qattn import StatevectorProgram
from qiskit_qattn.errors import ConfigError
from qiskit_qattn.simulation import cost


def build(num_qubits: int, num_inputs: int) -> tuple[QuantumCircuit, dict]:
    """Return a circuit whose inputs enter once, by RX on the first qubits, and rings of RY and CX after them."""
    x, w = ParameterVector("x", num_inputs), ParameterVector("w", num_qubits)
    circuit = QuantumCircuit(num_qubits)
    for q in range(num_inputs):
        circuit.rx(x[q], q)
    for q in range(num_qubits):
        circuit.ry(w[q], q)
    for q in range(num_qubits):
        circuit.cx(q, (q + 1) % num_qubits)
    return circuit, {"input_params": list(x), "weight_params": list(w)}


def observables(num_qubits: int) -> list[SparsePauliOp]:
    labels = ("Z" * num_qubits, "X" + "I" * (num_qubits - 1), "I" * (num_qubits - 2) + "YZ")
    return [SparsePauliOp(label) for label in labels]


@pytest.mark.parametrize(
    ("num_qubits", "num_inputs", "dense"), [(8, 8, True), (10, 2, True), (12, 1, True), (9, 9, False), (11, 11, False)]
)
def test_few_inputs_on_many_qubits_make_a_small_matrix(num_qubits, num_inputs, dense, rng):
    circuit, params = build(num_qubits, num_inputs)
    program = StatevectorProgram(circuit, observables(num_qubits), **params).double()
    assert program.dense == dense
    inputs, weights = rng.normal(size=(3, num_inputs)), rng.normal(size=num_qubits)
    with torch.no_grad():
        values = program(torch.tensor(inputs), torch.tensor(weights))
    for row, found in zip(inputs, values, strict=True):
        bound = circuit.assign_parameters(
            dict(zip([*params["input_params"], *params["weight_params"]], [*row, *weights], strict=True))
        )
        state = Statevector(bound)
        expected = [state.expectation_value(o).real for o in observables(num_qubits)]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.fixture
def default_costs():
    yield
    cost.use(cost.Costs())


def test_another_table_of_costs_changes_the_choice_and_no_value(default_costs, rng):
    circuit, params = build(9, 9)
    inputs, weights = torch.tensor(rng.normal(size=(4, 9))), torch.tensor(rng.normal(size=9))
    found = []
    for table in (cost.Costs(), cost.Costs(dense_qubits=9, gate=9.0), cost.Costs(dense_qubits=7)):
        cost.use(table)
        program = StatevectorProgram(circuit, observables(9), **params).double()
        assert program.dense == (table.dense_qubits == 9)
        found.append(program(inputs, weights))
    for values in found[1:]:
        torch.testing.assert_close(values, found[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("wrong", [{"gate": 0.0}, {"phase": float("nan")}, {"dense_qubits": 13}])
def test_costs_that_cannot_be(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        cost.Costs(**wrong)


@pytest.mark.parametrize(("num_qubits", "num_inputs", "effective"), [(8, 2, 12), (9, 0, 3), (8, 8, None), (5, 1, None)])
def test_observables_between_few_features_replace_amplitudes(num_qubits, num_inputs, effective, rng):
    circuit, params = build(num_qubits, num_inputs)
    program = StatevectorProgram(circuit, observables(num_qubits), **params)
    assert program.effective == effective
    assert ("effective observables" in program.summary()) == (effective is not None)
    inputs, weights = rng.normal(size=(12, num_inputs)), rng.normal(size=num_qubits)
    found = program(torch.tensor(inputs).float(), torch.tensor(weights).float())
    state = Statevector(circuit.assign_parameters([*weights, *inputs[-1]]))
    expected = [state.expectation_value(o).real for o in observables(num_qubits)]
    np.testing.assert_allclose(found[-1], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("rows", [16, 2048])  # by compiled loops, and by torch
@pytest.mark.parametrize("num_qubits", [9, 12])
def test_sums_over_thousands_of_equal_terms(num_qubits, rows, rng):
    x, w = ParameterVector("x", 1), ParameterVector("w", 1)
    circuit = QuantumCircuit(num_qubits)  # the other qubits stay in |0>: all their outcomes of X are equally probable
    circuit.ry(x[0], 0)
    circuit.rx(w[0], 0)
    several = [SparsePauliOp.from_sparse_list([("X", [q], 1.0)], num_qubits) for q in range(num_qubits)]
    program = StatevectorProgram(circuit, several, input_params=list(x), weight_params=list(w))
    assert program.dense
    program.effective, program.fewest_rows = None, 0
    inputs, weights = torch.tensor(rng.normal(size=(rows, 1))), torch.tensor(rng.normal(size=1)).requires_grad_()
    found = program(inputs, weights).double()
    torch.testing.assert_close(found, program.double()(inputs, weights), rtol=0, atol=1e-6)


@pytest.mark.parametrize("rows", [1, 64])
@pytest.mark.parametrize("num_qubits", [9, 12])
def test_sums_over_thousands_of_equal_terms_without_data(num_qubits, rows, rng):
    w = ParameterVector("w", 2)
    circuit = QuantumCircuit(num_qubits)
    for q in range(2):
        circuit.ry(w[q], q)
    circuit.cx(0, 1)
    several = [SparsePauliOp.from_sparse_list([("X", [q], 1.0)], num_qubits) for q in range(num_qubits)]
    program = StatevectorProgram(circuit, several, weight_params=list(w))
    assert program.dense
    program.effective = None
    nothing, weights = torch.zeros(rows, 0), torch.tensor(rng.normal(size=2))
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            found = program.float()(nothing, weights).double()
            torch.testing.assert_close(found, program.double()(nothing, weights), rtol=0, atol=1e-6)


def test_effective_observables_have_the_gradients_of_amplitudes(rng):
    circuit, params = build(8, 2)
    program = StatevectorProgram(circuit, observables(8), **params).double()
    inputs = torch.tensor(rng.normal(size=(2, 2)), requires_grad=True)
    weights = torch.tensor(rng.normal(size=8), requires_grad=True)
    found = []
    for least in (0, None):
        program.fewest_rows, program.effective = 0, least
        found.append(torch.autograd.grad(program(inputs, weights).square().sum(), [inputs, weights]))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-12)
    program.effective = 0
    assert torch.autograd.gradcheck(program, (inputs, weights), fast_mode=True)
    assert torch.autograd.gradgradcheck(program, (inputs, weights), fast_mode=True)


@pytest.mark.parametrize(("num_qubits", "num_inputs"), [(6, 6), (7, 7), (8, 8), (10, 4)])
def test_few_rows_go_gate_by_gate_and_many_through_the_matrix(num_qubits, num_inputs, rng):
    circuit, params = build(num_qubits, num_inputs)
    program = StatevectorProgram(circuit, observables(num_qubits), **params).double()
    assert 1 < program.fewest_rows < 2**20
    inputs = torch.tensor(rng.normal(size=(2, num_inputs)), requires_grad=True)
    weights = torch.tensor(rng.normal(size=num_qubits), requires_grad=True)
    found = []
    for least in (0, 3):  # always the matrix, always gates
        program.fewest_rows = least
        values = program(inputs, weights)
        found.append((values.detach(), *torch.autograd.grad(values.square().sum(), (inputs, weights))))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_larger_circuits_need_more_rows():
    fewest = []
    for num_qubits in (6, 7, 8):
        circuit, params = build(num_qubits, num_qubits)
        fewest.append(StatevectorProgram(circuit, observables(num_qubits), **params).fewest_rows)
    assert fewest == sorted(fewest)


@pytest.mark.parametrize(
    ("encoding", "ansatz", "parts"),
    [
        ("rx", "ry", "split"),  # cosines give real parts, sines imaginary ones
        ("ry", "ry", "real"),
        ("rx", "rz", "complex"),
        ("none", "ry", "real"),
    ],
)
@pytest.mark.parametrize("num_qubits", [3, 6])  # trigonometric sums, and the adjoint method
def test_parts_that_are_zero_are_left_out(encoding, ansatz, parts, num_qubits, rng):
    x, w = ParameterVector("x", num_qubits), ParameterVector("w", num_qubits)
    circuit = QuantumCircuit(num_qubits)
    for q in range(num_qubits):
        if encoding != "none":
            getattr(circuit, encoding)(x[q], q)
    circuit.h(0)
    for q in range(num_qubits):
        getattr(circuit, ansatz)(w[q], q)
        circuit.cx(q, (q + 1) % num_qubits)
    circuit.h(range(num_qubits))
    inputs = list(x) if encoding != "none" else []
    ops = [SparsePauliOp("Z" * num_qubits), SparsePauliOp("X" + "I" * (num_qubits - 1))]
    program = StatevectorProgram(circuit, ops, input_params=inputs, weight_params=list(w)).double()
    program.fewest_rows = 0
    assert (program.unitaries.real, program.unitaries.split) == (parts != "complex", parts == "split")
    rows, theta = torch.tensor(rng.normal(size=(3, len(inputs)))), torch.tensor(rng.normal(size=num_qubits))
    rows.requires_grad_(bool(inputs)), theta.requires_grad_()
    values = program(rows, theta)
    for row, found in zip(rows.detach().numpy(), values.detach(), strict=True):
        names = dict(zip([*inputs, *w], [*row, *theta.detach().numpy()], strict=True))
        state = Statevector(circuit.assign_parameters(names))
        np.testing.assert_allclose(found, [state.expectation_value(o).real for o in ops], rtol=0, atol=1e-12)
    wanted = [rows, theta] if inputs else [theta]
    found = torch.autograd.grad(values.square().sum(), wanted)
    program.fewest_rows = 2**62  # gate by gate
    expected = torch.autograd.grad(program(rows, theta).square().sum(), wanted)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
