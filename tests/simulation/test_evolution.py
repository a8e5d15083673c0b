"""Time evolution is the exponential of its operator, as in Qiskit's simulators."""

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import AnnotatedOperation, InverseModifier, Parameter, PowerModifier
from qiskit.circuit.library import HamiltonianGate, PauliEvolutionGate
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import Pauli, SparseObservable, SparsePauliOp, Statevector
from qiskit.transpiler import generate_preset_pass_manager

from qiskit_qattn.errors import CircuitError
from qiskit_qattn.simulation.density_matrix import DensityMatrixProgram, NoisyEngine
from qiskit_qattn.simulation.elementary import Unitary
from qiskit_qattn.simulation.gates import flatten
from qiskit_qattn.simulation.statevector import StatevectorProgram

pytestmark = pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")  # of Qiskit's matrices
X, W = Parameter("x"), Parameter("w")
ISING = SparsePauliOp(["XX", "ZI", "IZ"], [1, 0.5, 0.5])
TIMES = {"input": X, "weight": W, "both": X * W + 1, "function": X.sin() * 2**W}
OPERATORS = {
    "one": SparsePauliOp("XYZ", 0.7),
    "sum": SparsePauliOp(["XXI", "ZII", "IZI", "IYZ", "III"], [1, 0.5, -0.3, 0.2, 0.4]),
    "two groups": SparsePauliOp(["XII", "ZII", "IYX", "IXX"], [1, 0.5, -0.3, 0.2]),
    "degenerate": SparsePauliOp(["XXX", "YYI", "ZII"], [1, 1, 1]),
    "cancelled": SparsePauliOp(["XXI", "ZII", "XXI"], [1, 0.5, -1]),
    "commuting": SparsePauliOp(["XXI", "ZZI", "YYZ", "IIZ"], [1, 0.5, -0.3, 0.2]),
    "list": [SparsePauliOp(["XXI", "ZZI"], [0.2, 1.3]), SparsePauliOp("ZIX"), SparsePauliOp("IYI")],
    "projectors": SparseObservable.from_list([("0+I", 0.7), ("X1r", -0.4), ("ZZY", 1.1)]),
    "pauli": Pauli("ZYX"),
}


def circuit_of(operator, time, num_qubits=3):
    circuit = QuantumCircuit(num_qubits)
    for qubit in range(num_qubits):
        circuit.ry(0.4 + qubit, qubit)
        circuit.rx(0.3 * W + 0.2, qubit)
    width = PauliEvolutionGate(operator).num_qubits
    circuit.append(PauliEvolutionGate(operator, time), list(range(num_qubits))[::-1][:width])
    circuit.ry(X, 0)
    return circuit


def observables(num_qubits):
    pad = "I" * (num_qubits - 3)
    return [SparsePauliOp(label + pad) for label in ("XYZ", "ZIX", "IYY")] + [SparsePauliOp("Z" * num_qubits)]


def values_of(circuit, x, w):
    state = Statevector(circuit.assign_parameters({p: v for p, v in ((X, x), (W, w)) if p in circuit.parameters}))
    return np.array([state.expectation_value(op).real for op in observables(circuit.num_qubits)])


@pytest.mark.parametrize("engine", [StatevectorProgram, DensityMatrixProgram, NoisyEngine()])
@pytest.mark.parametrize("time", [1.3, -0.4, X.bind({X: 1.3})])
def test_the_sum_of_the_issue(engine, time):
    circuit = QuantumCircuit(2)
    circuit.ry(0.4, 0)
    circuit.append(PauliEvolutionGate(ISING, time), [0, 1])
    operators = [SparsePauliOp(label) for label in ("IZ", "ZI", "XY")]
    expected = StatevectorEstimator().run([(circuit, operators, [0.0] * circuit.num_parameters)]).result()[0].data.evs
    found = engine(circuit, operators, input_params=list(circuit.parameters)).double()(
        torch.zeros(1, circuit.num_parameters, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)
    )
    np.testing.assert_allclose(found[0], expected, atol=1e-12)
    if time != -0.4:
        assert float(found[0, 0]) == pytest.approx(0.10102, abs=5e-6)


def test_the_noisy_engine_runs_the_product_formula_where_it_transpiles():
    circuit = QuantumCircuit(2)
    circuit.ry(0.4, 0)
    circuit.append(PauliEvolutionGate(ISING, 1.3), [0, 1])
    engine = NoisyEngine(pass_manager=generate_preset_pass_manager(0, basis_gates=["rz", "sx", "x", "cx"]))
    value = engine(circuit, [SparsePauliOp("IZ")]).double()(torch.zeros(1, 0), torch.zeros(0))
    assert float(value) == pytest.approx(-0.78925, abs=5e-6)


