"""TorQ on torch: the batch is its rows, gradients are torch's."""

from __future__ import annotations

import torch
from networks import NUM_LAYERS
from torq.simple import Circuit, CircuitConfig

from peers.problem import Pass, Problem


def build(problem: Problem) -> Pass:
    weights = torch.tensor(problem.weights).view(NUM_LAYERS, 1, problem.num_qubits)
    config = CircuitConfig(single_rotation_gate="ry")
    circuit = Circuit(problem.num_qubits, NUM_LAYERS, "single_rot_basic_ent", config, weights=weights)
    inputs = torch.tensor(problem.inputs, requires_grad=True)
    slope = torch.tensor(problem.slope)
    (weight,) = circuit.parameters()

    def call():
        inputs.grad = weight.grad = None
        values = circuit(inputs)
        values.backward(slope)
        return values.detach(), inputs.grad, weight.grad.flatten()

    return call
