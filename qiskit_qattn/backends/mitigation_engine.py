"""The noisy engine with mitigated values, which stay differentiable."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from qiskit import QuantumCircuit
from qiskit.quantum_info.operators.base_operator import BaseOperator
from torch import Tensor, nn

from qiskit_qattn.backends.mitigation import Folding, Mitigation
from qiskit_qattn.simulation.constants import ConstantModule
from qiskit_qattn.simulation.density_matrix import DensityMatrixProgram, NoisyEngine


@dataclass(frozen=True)
class MitigatedEngine:
    r"""Builds programs of mitigated expectations under noise, without shot noise; options as for :class:`NoisyEngine`.

    Twirled readout error multiplies a Pauli string on qubits S by :math:`f_S = \prod_{i \in S} \alpha_i`, and a
    calibration without shot noise measures :math:`f_S` too: what ``trex`` leaves is the expectation without readout
    error. ``zne`` adds up the expectations of folded circuits by fixed weights, so that all is differentiable.

    Attributes:
        engine: Builds the program of a circuit.
        mitigation: What is mitigated.
    """

    engine: NoisyEngine
    mitigation: Mitigation

    def __call__(self, circuit: QuantumCircuit, observables: Sequence[BaseOperator], **options: Any) -> nn.Module:
        """Return the program of a circuit; errors as of :class:`NoisyEngine`."""
        engine = self.engine
        if "trex" in self.mitigation.methods:
            engine = replace(engine, readout=False)
        if "zne" not in self.mitigation.methods:
            return engine(circuit, observables, **options)
        parts = [
            replace(engine, pass_manager=Folding(engine.pass_manager, factor))(circuit, observables, **options)
            for factor in self.mitigation.factors
        ]
        return Extrapolation(parts, self.mitigation.weights)

    def settings(self) -> Hashable:
        """Return a key of what programs depend on besides the circuit."""
        return self.engine.settings(), self.mitigation


class Extrapolation(ConstantModule):
    r"""Expectations :math:`\sum_\lambda w_\lambda E(\lambda)` at zero noise from those at several noise factors.

    Args:
        parts: Programs of the same inputs and weights, one for each noise factor.
        weights: :math:`w_\lambda`.
    """

    weights: Tensor

    def __init__(self, parts: Sequence[nn.Module], weights: np.ndarray) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.add_constant("weights", weights)

    def forward(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """Return expectations, shape ``(..., B, M)``."""
        self.leave_meta(weights)
        return torch.stack([part(inputs, weights) for part in self.parts], -1) @ self.weights

    def summary(self) -> str:
        """Return in a phrase what a call computes."""
        return f"{len(self.parts)} noise factors, each of {cast(DensityMatrixProgram, self.parts[0]).summary()}"
