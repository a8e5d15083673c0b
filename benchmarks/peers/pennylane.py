"""PennyLane's TorchLayer on default.qubit with backpropagation; the batch is broadcast."""

from __future__ import annotations

import pennylane as qml
import torch
from networks import NUM_LAYERS

from peers.problem import Pass, Problem


def build(problem: Problem) -> Pass:
    wires = range(problem.num_qubits)

    @qml.qnode(qml.device("default.qubit", wires=wires), interface="torch", diff_method="backprop")
    def circuit(inputs, weights):
        for q in wires:
            qml.RX(inputs[..., q], wires=q)
        for layer in range(NUM_LAYERS):
            for q in wires:
                qml.RY(weights[layer * len(wires) + q], wires=q)
            for q in wires:
                qml.CNOT(wires=[q, (q + 1) % len(wires)])
        return [qml.expval(qml.Z(q)) for q in wires]

    layer = qml.qnn.TorchLayer(circuit, {"weights": problem.weights.shape})
    with torch.no_grad():
        layer.weights.copy_(torch.tensor(problem.weights))
    inputs = torch.tensor(problem.inputs, requires_grad=True)
    slope = torch.tensor(problem.slope)

    def call():
        inputs.grad = layer.weights.grad = None
        values = layer(inputs)
        values.backward(slope)
        return values.detach(), inputs.grad, layer.weights.grad

    return call
