r"""The noisy engine: expectations under noise as a batched, differentiable torch program.

A density matrix is held as its 4ⁿ real Pauli coefficients, :math:`\rho = 2^{-n} \sum_P r_P P`. Then fixed gates and
noise are real transfer matrices, expectations are coefficients, and a rotation about a Pauli string Q only mixes pairs:

.. math:: r_P \mapsto \cos\theta\, r_P + \sin\theta\, s_{P} r_{PQ} \quad \text{where P and Q anticommute}

with signs :math:`s_P`; the other coefficients stay. What depends on data acts on the batch. What follows the last
data-dependent angle is applied once, to the observables, in the Heisenberg picture.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from qiskit import QuantumCircuit
from qiskit.quantum_info import SparsePauliOp
from qiskit.quantum_info.operators.base_operator import BaseOperator
from scipy.linalg import hadamard
from torch import Tensor, nn

from qiskit_qattn.errors import CircuitError
from qiskit_qattn.library.observables import served
from qiskit_qattn.simulation.angles import AngleMap
from qiskit_qattn.simulation.cache import Identity
from qiskit_qattn.simulation.constants import ConstantModule
from qiskit_qattn.simulation.cutting import cut, measured_qubits, without_final_measurements
from qiskit_qattn.simulation.decomposition import transpiled
from qiskit_qattn.simulation.noise import DeviceNoise, pauli_labels
from qiskit_qattn.simulation.precision import saves_calls, without_autocast
from qiskit_qattn.simulation.readout import as_pauli_sum, build_readout
from qiskit_qattn.simulation.transfer import ChannelModule, PauliRotation, PauliRotationModule, transfer_steps
from qiskit_qattn.simulation.transfer_sums import MAX_QUBITS as SUM_QUBITS
from qiskit_qattn.simulation.transfer_sums import TransferSums

MAX_QUBITS = 6


class DensityMatrixProgram(ConstantModule):
    r"""Expectations :math:`\mathrm{tr}(O_m\, \rho(x, \theta))` under noise, for batches of x.

    Args:
        circuit: Any circuit of unitary gates on at most 6 qubits, in the gates of the noise model.
        observables: Hermitian operators on its qubits.
        input_params: Parameters that carry data, in the order of the input's last axis.
        weight_params: Trainable parameters, in the order of the weights' last axis.
        noise: The device's errors; None for no noise.
        all_outcomes: Prepare :meth:`probabilities`, which costs 2ⁿ expectations per basis.

    Raises:
        CircuitError: For circuits, parameters or observables that cannot be simulated.
    """

    observables: Tensor
    start: Tensor
    strings: Tensor
    hadamard: Tensor
    signs: Tensor

    def __init__(
        self,
        circuit: QuantumCircuit,
        observables: Sequence[BaseOperator],
        *,
        input_params: Sequence[Any] = (),
        weight_params: Sequence[Any] = (),
        noise: DeviceNoise | None = None,
        all_outcomes: bool = False,
    ) -> None:
        super().__init__()
        self.num_qubits = circuit.num_qubits
        if self.num_qubits > MAX_QUBITS:
            raise CircuitError(
                f"The noisy engine stores 4^n numbers and takes at most {MAX_QUBITS} qubits, got {self.num_qubits}."
            )
        self.num_outputs = len(observables)
        noise = noise or DeviceNoise()
        steps = transfer_steps(circuit, noise)
        data = set(input_params)
        rotations = [(i, step.angle) for i, step in enumerate(steps) if isinstance(step, PauliRotation)]
        split = max((i + 1 for i, angle in rotations if data & set(angle.parameters)), default=0)
        params = [*input_params, *weight_params]
        self.forward_angles = AngleMap([angle for i, angle in rotations if i < split], params)
        self.back_angles = AngleMap([angle for i, angle in rotations if i >= split], list(weight_params))
        self._steps, self._split, self._params, self._num_inputs = steps, split, params, len(input_params)
        self.forward_steps = nn.ModuleList(step.module(self.num_qubits) for step in steps[:split])
        self.back_steps = nn.ModuleList(step.module(self.num_qubits) for step in steps[split:])
        self.add_constant("start", _ground(self.num_qubits))  # (1, 4**n)
        self.add_constant("observables", _rows(observables, noise, self.num_qubits))  # (M, 4**n)
        if all_outcomes:
            readout = build_readout(observables)
            self.bases = readout.bases
            self.add_constant("signs", readout.signs)  # (num_bases * 2**n, M)
            strings = [SparsePauliOp(label) for basis in self.bases for label in served(basis)]
            self.add_constant("strings", _rows(strings, noise, self.num_qubits))  # (num_bases * 2**n, 4**n)
            self.add_constant("hadamard", hadamard(2**self.num_qubits) / 2**self.num_qubits)
        self.sums = nn.ModuleList()  # where calls are to be few: both parts of the steps

    def summary(self) -> str:
        """Return in a phrase what a call computes."""
        return (
            f"{self.num_qubits} qubits, {len(self.forward_steps)} steps on the batch, {len(self.back_steps)} before it"
        )

    def probabilities(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """Return the probabilities of all outcomes, shape ``(..., B, num_bases * 2**n)``; needs ``all_outcomes``.

        They follow from the expectations of the 2ⁿ strings that each basis serves.
        """
        self.leave_meta(weights)
        values = self._evaluate(self.strings, inputs, weights).unflatten(-1, (len(self.bases), -1))
        return (values @ self.hadamard).clamp_min(0).flatten(-2)

    def forward(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """Return expectations, shape ``(..., B, M)``.

        Args:
            inputs: Shape ``(..., B, num_inputs)``.
            weights: Angles in radians, shape ``(..., num_weights)``; leading axes broadcast with the inputs'.
        """
        self.leave_meta(weights)
        return self._evaluate(self.observables, inputs, weights)

    def _settle(self, like: Tensor) -> None:
        super()._settle(like)
        if not hasattr(self, "sums"):  # in the constructor
            return
        wanted = saves_calls(like.device, self.forming) and self.num_qubits <= SUM_QUBITS
        if wanted and not self.sums:
            before, after = self._steps[: self._split], self._steps[self._split :]
            n, params = self.num_qubits, self._params
            self.sums.append(TransferSums(before, params, n, _ground(n)))
            self.sums.append(TransferSums(after, params[self._num_inputs :], n, transpose=True))
            for part in self.sums:
                cast(TransferSums, part).follow(self)
        elif not wanted:
            self.sums = nn.ModuleList()

    def _evaluate(self, rows: Tensor, inputs: Tensor, weights: Tensor) -> Tensor:
        """Return the expectations of operators given as rows over Pauli strings, ``(M, 4**n)``."""
        with without_autocast(inputs.device):
            lead = torch.broadcast_shapes(inputs.shape[:-1], (*weights.shape[:-1], 1))
            both = torch.cat([inputs.expand(*lead, -1), weights.unsqueeze(-2).expand(*lead, -1)], -1)
            if self.sums:
                before, after = self.sums
                rows, coefficients = after(rows, weights.unsqueeze(-2)), before(None, both)
            else:
                rows, coefficients = self._before_data(rows, weights), self._step_by_step(both)
            values = coefficients @ rows.transpose(-1, -2)  # (..., B or 1, M)
            return values if values.shape[:-1] == lead else values.expand(*lead, -1).clone()

    def _before_data(self, rows: Tensor, weights: Tensor) -> Tensor:
        """Return operators as rows in front of the steps after the last data-dependent angle."""
        turns = list(_waves(self.back_angles(weights).unsqueeze(-2), rows.dtype))  # each of shape (..., 1)
        for step in reversed(list(self.back_steps)):
            if isinstance(step, PauliRotationModule):
                rows = step.transpose(rows, *turns.pop())
            else:
                rows = cast(ChannelModule, step).transpose(rows)
        return rows

    def _step_by_step(self, params: Tensor) -> Tensor:
        """Return the state after the last data-dependent angle, ``(..., B or 1, 4**n)``, for all parameters' values."""
        coefficients = self.start  # (1, 4**n)
        following = _waves(self.forward_angles(params), coefficients.dtype)  # each of shape (..., B)
        for step in self.forward_steps:
            waves = next(following) if isinstance(step, PauliRotationModule) else ()
            coefficients = step(coefficients, *waves)
        return coefficients


