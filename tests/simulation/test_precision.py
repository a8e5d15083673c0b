"""Unitaries formed in float32, as on GPUs, give the expectations of float64."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from qiskit.circuit import ParameterVector, QuantumCircuit
from qiskit.quantum_info import SparsePauliOp
from torch.utils._python_dispatch import TorchDispatchMode

from qiskit_qattn.library.catalog import CATALOG, attention_circuit
from qiskit_qattn.nn.heads import QuantumHead
from qiskit_qattn.simulation.precision import forming_dtype, reduced
from qiskit_qattn.simulation.statevector import StatevectorProgram

LARGE = 1e3


@pytest.fixture
def tensor_float() -> Iterator[None]:
    """Let torch round the factors of products on CUDA devices to ten bits."""
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision("highest")


def test_products_of_rounded_factors_form_no_unitaries(tensor_float):
    assert forming_dtype(torch.device("cuda"), torch.float32) == torch.float64


def test_unitaries_are_formed_in_float64_on_cpus_and_where_asked_for():
    cpu, cuda, mps = map(torch.device, ("cpu", "cuda", "mps"))
    assert forming_dtype(cpu, torch.float32) == torch.float64
    assert forming_dtype(cuda, torch.float32) == forming_dtype(cuda, torch.bfloat16) == torch.float32
    assert forming_dtype(cuda, torch.float64) == torch.float64
    assert forming_dtype(mps, torch.float32) == torch.float32  # which has no other


@pytest.mark.parametrize("largest", [10.0, LARGE, 5e4])
def test_angles_are_reduced_to_a_rounding_error(largest):
    angles = torch.empty(10_000).uniform_(-largest, largest, generator=torch.Generator().manual_seed(0))
    found = reduced(angles.requires_grad_())
    whole = angles.detach().double()
    exact = whole - 4 * math.pi * torch.round(whole / (4 * math.pi))
    distance = (found.detach() - exact).abs()
    distance = torch.minimum(distance, 4 * math.pi - distance)  # at the edges either end is right
    assert float(distance.max()) < 2.5e-7
    assert float(found.detach().abs().max()) < 2 * math.pi + 1e-7 * largest
    inside = angles.detach().abs() < 6.28
    assert torch.equal(found[inside], angles[inside])
    (slope,) = torch.autograd.grad(found.sum(), angles)
    assert torch.equal(slope, torch.ones_like(slope))


def head_and_inputs(name: str, num_qubits: int, largest: float, rows: int = 48) -> tuple[QuantumHead, torch.Tensor]:
    torch.manual_seed(num_qubits)
    head = QuantumHead(attention_circuit(name, num_qubits), (2,))
    torch.nn.init.uniform_(head.weight, -largest, largest)
    x = torch.randn(2, rows, head.num_features)
    return head, x if head.amplitude else (largest / 3) * x


@pytest.mark.parametrize("num_qubits", range(2, 9))
@pytest.mark.parametrize("name", CATALOG)
def test_values_agree_with_float64(name, num_qubits):
    if name == "qsann" and num_qubits > 5:
        pytest.skip("More than four phases: float64 throughout, and slow to build.")
    head, x = head_and_inputs(name, num_qubits, LARGE)
    program, weights = head._program, head.weight.detach()
    program.form_in(torch.float32)
    single = program(x, head.weight)
    (slope,) = torch.autograd.grad(single.square().sum(), head.weight)
    with torch.no_grad():
        kept = program(x, weights)
    program.double().form_in(None)
    exact = program(x.double(), weights := weights.double().requires_grad_())
    (exact_slope,) = torch.autograd.grad(exact.square().sum(), weights)
    assert float((single - exact).detach().abs().max()) <= 1e-6
    assert float((kept - exact).detach().abs().max()) <= 1e-6
    torch.testing.assert_close(slope.double(), exact_slope, rtol=1e-4, atol=1e-4)


def user_program(num_qubits: int) -> StatevectorProgram:
    """RX(x), then sums of angles, RZ and ZZ rotations, among them angles that are no multiples of 1/2."""
    x, w = ParameterVector("x", num_qubits), ParameterVector("w", 2 * num_qubits)
    circuit = QuantumCircuit(num_qubits)
    for q in range(num_qubits):
        circuit.rx(2 * x[q] + 0.1, q)
        circuit.ry(w[q], q)
        circuit.cx(q, (q + 1) % num_qubits)
        circuit.rzz(0.3 * w[q] - w[0], q, (q + 1) % num_qubits)
        circuit.rz(w[num_qubits + q] * w[q], q)
        circuit.rx(w[num_qubits + q], q)
    observables = [SparsePauliOp.from_sparse_list([("Z", [q], 1.0)], num_qubits) for q in range(num_qubits)]
    return StatevectorProgram(circuit, observables, input_params=list(x), weight_params=list(w))


@pytest.mark.parametrize("num_qubits", [3, 6, 7, 10])
def test_values_of_other_circuits_agree_with_float64(num_qubits, rng):
    program = user_program(num_qubits)
    x = torch.tensor(rng.uniform(-300, 300, (32, num_qubits)), dtype=torch.float32)
    weights = torch.tensor(rng.uniform(-30, 30, 2 * num_qubits), dtype=torch.float32)
    before = program(x, weights)
    program.form_in(torch.float32)
    single = program(x, weights)
    program.form_in(None)
    assert torch.equal(program(x, weights), before)
    exact = program.double()(x.double(), weights.double())
    assert float((single - exact).abs().max()) <= 1e-6


def test_large_inputs_in_float64_are_reduced_before_they_are_rounded(rng):
    program = user_program(3)
    x, weights = torch.tensor(rng.uniform(-1e3, 1e3, (32, 3))), torch.tensor(rng.uniform(-30, 30, 6))
    exact = program.double()(x, weights)
    program.float().form_in(torch.float32)
    assert float((program(x, weights) - exact).abs().max()) <= 1e-6


class _LargestDouble(TorchDispatchMode):
    """Records the most float64 numbers that any operation read or wrote."""

    def __init__(self):
        super().__init__()
        self.most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        leaves = torch.utils._pytree.tree_leaves((args, result))
        wide = [
            t.numel() for t in leaves if isinstance(t, torch.Tensor) and t.dtype in (torch.float64, torch.complex128)
        ]
        self.most = max([self.most, *wide])
        return result


@pytest.mark.parametrize(("name", "num_qubits"), [("qisa-v3", 4), ("qisa-v3", 6), ("qisa-v3", 8), ("angle", 6)])
def test_only_angles_and_factors_of_the_weights_are_in_float64(name, num_qubits):
    head, x = head_and_inputs(name, num_qubits, 3.0)
    head._program.form_in(torch.float32)
    with _LargestDouble() as mode:
        head(x).sum().backward()
    assert 0 < mode.most < 2 * 16 * 4**num_qubits  # of two heads, and none of the batch


@pytest.mark.parametrize(("name", "num_qubits"), [("qisa-v3", 6), ("angle", 3)])
def test_torch_compile_records_the_same_values(name, num_qubits):
    head, x = head_and_inputs(name, num_qubits, LARGE)
    head._program.form_in(torch.float32)
    expected = head._program(x, head.weight)
    found = torch.compile(head._program, fullgraph=True, backend="aot_eager")(x, head.weight)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_large_constant_angles_keep_their_precision(rng):
    (x,) = ParameterVector("x", 1)
    circuit = QuantumCircuit(1)
    circuit.rx(x + 1000.3, 0)
    program = StatevectorProgram(circuit, [SparsePauliOp("Z")], input_params=[x])
    values = torch.tensor(rng.uniform(-3, 3, (20, 1)), dtype=torch.float32)
    program.form_in(torch.float32)
    expected = torch.cos(values.double() + 1000.3)
    assert float((program(values, torch.zeros(0)) - expected).abs().max()) <= 1e-6
