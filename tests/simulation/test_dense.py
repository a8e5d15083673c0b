"""Every way of the dense executor gives what gates on the batch give."""

from __future__ import annotations

import pytest
import torch
from qiskit.quantum_info import SparsePauliOp

from qiskit_qattn.library.catalog import attention_circuit, list_circuits
from qiskit_qattn.simulation.dense import Dense
from qiskit_qattn.simulation.gatewise import Gatewise
from qiskit_qattn.simulation.plan import make_plan
from qiskit_qattn.simulation.products import squared_moduli


def executors(name, num_qubits):
    circuit = attention_circuit(name, num_qubits)
    observables = [SparsePauliOp("Z" * num_qubits), SparsePauliOp("X" + "Y" * (num_qubits - 1))]
    vectors = circuit.encoding.kind == "amplitude"
    plan = make_plan(
        circuit.ansatz if vectors else circuit.circuit,
        observables,
        input_params=() if vectors else circuit.input_params,
        weight_params=circuit.weight_params,
        input_kind="amplitude" if vectors else "parameters",
    )
    gates = Gatewise(plan)
    return plan, gates, Dense(plan, gates).double()


@pytest.mark.parametrize("num_qubits", [2, 6])  # trigonometric sums, and Kronecker products
@pytest.mark.parametrize("name", list_circuits())
def test_all_ways_agree(name, num_qubits, rng):
    plan, gates, dense = executors(name, num_qubits)
    inputs = torch.tensor(rng.normal(size=(4, plan.num_inputs)), requires_grad=True)
    weights = torch.tensor(rng.normal(size=len(plan.weight_params)), requires_grad=True)
    signs = torch.tensor(plan.signs)

    def by_gates(x, w):
        return squared_moduli(gates.amplitudes(x, w, torch.float64)) @ signs

    ways = [
        lambda x, w: dense.expectations(x, w, signs),
        lambda x, w: dense.expectations(x, w, signs, dense.fused(w, torch.float64)),
        lambda x, w: dense.expectations(x, w, signs, effective=True),
    ]
    expected = by_gates(inputs, weights)
    slopes = torch.autograd.grad(expected.sum(), (inputs, weights))
    for way in ways:
        values = way(inputs, weights)
        torch.testing.assert_close(values, expected, rtol=0, atol=1e-11)
        found = torch.autograd.grad(values.sum(), (inputs, weights))
        torch.testing.assert_close(found, slopes, rtol=0, atol=1e-10)