@dataclass(frozen=True)
class NoisyEngine:
    """Builds noisy programs of circuits, transpiled if there is a pass manager, and cut to the qubits in use.

    With noise it runs what a device would run: time evolution as its synthesis, product formulas included. Without
    noise, time evolution is the exponential.

    Attributes:
        model: An Aer ``NoiseModel``, or None.
        pass_manager: Transpiles circuits to the gates and qubits of the noise model; None for no transpilation.
        readout: Whether measured values carry readout error.
    """

    model: Any = None
    pass_manager: Any = None
    readout: bool = True

    def __call__(
        self, circuit: QuantumCircuit, observables: Sequence[BaseOperator], **options: Any
    ) -> DensityMatrixProgram:
        """Return the program of a circuit; options as for :class:`DensityMatrixProgram`.

        Raises:
            CircuitError: If more than 6 qubits are in use, or the circuit cannot be transpiled or simulated.
        """
        circuit = without_final_measurements(circuit)
        operators = [as_pauli_sum(op) for op in observables]
        if self.pass_manager is not None:
            circuit = transpiled(self.pass_manager, circuit)
            if circuit.layout is not None:
                operators = [op.apply_layout(circuit.layout) for op in operators]
        part = cut(circuit, measured_qubits(circuit, operators))
        reduced = part.observables(operators)
        noise = DeviceNoise(self.model, part.qubits, self.readout)
        return DensityMatrixProgram(part.circuit, reduced, noise=noise, **options)

    def settings(self) -> Hashable:
        """Return a key of what programs depend on besides the circuit: the errors now in the model, and the options."""
        errors: list[tuple[Any, Identity]] = []
        if self.model is not None:
            local, everywhere = self.model._local_quantum_errors, self.model._default_quantum_errors
            errors += [((name, qubits), Identity(error)) for name in local for qubits, error in local[name].items()]
            errors += [(name, Identity(error)) for name, error in everywhere.items()]
            errors += [(qubits, Identity(error)) for qubits, error in self.model._local_readout_errors.items()]
            errors.append((None, Identity(self.model._default_readout_error)))
        return Identity(self.pass_manager), self.readout, tuple(errors)


