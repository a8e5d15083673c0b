"""The metric of a circuit's weights equals Qiskit's from the definition, and has the properties of a metric."""

import numpy as np
import pytest
import torch
from qiskit.circuit.library import n_local
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import Statevector
from qiskit_machine_learning.gradients import LinCombQGT
from qiskit_machine_learning.gradients.qfi import QFI

from qiskit_qattn.library.attention_circuit import AttentionCircuit
from qiskit_qattn.library.catalog import attention_circuit, list_circuits
from qiskit_qattn.simulation.amplitude import amplitude_angles
from qiskit_qattn.simulation.metric import fubini_study
from qiskit_qattn.simulation.statevector import StateProgram
from qiskit_qattn.simulation.unary import OrthogonalProgram, unary_angles

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
STEP = 1e-3


def program_of(circuit):
    unary = circuit.encoding.kind == "unary"
    return (OrthogonalProgram if unary else StateProgram)(circuit).double()


def drawn(circuit, rng, *shape):
    """Random inputs, as the engine and as Qiskit's circuit take them."""
    size = 2**circuit.num_qubits if circuit.encoding.kind == "amplitude" else circuit.encoding.num_features
    inputs = torch.from_numpy(rng.normal(size=(*shape, size)))
    if circuit.encoding.kind == "amplitude":
        return inputs, amplitude_angles(inputs)
    return inputs, unary_angles(inputs) if circuit.encoding.kind == "unary" else inputs


def angles(circuit, rng, *shape):
    return torch.from_numpy(rng.uniform(-np.pi, np.pi, (*shape, len(circuit.weight_params))))


def reference(circuit, row, weights):
    r"""The metric of one input from Qiskit's Statevector: derivatives by central differences of fourth order."""

    def state(values):
        bound = dict(zip(circuit.input_params, row.tolist(), strict=True))
        bound |= dict(zip(circuit.weight_params, values, strict=True))
        return Statevector(circuit.circuit.assign_parameters(bound)).data

    weights = weights.numpy()
    shifts = STEP * np.eye(len(weights))
    near = [state(weights + d) - state(weights - d) for d in shifts]
    far = [state(weights + 2 * d) - state(weights - 2 * d) for d in shifts]
    tangents, here = (8 * np.array(near) - np.array(far)) / (12 * STEP), state(weights)
    along = tangents @ here.conj()  # ⟨ψ|∂ψ⟩
    return (tangents.conj() @ tangents.T - np.outer(along.conj(), along)).real


@pytest.mark.parametrize("name", list_circuits())
def test_it_is_the_mean_of_qiskits_over_the_inputs(name, rng):
    circuit = attention_circuit(name, 3)
    inputs, rows = drawn(circuit, rng, 3)
    weights = angles(circuit, rng)
    expected = np.mean([reference(circuit, row, weights) for row in rows], 0)
    assert np.abs(fubini_study(program_of(circuit), inputs, weights).numpy() - expected).max() < 1e-10


def test_it_is_a_quarter_of_qiskit_machine_learnings_fisher_information(rng):
    ansatz = n_local(2, ["ry", "rz"], "cx", reps=1)
    circuit = AttentionCircuit.from_circuit(ansatz, ["ZZ"], [], list(ansatz.parameters))
    weights = angles(circuit, rng)
    fisher = QFI(LinCombQGT(StatevectorEstimator())).run([ansatz], [weights.tolist()]).result().qfis[0]
    metric = fubini_study(program_of(circuit), torch.zeros(1, 0, dtype=torch.float64), weights)
    assert np.abs(4 * metric.numpy() - fisher).max() < 1e-10
