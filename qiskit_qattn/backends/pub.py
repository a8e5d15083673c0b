"""Circuits on any Estimator: broadcast PUBs forward, parameter shift in one PUB backward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterExpression, ParameterVector
from qiskit.primitives import BaseEstimatorV2
from qiskit.primitives.containers.observables_array import ObservablesArray
from qiskit.quantum_info.operators.base_operator import BaseOperator
from torch import Tensor, nn

from qiskit_qattn.errors import BackendError, CircuitError
from qiskit_qattn.simulation.angles import AngleMap
from qiskit_qattn.simulation.gates import is_parametric

# Gates e^{-iθG/2} (up to a phase) whose generator has two eigenvalues 2 apart: the shift rule below is exact for them.
SHIFT_GATES = {"rx", "ry", "rz", "p", "u1", "rxx", "ryy", "rzz", "rzx"}


class PubProgram(nn.Module):
    r"""Expectations of a circuit through a primitive, differentiable by the parameter-shift rule.

    Every gate that holds a parameter gets an angle α of its own, a differentiable function of inputs and weights, and

    .. math:: \frac{\partial f}{\partial \alpha} = \tfrac12 \big[f(\alpha + \tfrac\pi2) - f(\alpha - \tfrac\pi2)\big]

    Args:
        circuit: A circuit the estimator accepts as it is (transpiled where that is needed).
        observables: Operators on its qubits.
        input_params: Parameters that carry data, in the order of the input's last axis.
        weight_params: Trainable parameters, in the order of the weights' last axis.
        estimator: Any ``BaseEstimatorV2``.
        precision: Target standard error; 0 asks for exact values.

    Raises:
        CircuitError: For a parametric gate without a shift rule or a definition that leads to one.

    Source: Mitarai et al., PRA 98, 032309 (2018), equation (13); Schuld et al., PRA 99, 032331 (2019).
    """

    def __init__(
        self,
        circuit: QuantumCircuit,
        observables: Sequence[BaseOperator],
        *,
        input_params: Sequence[Any],
        weight_params: Sequence[Any],
        estimator: BaseEstimatorV2,
        precision: float,
    ) -> None:
        super().__init__()
        expressions: list[ParameterExpression] = []
        self.circuit = circuit.copy_empty_like()
        self.circuit.data.clear()
        self.params = list(ParameterVector("α", _count(circuit)))
        _unroll(circuit, list(self.circuit.qubits), self.circuit, iter(self.params), expressions)
        self.angles = AngleMap(expressions, [*input_params, *weight_params])
        self.observables = ObservablesArray.coerce(list(observables)).reshape(-1, 1)  # a column against the bindings
        self.estimator, self.precision = estimator, precision

    def forward(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """Return expectations, shape ``(..., B, M)``; arguments as for :class:`StatevectorProgram`."""
        lead = torch.broadcast_shapes(inputs.shape[:-1], (*weights.shape[:-1], 1))
        both = torch.cat([inputs.expand(*lead, -1), weights.unsqueeze(-2).expand(*lead, -1).to(inputs.dtype)], -1)
        angles = self.angles(both)  # (..., B, K)
        values = _Expectations.apply(angles.reshape(-1, len(self.params)), self)  # (N, M)
        return values.reshape(*lead, self.observables.size).to(inputs)

    def evaluate(self, angles: np.ndarray) -> np.ndarray:
        """Return expectations, shape ``(N, M)``, of angles of shape ``(N, K)``, as one job.

        Raises:
            BackendError: If the primitive returns values of another shape.
        """
        if len(angles) == 0:
            return np.zeros((0, self.observables.size))
        if not self.params:
            evs = self._run((self.circuit, self.observables)).repeat(len(angles), 1)
        else:
            evs = self._run((self.circuit, self.observables, {tuple(self.params): angles}))  # (M, N)
        if evs.shape != (self.observables.size, len(angles)):
            raise BackendError(
                f"{type(self.estimator).__name__} returned values of shape {evs.shape}, expected "
                f"{(self.observables.size, len(angles))}; it must broadcast observables against parameter values."
            )
        return evs.T

    def _run(self, pub: tuple) -> np.ndarray:
        return np.asarray(self.estimator.run([pub], precision=self.precision).result()[0].data.evs)


class _Expectations(torch.autograd.Function):
    """Values and parameter-shift gradients with respect to gate angles."""

    @staticmethod
    def forward(ctx: Any, angles: Tensor, program: PubProgram) -> Tensor:
        ctx.program = program
        ctx.save_for_backward(angles)
        return torch.from_numpy(program.evaluate(angles.detach().cpu().numpy())).to(angles)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (angles,) = ctx.saved_tensors
        count, width = angles.shape
        shift = np.pi / 2 * np.eye(width)
        base = angles.detach().cpu().numpy()[:, None, None, :]  # (N, 1, 1, K)
        shifted = base + np.stack([shift, -shift])[None]  # (N, 2, K, K)
        values = ctx.program.evaluate(shifted.reshape(-1, width)).reshape(count, 2, width, ctx.program.observables.size)
        jacobian = torch.from_numpy((values[:, 0] - values[:, 1]) / 2).to(grads[0])  # (N, K, M)
        return torch.einsum("nkm,nm->nk", jacobian, grads[0]), None


def _count(circuit: QuantumCircuit) -> int:
    """Return how many angles :func:`_unroll` will ask for."""
    total = 0
    for item in circuit.data:
        if is_parametric(item.operation):
            total += 1 if item.operation.name in SHIFT_GATES else _count(_definition(item.operation))
    return total


def _definition(operation: Any) -> QuantumCircuit:
    if operation.definition is None:
        raise CircuitError(
            f"Gate {operation.name!r} holds parameters but has neither a parameter-shift rule nor a definition. "
            f"Known: {sorted(SHIFT_GATES)}."
        )
    return operation.definition


def _unroll(
    source: QuantumCircuit, qubits: list[Any], target: QuantumCircuit, params: Any, expressions: list[Any]
) -> None:
    """Append ``source`` to ``target``, replacing each parametric gate's angle by the next of ``params``."""
    for item in source.data:
        operation = item.operation
        where = [qubits[source.find_bit(qubit).index] for qubit in item.qubits]
        if not is_parametric(operation):
            target.append(operation, where)
        elif operation.name in SHIFT_GATES:
            parameter: Parameter = next(params)
            expressions.append(operation.params[0])
            fresh = operation.to_mutable()
            fresh.params = [parameter]
            target.append(fresh, where)
        elif operation.name != "global_phase":
            _unroll(_definition(operation), where, target, params, expressions)
