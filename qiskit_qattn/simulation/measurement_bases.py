"""From the state to the amplitudes of the outcomes that observables need."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from qiskit_qattn.simulation.constants import ConstantModule
from qiskit_qattn.simulation.cost import DENSE_QUBITS
from qiskit_qattn.simulation.elementary import Fixed
from qiskit_qattn.simulation.operators import Block, multiply
from qiskit_qattn.simulation.program import LocalStep
from qiskit_qattn.simulation.readout import Readout


class MeasurementBases(ConstantModule):
    """Turn state vectors into all measurement bases, and keep the outcomes that are needed.

    Args:
        readout: The bases and their rotations.
        outcomes: Positions among the outcomes of all bases, shape ``(R,)``.
    """

    outcomes: Tensor

    def __init__(self, readout: Readout, outcomes: np.ndarray) -> None:
        super().__init__()
        num_qubits = readout.rotations.shape[1]
        self.trivial = all(set(basis) == {"Z"} for basis in readout.bases)  # outcomes are basis states
        self._every = len(outcomes) == len(readout.signs)
        self.add_constant("outcomes", outcomes)
        if num_qubits <= DENSE_QUBITS:
            self.add_constant("matrix", readout.matrix()[outcomes], double=True)  # (R, 2**n)
        steps = [LocalStep(tuple((Fixed(q, m),) for q, m in enumerate(r))) for r in readout.rotations]
        self._blocks = nn.ModuleList(Block([step], (), num_qubits) for step in steps)

    def forward(self, columns: Tensor) -> Tensor:
        """Return amplitudes, shape ``(..., R, C)``, for states as columns of ``(..., 2**n, C)``."""
        if hasattr(self, "matrix") and columns.dtype in (torch.float64, torch.complex128):
            return multiply(self.constant("matrix"), columns)
        if not self.trivial:
            none = columns.real.new_zeros(0)
            columns = torch.cat([turn(columns, none) for turn in self._blocks], -2)
        return columns if self._every else columns.index_select(-2, self.outcomes)
