"""Fused blocks of gates give the values and gradients of one gate after the other, in memory that is free of depth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import MCXGate, PauliEvolutionGate, PermutationGate, zz_feature_map
from qiskit.quantum_info import SparsePauliOp, Statevector, random_unitary
from qiskit.transpiler.preset_passmanagers import generate_preset_pass_manager

from qiskit_qattn import StatevectorProgram
from qiskit_qattn.library.catalog import attention_circuit, list_circuits
from qiskit_qattn.simulation.block_steps import FixedBlock
from qiskit_qattn.simulation.blockwise import Blockwise
from qiskit_qattn.simulation.constants import constant_bytes
from qiskit_qattn.simulation.gate_fusion import WIDTH, Cluster, fuse
from qiskit_qattn.simulation.gates import flatten
from qiskit_qattn.simulation.gatewise import Gatewise
from qiskit_qattn.simulation.plan import make_plan
from qiskit_qattn.simulation.products import squared_moduli


def layers(num_qubits: int, depth: int = 1) -> tuple[QuantumCircuit, dict]:
    """Return a circuit with every kind of step, whose data come in again in each layer."""
    x, w = ParameterVector("x", num_qubits), ParameterVector("w", 2 * num_qubits)
    circuit = QuantumCircuit(num_qubits)
    circuit.h(0)
    for layer in range(depth):
        for q in range(num_qubits):
            circuit.rx(x[q] + layer, q)
            circuit.ry(w[q], q)
        circuit.rzz(x[0] * x[1] + w[0], 0, num_qubits - 1)
        circuit.swap(0, num_qubits - 2)
        circuit.rzz(w[1], 1, 2)
        circuit.append(PermutationGate([2, 0, 1]), [1, 3, num_qubits - 1])
        circuit.mcx([0, 2], 3)
        circuit.append(random_unitary(4, seed=layer), [3, 0])
        for q in range(num_qubits):
            circuit.cx(q, (q + 1) % num_qubits)
            circuit.rz(w[num_qubits + q], q)
    return circuit, {"input_params": list(x), "weight_params": list(w)}


def observables(num_qubits: int) -> list[SparsePauliOp]:
    labels = (
        "Z" * num_qubits,
        "X" + "I" * (num_qubits - 1),
        "I" * (num_qubits - 2) + "YZ",
        "I" * (num_qubits - 1) + "Z",
    )
    return [SparsePauliOp(label) for label in labels]


def both(plan):
    """Return the expectations by blocks and by gates, in float64."""
    blocks, gates, signs = Blockwise(plan).double(), Gatewise(plan).double(), torch.tensor(plan.signs)
    return (
        lambda x, w: blocks.expectations(x, w, signs),
        lambda x, w: squared_moduli(gates.amplitudes(x, w, torch.float64)) @ signs,
    )


def agree(plan, rng, rows=3, heads=()):
    inputs = torch.tensor(rng.normal(size=(*heads, rows, plan.num_inputs)), requires_grad=True)
    weights = torch.tensor(rng.normal(size=(*heads, len(plan.weight_params))), requires_grad=True)
    found = []
    for way in both(plan):
        values = way(inputs, weights)
        slopes = torch.autograd.grad(values.square().sum(), (inputs, weights), allow_unused=True)
        with torch.no_grad():
            torch.testing.assert_close(way(inputs, weights), values, rtol=0, atol=1e-12)
        found.append((values.detach(), *slopes))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


@pytest.mark.parametrize("num_qubits", [4, 7])
@pytest.mark.parametrize("name", list_circuits())
def test_circuits_of_the_catalog(name, num_qubits, rng):
    circuit = attention_circuit(name, num_qubits)
    vectors = circuit.encoding.kind == "amplitude"
    plan = make_plan(
        circuit.ansatz if vectors else circuit.circuit,
        circuit.observables,
        input_params=() if vectors else circuit.input_params,
        weight_params=circuit.weight_params,
        input_kind="amplitude" if vectors else "parameters",
    )
    agree(plan, rng)


@pytest.mark.parametrize("heads", [(), (2,)])
@pytest.mark.parametrize("num_qubits", [5, 6, 8])
def test_every_kind_of_step(num_qubits, heads, rng):
    circuit, params = layers(num_qubits, depth=2)
    agree(make_plan(circuit, observables(num_qubits), **params), rng, heads=heads)


@pytest.mark.parametrize("num_qubits", [8, 10])
def test_operations_on_more_qubits_than_a_block(num_qubits, rng):
    circuit, params = layers(num_qubits)
    w = params["weight_params"]
    circuit.append(PauliEvolutionGate(SparsePauliOp("ZXZYZZZ"), w[2] + w[3]), [6, 0, 1, 5, 4, 3, 2])
    circuit.append(MCXGate(num_qubits - 2, ctrl_state=5), [num_qubits - 1, *range(num_qubits - 2)])
    circuit.append(random_unitary(2**6, seed=1), [5, 0, 3, 1, 7, 2])
    circuit.append(PauliEvolutionGate(SparsePauliOp("ZZZZZZZ"), 0.3), range(7))
    circuit.append(PauliEvolutionGate(SparsePauliOp("ZZZZZZZ"), params["input_params"][0]), range(1, 8))
    circuit.h(range(num_qubits))
    for only in (params, {"weight_params": [*params["input_params"], *w]}):
        plan = make_plan(circuit, observables(num_qubits), **only)
        agree(plan, rng, heads=(2,))
        blocks = Blockwise(plan)
        assert len(blocks.permutations) == 1 and largest(blocks) <= 2**6


def largest(program):
    """Return the size of the largest matrix of a program."""
    sizes = [len(b.constant("matrix")) if isinstance(b, FixedBlock) else 2**b.num_qubits for b in program.unitaries]
    return max(sizes)


def test_without_data_one_row_serves_all(rng):
    circuit, params = layers(17)
    fixed = circuit.assign_parameters(dict.fromkeys(params["input_params"], 0.4))
    weights = torch.tensor(rng.normal(size=34))
    for inputs in ([], params["input_params"]):  # also where parameters of inputs occur nowhere
        program = StatevectorProgram(
            fixed, observables(17)[:2], input_params=inputs, weight_params=params["weight_params"]
        ).double()
        values = program(torch.zeros(5, len(inputs)).double(), weights)
        assert values.shape == (5, 2) and torch.equal(values, values[:1].expand(5, -1))


@pytest.mark.parametrize("num_qubits", [4, 7, 9])
def test_values_have_the_leading_axes_of_all_arguments(num_qubits):
    w = ParameterVector("w", num_qubits)
    weighted, plain = QuantumCircuit(num_qubits), QuantumCircuit(num_qubits)
    for q in range(num_qubits):
        weighted.ry(w[q], q)
        weighted.cx(q, (q + 1) % num_qubits)
        plain.rx(w[q], q)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            program = StatevectorProgram(weighted, observables(num_qubits), weight_params=list(w))
            assert program(torch.zeros(3, 1, 2, 0), torch.zeros(4, num_qubits)).shape == (3, 4, 2, 4)
            program = StatevectorProgram(plain, observables(num_qubits), input_params=list(w))
            assert program(torch.zeros(1, 2, num_qubits), torch.zeros(3, 0)).shape == (3, 2, 4)
            assert program(torch.zeros(3, 0, num_qubits), torch.zeros(3, 0)).shape == (3, 0, 4)


@pytest.mark.parametrize("num_qubits", [5, 6, 8, 9])
@pytest.mark.parametrize("shape", [(0,), (0, 2), (2, 0)])
def test_axes_without_entries(shape, num_qubits):
    circuit, params = layers(num_qubits)
    circuit.append(random_unitary(4, seed=1), [0, 2])
    program = StatevectorProgram(circuit, observables(num_qubits), **params)
    inputs = torch.zeros(*shape, num_qubits, requires_grad=True)
    weights = torch.zeros(*shape[:-1], 2 * num_qubits, requires_grad=True)
    with torch.no_grad():
        assert program(inputs, weights).shape == (*shape, 4)
    values = program(inputs, weights)
    assert values.shape == (*shape, 4)
    values.sum().backward()
    assert inputs.grad.shape == inputs.shape and not weights.grad.any()


def test_a_layer_of_data_counts_once():
    circuit, params = layers(10, depth=3)
    program = StatevectorProgram(circuit, observables(10), **params)
    assert "10 qubits, 6 data-dependent phases" in program.summary()  # RX of all qubits and RZZ, in each layer


def test_phases_of_many_qubits_take_the_memory_of_few(rng):
    x = ParameterVector("x", 12)
    circuit = zz_feature_map(12, reps=2).assign_parameters(x)
    blocks = Blockwise(make_plan(circuit, observables(12), input_params=list(x)))
    assert constant_bytes(blocks.phases) < 2**12 * 78  # fewer bytes than phases on amplitudes have signs
    circuit = zz_feature_map(6, reps=2).assign_parameters(x[:6])
    agree(make_plan(circuit, observables(6), input_params=x[:6]), rng)


def test_more_rows_than_are_computed_together(rng):
    circuit, params = layers(11)
    agree(make_plan(circuit, observables(11), **params), rng, rows=150)


def test_derivatives(rng):
    circuit, params = layers(5)
    plan = make_plan(circuit, observables(5), **params)
    ours, reference = both(plan)
    inputs = torch.tensor(rng.normal(size=(2, 5)), requires_grad=True)
    weights = torch.tensor(rng.normal(size=10), requires_grad=True)
    assert torch.autograd.gradcheck(ours, (inputs, weights), fast_mode=True)
    assert torch.autograd.gradgradcheck(ours, (inputs, weights), fast_mode=True)
    found, expected = (torch.func.jacrev(way, argnums=(0, 1))(inputs, weights) for way in (ours, reference))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)
    hessians = [torch.func.hessian(lambda w, way=way: way(inputs, w).sum())(weights) for way in (ours, reference)]
    torch.testing.assert_close(*hessians, rtol=0, atol=1e-10)


def test_compiled_whole(rng):
    circuit, params = layers(9)
    program = StatevectorProgram(circuit, observables(9), **params)
    assert not program.dense
    inputs = torch.tensor(rng.normal(size=(3, 9))).float().requires_grad_()
    weights = torch.tensor(rng.normal(size=18)).float().requires_grad_()
    found = []
    for way in (program, torch.compile(program, fullgraph=True, backend="aot_eager")):
        values = way(inputs, weights)
        found.append((values.detach(), *torch.autograd.grad(values.square().sum(), (inputs, weights))))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-6)


@pytest.mark.parametrize("num_qubits", [12, 17])
def test_values_are_qiskits_in_both_precisions(num_qubits, rng):
    circuit, params = layers(num_qubits)
    program = StatevectorProgram(circuit, observables(num_qubits), **params)
    inputs, weights = rng.normal(size=num_qubits), rng.normal(size=2 * num_qubits)
    state = Statevector(
        circuit.assign_parameters(dict(zip(params["input_params"], inputs, strict=True))).assign_parameters(weights)
    )
    expected = [state.expectation_value(o).real for o in observables(num_qubits)]
    for dtype, error in ((torch.float32, 1e-6), (torch.float64, 1e-12)):
        program.to(dtype)
        with torch.no_grad():
            found = program(
                torch.tensor(inputs[None]), torch.tensor(weights)
            )  # float64 in, so that angles are the same
        np.testing.assert_allclose(found[0], expected, rtol=0, atol=error)


def test_sums_of_equal_terms_are_as_exact_as_others(rng):
    x = ParameterVector("x", 2)  # the other qubits stay in |0>: all their outcomes of X are equally probable
    circuit = QuantumCircuit(9)
    for q in range(2):
        circuit.ry(x[q], q)
    circuit.cx(0, 1)
    for q in range(2):
        circuit.rx(x[q], q)
    several = [SparsePauliOp.from_sparse_list([("X", [q], 1.0)], 9) for q in range(9)]
    program = StatevectorProgram(circuit, several, input_params=list(x))
    inputs = torch.tensor(rng.normal(size=(16, 2)))
    found = program(inputs, torch.zeros(0)).double()
    torch.testing.assert_close(found, program.double()(inputs, torch.zeros(0)), rtol=0, atol=1e-6)


def test_phases_of_many_qubits_have_modulus_one_in_float32(rng):
    x = ParameterVector("x", 12)
    circuit = QuantumCircuit(12)
    for q in range(12):
        circuit.rz(x[q], q)
    circuit.cx(0, 1)
    for q in range(11):
        circuit.cz(q, q + 1)
    for q in range(12):
        circuit.rx(x[q], q)
    phases = Blockwise(make_plan(circuit, observables(12), input_params=list(x))).phases[-1]
    angles = phases.angles(torch.tensor(rng.normal(size=(32, 12))), torch.zeros(0))
    assert len(angles.mT[0]) == 12
    turns = phases.turns(angles, torch.float32)
    assert turns.dtype == torch.complex64
    torch.testing.assert_close(turns.abs().double(), torch.ones(turns.shape).double(), rtol=0, atol=2e-7)


def saved_states(depth: int) -> int:
    """Return how many tensors as large as the states a pass keeps for its backward pass."""
    num_qubits, rows = 9, 16
    circuit, params = layers(num_qubits, depth)
    program = StatevectorProgram(circuit, observables(num_qubits)[:1], **params)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        program(torch.zeros(rows, num_qubits), torch.zeros(2 * num_qubits, requires_grad=True))
    storages = {t.untyped_storage().data_ptr() for t in kept if t.numel() >= rows * 2**num_qubits}
    return len(storages)


def test_memory_does_not_grow_with_depth():
    assert 1 <= saved_states(6) <= saved_states(2) <= 4


def test_swaps_and_permutations_of_qubits_cost_nothing():
    circuit, plain = QuantumCircuit(8), QuantumCircuit(8)
    circuit.h(0)
    circuit.swap(0, 7)
    circuit.append(PermutationGate([3, 1, 2, 0, 7, 6, 5, 4]), range(8))
    circuit.cx(4, 3)
    plain.h(0)
    plain.cx(0, 3)
    steps, place = fuse(flatten(circuit), 8, ())
    assert [len(step.operations) for step in steps] == [2] and sorted(place) == list(range(8))
    observable = SparsePauliOp("IIIZIIII")
    assert Statevector(circuit).expectation_value(observable).real == pytest.approx(
        float(StatevectorProgram(circuit, [observable])(torch.zeros(1, 0), torch.zeros(0))), abs=1e-6
    )


def test_blocks_are_of_few_qubits_and_hold_all_gates():
    circuit, params = layers(10, depth=3)
    operations = flatten(circuit)
    steps, _ = fuse(operations, 10, params["input_params"])
    clusters = [step for step in steps if isinstance(step, Cluster)]
    assert max(len(step.qubits) for step in clusters) <= WIDTH
    phases = sum(len(step.sets) for step in steps if not isinstance(step, Cluster))
    assert phases == 3 * 11  # RX and RZZ of data in each layer
    assert len(steps) < len(operations) / 4


def test_a_circuit_on_a_device_runs_on_the_qubits_in_use(rng):
    circuit, params = layers(5)
    observable = SparsePauliOp("ZIIIX")
    line = [[q, q + 1] for q in range(126)] + [[q + 1, q] for q in range(126)]
    manager = generate_preset_pass_manager(
        1, coupling_map=line, basis_gates=["cx", "rz", "sx", "x"], initial_layout=[3, 5, 4, 2, 6], seed_transpiler=1
    )
    wide = manager.run(circuit)
    assert wide.num_qubits == 127
    program = StatevectorProgram(wide, [observable.apply_layout(wide.layout)], **params).double()
    assert program.num_qubits <= 7
    inputs, weights = torch.tensor(rng.normal(size=(2, 5))), torch.tensor(rng.normal(size=10))
    expected = StatevectorProgram(circuit, [observable], **params).double()(inputs, weights)
    torch.testing.assert_close(program(inputs, weights), expected, rtol=0, atol=1e-12)
