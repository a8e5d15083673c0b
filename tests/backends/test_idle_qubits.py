"""A circuit in the layout of a large device costs its own qubits, on every simulator of this process."""

from __future__ import annotations

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import PermutationGate
from qiskit.quantum_info import SparsePauliOp, Statevector
from qiskit.transpiler import CouplingMap
from qiskit.transpiler.preset_passmanagers import generate_preset_pass_manager

from qiskit_qattn import get_backend
from qiskit_qattn.errors import CircuitError
from qiskit_qattn.simulation.cutting import in_use

pytest.importorskip("qiskit_aer")
EXACT = ("statevector", "statevector?method=dense", "density_matrix", "aer", "aer:density_matrix")
PRODUCTS = ("aer:matrix_product_state", "statevector?method=mps")
SHOTS = 4000
SAMPLED = (f"statevector?shots={SHOTS}&seed=3", f"aer?shots={SHOTS}&seed=3")


def narrow() -> tuple[QuantumCircuit, list[SparsePauliOp]]:
    """Return a circuit of five qubits, and observables on some of them."""
    w = ParameterVector("w", 5)
    circuit = QuantumCircuit(5)
    for q in range(5):
        circuit.ry(w[q], q)
    circuit.append(PermutationGate([2, 0, 1, 4, 3]), range(5))
    for q in range(4):
        circuit.cx(q, q + 1)
    circuit.rx(w[0], 2)
    return circuit, [SparsePauliOp(["ZIIIX", "IIYYI"], [1.0, 0.5]), SparsePauliOp("IIZII"), SparsePauliOp("IIIII")]


@pytest.fixture(scope="module", params=[127, 156])
def wide(request):
    """Return the circuit in the layout of a device, with its observables."""
    line = CouplingMap.from_line(request.param)
    circuit, observables = narrow()
    manager = generate_preset_pass_manager(
        1,
        coupling_map=line,
        basis_gates=["cz", "rz", "sx", "x"],
        initial_layout=[60, 62, 61, 63, 64],
        seed_transpiler=1,
    )
    placed = manager.run(circuit)
    assert placed.num_qubits == request.param
    return placed, [each.apply_layout(placed.layout) for each in observables]


@pytest.mark.parametrize(
    "text", [*EXACT, *PRODUCTS, *(f"{name}?shots={SHOTS}&seed=3" for name in ("statevector", "aer"))]
)
def test_estimators_compute_the_qubits_in_use(text, wide, rng):
    placed, observables = wide
    values = rng.uniform(-2, 2, size=(3, 1, 5))
    circuit, own = narrow()
    states = [Statevector(circuit.assign_parameters(row[0])) for row in values]
    expected = [[state.expectation_value(each).real for each in own] for state in states]
    found = get_backend(text).estimator.run([(placed, observables, values)]).result()[0].data.evs
    np.testing.assert_allclose(found, expected, rtol=0, atol=6 / SHOTS**0.5 if "shots" in text else 1e-9)


@pytest.mark.parametrize("text", ["statevector", "density_matrix", "aer:matrix_product_state"])
def test_observables_on_idle_qubits_read_zero(text, wide):
    placed, _ = wide
    idle = [SparsePauliOp.from_sparse_list([(letter, [9], 1.0)], placed.num_qubits) for letter in "ZX"]
    found = get_backend(text).estimator.run([(placed, idle, [0.3] * 5)]).result()[0].data.evs
    np.testing.assert_allclose(found, [1.0, 0.0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("engine", ["statevector", "density_matrix"])
def test_observables_without_the_layout_are_refused(engine, wide):
    placed, _ = wide
    network = get_backend(engine).estimator.engine
    with pytest.raises(CircuitError, match=f"The circuit has {placed.num_qubits} qubits, the observables 5; they must"):
        network(placed, narrow()[1], input_params=list(placed.parameters))


def test_observables_on_another_number_of_qubits_are_refused():
    circuit = QuantumCircuit(1)
    with pytest.raises(CircuitError, match=r"^The circuit has 1 qubit, the observables 2; they must match"):
        in_use(circuit, [SparsePauliOp("ZZ")])
