"""Heads as a user of Qiskit Machine Learning would write them: a network and a connector each."""

from __future__ import annotations

import torch
from qiskit.primitives import BaseEstimatorV2
from qiskit_machine_learning.connectors import TorchConnector
from qiskit_machine_learning.neural_networks import EstimatorQNN
from torch import Tensor, nn

from qiskit_qattn import QuantumHead


class ConnectorHeads(nn.Module):
    """The circuits, weights and gains of a :class:`QuantumHead`, in one ``EstimatorQNN`` and connector a head.

    Gradients go by Qiskit ML's default, ``ParamShiftEstimatorGradient``, to weights and inputs.
    """

    def __init__(self, heads: QuantumHead, estimator: BaseEstimatorV2, precision: float) -> None:
        super().__init__()
        circuit = heads.circuit
        self.connectors = nn.ModuleList()
        for weights in heads.weight.detach():
            network = EstimatorQNN(
                circuit=circuit.circuit,
                observables=circuit.observables,
                input_params=circuit.input_params,
                weight_params=circuit.weight_params,
                input_gradients=True,
                estimator=estimator,
                default_precision=precision,
            )
            self.connectors.append(TorchConnector(network, weights.numpy()))
        self.gain = nn.Parameter(heads.gain.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Return values, shape ``(H, N, M)``, of inputs of shape ``(H, N, D)``."""
        values = torch.stack([connector(rows) for connector, rows in zip(self.connectors, x, strict=True)])
        return values * self.gain.unsqueeze(-2)
