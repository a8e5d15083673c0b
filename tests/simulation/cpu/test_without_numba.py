"""Where numba is missing, torch's operations give the same values and gradients."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

PROGRAM = """
import json, sys

error = sys.argv[1]

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "numba":
            raise {"missing": ModuleNotFoundError, "broken": OSError}[error]("blocked")

if error != "present":
    sys.meta_path.insert(0, Blocked())

import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.quantum_info import SparsePauliOp
import qiskit_qattn as qa
from qiskit_qattn.simulation.statevector import StatevectorProgram

assert "numba" not in sys.modules
x, w = ParameterVector("x", 3), ParameterVector("w", 3)
circuit = QuantumCircuit(3)
for q in range(3):
    circuit.rx(x[q], q)
    circuit.ry(w[q], q)
circuit.cx(0, 1)
operators = [SparsePauliOp("ZZX"), SparsePauliOp("YII")]
program = StatevectorProgram(circuit, operators, input_params=list(x), weight_params=list(w))
inputs = torch.linspace(-1, 2, 15).reshape(5, 3).requires_grad_()
weights = torch.linspace(0.3, 1, 3).requires_grad_()
values = program(inputs, weights)
found = [values, *torch.autograd.grad(values.square().sum(), (inputs, weights))]
assert (sys.modules.get("numba") is not None) == (error == "present")

torch.manual_seed(0)
sizes = dict(vocab_size=7, block_size=8, n_layer=1, n_head=2, n_embd=8, num_qubits=2)
model = qa.inference(qa.GPT(qa.GPTConfig(heads="qisa:1,classical:1", **sizes)))
with torch.no_grad():
    found.append(model(torch.arange(5)[None])[0])
print(json.dumps([tensor.flatten().tolist() for tensor in found]))
"""


def run(how: str) -> list[list[float]]:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.more
@pytest.mark.parametrize("how", ["missing", "broken"])
def test_values_and_gradients_are_the_same(how):
    for mine, expected in zip(run(how), run("present"), strict=True):
        np.testing.assert_allclose(mine, expected, rtol=0, atol=1e-5)
