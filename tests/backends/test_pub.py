"""PubProgram: which circuits reach the estimator, and that their values and gradients are right."""

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit, transpile
from qiskit.circuit import ParameterVector
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import SparsePauliOp

from qiskit_qattn import QuantumHead, attention_circuit, get_backend
from qiskit_qattn.backends.counting import CountingEstimator
from qiskit_qattn.backends.pub import PubProgram
from qiskit_qattn.backends.registry import Backend
from qiskit_qattn.errors import BackendError, CircuitError
from qiskit_qattn.simulation.estimator import TorchEstimator
from qiskit_qattn.simulation.statevector import StatevectorProgram

OBSERVABLES = [SparsePauliOp(["ZZ", "XI"], [0.5, -2.0]), SparsePauliOp("YX"), SparsePauliOp("IZ")]


def counting():
    """Return an exact estimator that keeps the number of parameter sets of each PUB of each job."""
    return CountingEstimator(estimator=TorchEstimator())


def mixed_circuit():
    """Repeated parameters, expressions, controlled rotations, and angles of inputs and weights together."""
    x, w = ParameterVector("x", 2), ParameterVector("w", 3)
    circuit = QuantumCircuit(2)
    circuit.ry(x[0], 0)
    circuit.rx(2 * x[1] + w[0], 1)
    circuit.cry(w[1] * x[0], 0, 1)
    circuit.crz(w[2], 1, 0)
    circuit.cp(w[0], 0, 1)
    circuit.crx(x[1].sin(), 1, 0)
    circuit.rzz(w[1], 0, 1)
    circuit.rxx(w[0] / 2 - x[0], 0, 1)
    circuit.ry(w[2], 0)
    return circuit, {"input_params": list(x), "weight_params": list(w)}


def program_of(circuit, estimator, observables=OBSERVABLES, **options):
    return PubProgram(circuit, observables, estimator=estimator, precision=0.0, **options)


def test_values_and_gradients_are_those_of_the_engine(rng):
    circuit, params = mixed_circuit()
    exact = StatevectorProgram(circuit, OBSERVABLES, **params).double()
    program = program_of(circuit, StatevectorEstimator(), **params)
    x = torch.from_numpy(rng.normal(size=(2, 4, 2))).requires_grad_()
    w = torch.from_numpy(rng.normal(size=(2, 3))).requires_grad_()  # a weight set for each of two heads
    cotangent = torch.from_numpy(rng.normal(size=(2, 4, 3)))
    torch.testing.assert_close(program(x, w), exact(x, w), atol=1e-12, rtol=0)
    ours, theirs = (torch.autograd.grad(p(x, w), (x, w), cotangent) for p in (program, exact))
    torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=0)
    assert torch.autograd.gradcheck(program, (x[:, :2].detach().requires_grad_(), w))


def test_equal_rows_are_evaluated_once(rng):
    circuit, params = mixed_circuit()
    estimator = counting()
    program = program_of(circuit, estimator, **params)
    exact = StatevectorProgram(circuit, OBSERVABLES, **params).double()
    x = torch.from_numpy(rng.normal(size=(3, 2)))[[2, 0, 2, 1, 0, 2]].requires_grad_()
    w = torch.from_numpy(rng.normal(size=3)).requires_grad_()
    cotangent = torch.from_numpy(rng.normal(size=(6, 3)))
    values = program(x, w)
    torch.testing.assert_close(values, exact(x, w), atol=1e-12, rtol=0)
    ours = torch.autograd.grad(values, (x, w), cotangent)
    torch.testing.assert_close(ours, torch.autograd.grad(exact(x, w), (x, w), cotangent), atol=1e-10, rtol=0)
    assert estimator.pubs == [[3], [3 * 2 * len(program.params)]]


