"""qiskit_qattn's connector."""

from __future__ import annotations

import torch
from networks import user_network

import qiskit_qattn as qa
from peers.problem import Pass, Problem


def build(problem: Problem) -> Pass:
    connector = qa.TorchConnector(user_network(problem.num_qubits), initial_weights=problem.weights)
    inputs = torch.tensor(problem.inputs, requires_grad=True)
    slope = torch.tensor(problem.slope)

    def call():
        inputs.grad = connector.weight.grad = None
        values = connector(inputs)
        values.backward(slope)
        return values.detach(), inputs.grad, connector.weight.grad

    return call