def _ground(num_qubits: int) -> np.ndarray:
    """Return the Pauli coefficients of |0…0⟩, shape ``(1, 4**n)``."""
    return np.array([[float(set(label) <= {"I", "Z"}) for label in pauli_labels(num_qubits)]])


def _waves(angles: Tensor, dtype: torch.dtype) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield cos and sin of each angle along the last axis, rounded afterwards, since angles may be large."""
    return zip(torch.cos(angles).to(dtype).unbind(-1), torch.sin(angles).to(dtype).unbind(-1), strict=True)


def _rows(observables: Sequence[BaseOperator], noise: DeviceNoise, num_qubits: int) -> np.ndarray:
    """Return observables as rows over Pauli strings, readout error included, shape ``(M, 4**n)``."""
    labels = pauli_labels(num_qubits)
    position = {label: i for i, label in enumerate(labels)}
    rows = np.zeros((len(observables), len(labels)))
    for m, observable in enumerate(observables):
        operator = as_pauli_sum(observable)
        if operator.num_qubits != num_qubits:
            raise CircuitError(
                f"The circuit has {num_qubits} qubits, observable {m} {operator.num_qubits}; they must match."
            )
        for label, coefficient in zip(operator.paulis.to_labels(), operator.coeffs.real, strict=True):
            for name, value in noise.as_read(label).items():
                rows[m, position[name]] += coefficient * value
    return rows