def test_samples_of_a_row_do_not_depend_on_later_rows(rng):
    circuit, params = mixed_circuit()
    x, w = torch.from_numpy(rng.normal(size=(3, 2))), torch.from_numpy(rng.normal(size=3))
    changed = x.clone()
    changed[2] = -5
    first, second = (
        PubProgram(circuit, OBSERVABLES, estimator=TorchEstimator(seed=1), precision=0.1, **params)(rows, w)
        for rows in (x, changed)
    )
    assert torch.equal(first[:2], second[:2]) and not torch.equal(first[2], second[2])


def test_only_gradients_that_are_wanted_cost_circuits(rng):
    circuit, params = mixed_circuit()
    estimator = counting()
    program = program_of(circuit, estimator, **params)
    exact = StatevectorProgram(circuit, OBSERVABLES, **params).double()
    x, w = torch.from_numpy(rng.normal(size=(4, 2))), torch.from_numpy(rng.normal(size=3))
    # controlled rotations hold their angle twice, controlled phases three times
    angles = {"x": 1 + 1 + 2 + 2 + 1, "w": 1 + 2 + 2 + 3 + 1 + 1 + 1, "both": 14}
    for wanted, count in angles.items():
        leaves = [t.detach().clone().requires_grad_(wanted in (name, "both")) for name, t in (("x", x), ("w", w))]
        inputs = [leaf for leaf in leaves if leaf.requires_grad]
        estimator.pubs.clear()
        ours = torch.autograd.grad(program(*leaves).square().sum(), inputs)
        torch.testing.assert_close(ours, torch.autograd.grad(exact(*leaves).square().sum(), inputs), atol=1e-10, rtol=0)
        assert estimator.pubs == [[4], [4 * 2 * count]], wanted


def test_rows_without_a_cotangent_cost_no_circuits(rng):
    circuit, params = mixed_circuit()
    estimator = counting()
    program = program_of(circuit, estimator, **params)
    x = torch.from_numpy(rng.normal(size=(5, 2))).requires_grad_()
    w = torch.from_numpy(rng.normal(size=3)).requires_grad_()
    program(x, w)[1:3].sum().backward()
    assert estimator.pubs == [[5], [2 * 2 * len(program.params)]]
    assert x.grad[[0, 3, 4]].eq(0).all() and x.grad[1:3].ne(0).all()
    (program(x, w) * 0).sum().backward()
    assert len(estimator.pubs) == 3


