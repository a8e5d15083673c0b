"""How, for any circuit: gates are applied to a batch of state vectors, one after the other. The reference."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from qiskit_qattn.simulation.amplitude import unit_vectors
from qiskit_qattn.simulation.angles import AngleMap
from qiskit_qattn.simulation.constants import ConstantModule
from qiskit_qattn.simulation.operators import Block
from qiskit_qattn.simulation.plan import Plan
from qiskit_qattn.simulation.readout import MeasurementBases


class Gatewise(ConstantModule):
    """State vectors as columns of a batch: initial state, blocks and phases in turn, then the measurement bases.

    Args:
        plan: What is computed.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.amplitude_input = plan.input_kind == "amplitude"
        self.mixed = plan.mixed
        # Rounding adds up gate by gate; where few rows come here instead of to unitaries, float64 costs little.
        self.float64 = plan.dense or plan.float64
        assert plan.program is not None
        self.blocks = nn.ModuleList(Block(steps, plan.weight_params, plan.num_qubits) for steps in plan.program.blocks)
        self.phases = nn.ModuleList(
            AngleMap(step.angles, plan.phase_params, combine=step.coefficients) for step in plan.program.phases
        )
        self.num_phases = len(self.phases)
        if not self.amplitude_input:
            self.add_constant("ground", np.eye(2**plan.num_qubits, 1), double=True)  # |0…0⟩
        self.measure = MeasurementBases(plan.readout, plan.outcomes)

    def amplitudes(self, inputs: Tensor, weights: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the amplitudes of the outcomes, shape ``(..., R, B)``.

        Args:
            inputs: Shape ``(..., B, num_inputs)``.
            weights: Angles in radians, shape ``(..., num_weights)``.
            dtype: Real dtype of the amplitudes, unless float64 is needed.
        """
        state_dtype = torch.complex128 if self.float64 or dtype == torch.float64 else torch.complex64
        data = self.phase_data(inputs, weights)
        if self.amplitude_input:
            columns = self.unit_rows(inputs, dtype).mT.to(state_dtype)  # (..., 2**n, B)
        else:
            columns = self.constant("ground").to(state_dtype)  # (2**n, 1) until data comes in
        for phases, block in zip([None, *self.phases], self.blocks, strict=True):
            if phases is not None:
                angles = phases(data).mT  # (..., 2**n, B)
                columns = torch.polar(torch.ones_like(angles), angles).to(state_dtype) * columns
            columns = block(columns, weights)
        columns = self.measure(columns)  # (..., R, B or 1)
        return columns.expand(*columns.shape[:-1], inputs.shape[-2])

    def phase_data(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """Return the values of ``Plan.phase_params``, shape ``(..., B, num_params)``."""
        return inputs_and_weights(inputs, weights) if self.mixed else inputs

    @staticmethod
    def unit_rows(inputs: Tensor, dtype: torch.dtype) -> Tensor:
        """Return normalised inputs in ``dtype``; those in float64 may be out of float32's range before."""
        return unit_vectors(inputs if inputs.dtype == torch.float64 else inputs.to(dtype)).to(dtype)


def inputs_and_weights(inputs: Tensor, weights: Tensor) -> Tensor:
    """Return inputs and weights side by side, shape ``(..., B, num_inputs + num_weights)``."""
    lead = torch.broadcast_shapes(inputs.shape[:-1], (*weights.shape[:-1], 1))
    return torch.cat([inputs.expand(*lead, -1), weights.unsqueeze(-2).expand(*lead, -1)], -1)