@pytest.mark.parametrize("engine", [StatevectorProgram, DensityMatrixProgram])
@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("operator", OPERATORS)
def test_values_and_gradients_for_a_time_with_parameters(operator, time, engine):
    circuit = circuit_of(OPERATORS[operator], TIMES[time])
    program = engine(circuit, observables(3), input_params=[X], weight_params=[W]).double()
    x = torch.tensor([[0.8]], dtype=torch.float64, requires_grad=True)
    w = torch.tensor([-1.7], dtype=torch.float64, requires_grad=True)
    np.testing.assert_allclose(program(x, w)[0].detach(), values_of(circuit, 0.8, -1.7), atol=1e-11)
    jacobian = torch.autograd.functional.jacobian(program, (x, w))
    step = 1e-5
    for found, (dx, dw) in zip(jacobian, ((step, 0), (0, step)), strict=True):
        expected = values_of(circuit, 0.8 + dx, -1.7 + dw) - values_of(circuit, 0.8 - dx, -1.7 - dw)
        np.testing.assert_allclose(found.reshape(-1), expected / (2 * step), atol=1e-8)


@pytest.mark.parametrize("num_qubits", [4, 6, 8, 9, 12])
@pytest.mark.parametrize("time", [0.7, "both"])
def test_in_wider_circuits(num_qubits, time):
    circuit = circuit_of(OPERATORS["sum"], TIMES.get(time, time), num_qubits)
    program = StatevectorProgram(circuit, observables(num_qubits), input_params=[X], weight_params=[W])
    for module, atol in ((program.float(), 1e-5), (program.double(), 1e-11)):
        dtype = module.signs.dtype
        for batch in (1, 3):
            found = module(torch.full((batch, 1), 0.8, dtype=dtype), torch.tensor([-1.7], dtype=dtype))
            np.testing.assert_allclose(found[-1].detach(), values_of(circuit, 0.8, -1.7), atol=atol)


def test_gradcheck():
    circuit = circuit_of(OPERATORS["sum"], X * W + 1, 6)
    program = StatevectorProgram(circuit, observables(6), input_params=[X], weight_params=[W]).double()
    x = torch.tensor([[0.8], [0.1]], dtype=torch.float64, requires_grad=True)
    w = torch.tensor([-1.7], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(program, (x, w))


def test_terms_that_commute_stay_rotations():
    for operator in ("one", "commuting", "pauli"):
        assert not any(isinstance(op, Unitary) for op in flatten(circuit_of(OPERATORS[operator], X)))
    wide = SparsePauliOp.from_sparse_list([("ZZ", [i, i + 1], 1.0) for i in range(15)], num_qubits=16)
    assert len(flatten(circuit_of(wide, X, 16))) == 15 + 2 * 16 + 1


def test_a_matrix_as_the_hamiltonian():
    matrix = OPERATORS["sum"].to_matrix()
    circuit = circuit_of(OPERATORS["sum"], X)
    other = circuit.copy_empty_like()
    for item in circuit.data:
        gate = HamiltonianGate(matrix, X) if item.operation.name == "PauliEvolution" else item.operation
        other.append(gate, item.qubits)
    x, w = torch.rand(3, 1), torch.rand(1)
    one, two = (StatevectorProgram(c, observables(3), input_params=[X], weight_params=[W]) for c in (circuit, other))
    torch.testing.assert_close(one(x, w), two(x, w), atol=1e-5, rtol=0)


def test_what_cannot_be_exponentiated_is_an_error():
    chain = [("ZZ", [i, i + 1], 1.0) for i in range(8)] + [("X", [i], 1.0) for i in range(9)]
    wide = SparsePauliOp.from_sparse_list(chain, num_qubits=9)
    with pytest.raises(CircuitError, match=r"on 9 qubits together, .* at most 8"):
        flatten(circuit_of(wide, X, 9))
    with pytest.raises(CircuitError, match="on 9 qubits for a time"):
        circuit = QuantumCircuit(9)
        circuit.append(HamiltonianGate(np.eye(512), X), range(9))
        flatten(circuit)


def test_a_power_of_an_evolution_of_one_qubit_gives_no_warning():
    """Scipy warns when Qiskit exponentiates a sparse operator; warnings are errors here."""
    circuit = QuantumCircuit(1)
    circuit.ry(0.3, 0)
    gate = PauliEvolutionGate(SparsePauliOp(["X"], [0.7]), 0.4)
    circuit.append(AnnotatedOperation(gate, [PowerModifier(2), InverseModifier()]), [0])
    values = StatevectorProgram(circuit, [SparsePauliOp("Z")]).double()(torch.zeros(1, 0), torch.zeros(0))
    reference = QuantumCircuit(1)
    reference.ry(0.3, 0)
    reference.rx(-4 * 0.7 * 0.4, 0)
    assert values.item() == pytest.approx(Statevector(reference).expectation_value(SparsePauliOp("Z")).real, abs=1e-12)