def test_large_batches_are_several_pubs_of_one_job(rng):
    circuit, params = mixed_circuit()
    estimator = counting()
    limited = program_of(circuit, estimator, max_pub_size=100, **params)
    whole = program_of(circuit, TorchEstimator(), **params)
    x = torch.from_numpy(rng.normal(size=(120, 2))).requires_grad_()
    w = torch.from_numpy(rng.normal(size=3)).requires_grad_()
    ours, theirs = ((p(x, w), torch.autograd.grad(p(x, w).sum(), (x, w))) for p in (limited, whole))
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)
    backward = 120 * 2 * 14
    assert estimator.pubs == [[100, 20], [100, 20], [100] * (backward // 100) + [backward % 100]]


def test_the_backends_limit_reaches_the_program():
    estimator = counting()
    head = QuantumHead(attention_circuit("zz", 2)).to_backend(Backend("test", estimator, max_pub_size=3))
    head(torch.randn(7, 2))
    assert estimator.pubs == [[3, 3, 1]]


@pytest.mark.parametrize("name", ["qisa", "zz", "qsann", "angle"])
def test_transpiled_circuits(name, rng):
    """A transpiled phase gate leaves its parameter in the global phase, which no gate binds."""
    circuit = attention_circuit(name, 3)
    isa = transpile(circuit.circuit, basis_gates=["rz", "sx", "x", "cz"], optimization_level=1, seed_transpiler=1)
    params = {"input_params": circuit.input_params, "weight_params": circuit.weight_params}
    program = program_of(isa, TorchEstimator(), circuit.observables, **params)
    exact = StatevectorProgram(circuit.circuit, circuit.observables, **params).double()
    x = torch.from_numpy(rng.normal(size=(2, len(circuit.input_params)))).requires_grad_()
    w = torch.from_numpy(rng.normal(size=len(circuit.weight_params))).requires_grad_()
    ours, theirs = ((p(x, w), *torch.autograd.grad(p(x, w).sum(), (x, w))) for p in (program, exact))
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_a_circuit_without_parameters_is_evaluated_once():
    circuit = QuantumCircuit(2)
    circuit.h(0)
    program = program_of(
        circuit, StatevectorEstimator(), [SparsePauliOp("IX"), SparsePauliOp("IZ")], input_params=[], weight_params=[]
    )
    values = program(torch.zeros(3, 0, dtype=torch.float64), torch.zeros(0))
    np.testing.assert_allclose(values, [[1, 0]] * 3, atol=1e-12)


def test_second_derivatives_are_an_error(rng):
    circuit, params = mixed_circuit()
    program = program_of(circuit, TorchEstimator(), **params)
    x = torch.from_numpy(rng.normal(size=(1, 2))).requires_grad_()
    (first,) = torch.autograd.grad(program(x, torch.zeros(3)).sum(), x, create_graph=True)
    with pytest.raises(BackendError, match="first derivatives only"):
        first.sum().backward()


def test_gates_without_a_rule_are_named():
    from qiskit.circuit import Gate, Parameter

    circuit = QuantumCircuit(1)
    circuit.append(Gate("mystery", 1, [Parameter("a")]), [0])
    with pytest.raises(CircuitError, match="'mystery' has parameters but neither"):
        program_of(circuit, TorchEstimator(), [SparsePauliOp("Z")], input_params=[], weight_params=[])


def test_an_estimator_that_does_not_broadcast_is_told():
    class OneRow(TorchEstimator):
        def run(self, pubs, *, precision=None):
            pubs = [(c, o, {k: v[:1] for k, v in bindings.items()}) for c, o, bindings in pubs]
            return super().run(pubs, precision=precision)

    circuit, params = mixed_circuit()
    with pytest.raises(BackendError, match=r"OneRow returned values of shape \(3, 1\), expected \(3, 4\)"):
        program_of(circuit, OneRow(), **params)(torch.rand(4, 2), torch.rand(3))


@pytest.mark.parametrize("text", ["statevector", "density_matrix?noise=depolarizing&p1=0.01&p2=0.05&readout=0.05"])
def test_reported_errors_cover_the_spread(text, rng):
    """Of 500 repetitions at least 90 % lie within two of the reported standard errors, where 95 % should."""
    circuit, params = mixed_circuit()
    values = np.tile(rng.normal(size=5), (500, 1))
    bindings = {(*params["input_params"], *params["weight_params"]): values}
    pub = (circuit, [[op] for op in OBSERVABLES], bindings)
    exact = get_backend(text).estimator.run([pub]).result()[0].data.evs
    backend = get_backend(f"{text}{'&' if '?' in text else '?'}shots=200&seed=3")
    result = backend.estimator.run([pub], precision=backend.precision).result()[0]
    assert result.metadata["shots"] == 200
    z = (result.data.evs - exact) / result.data.stds
    covered = (np.abs(z) < 2).mean(1)
    assert ((covered > 0.9) & (covered < 0.99)).all(), covered
    np.testing.assert_allclose(result.data.stds.mean(1), (result.data.evs - exact).std(1), rtol=0.2)


@pytest.mark.parametrize("shots", [2, 1000, 8192])
def test_the_number_of_shots_is_that_asked_for(shots):
    backend = get_backend(f"statevector?shots={shots}")
    circuit = QuantumCircuit(1)
    result = backend.estimator.run([(circuit, SparsePauliOp("X"))], precision=backend.precision).result()[0]
    assert result.metadata["shots"] == shots
