"""Circuits on any Estimator: one job of broadcast PUBs forward, one backward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from qiskit import QuantumCircuit
from qiskit.primitives import BaseEstimatorV2
from qiskit.primitives.containers.observables_array import ObservablesArray
from qiskit.quantum_info.operators.base_operator import BaseOperator
from torch import Tensor, nn

from qiskit_qattn.backends.gradients import DifferenceRule, ParameterShift, Simulated, unique_rows, vector_jacobian
from qiskit_qattn.backends.unroll import unroll
from qiskit_qattn.errors import BackendError
from qiskit_qattn.simulation.angles import AngleMap
from qiskit_qattn.simulation.statevector import StatevectorProgram

if TYPE_CHECKING:
    from qiskit_qattn.backends.registry import Backend
    from qiskit_qattn.library.attention_circuit import AttentionCircuit


def attention_program(circuit: AttentionCircuit, backend: Backend) -> nn.Module:
    """Return the program that evaluates an attention circuit on a backend's estimator, by the backend's gradient rule.

    It takes the encoding's angles, for amplitude encoding as for others.
    """
    network = circuit.qnn(backend)  # transpiled
    params: dict[str, Any] = {"input_params": circuit.input_params, "weight_params": circuit.weight_params}
    rule = backend.gradient
    program = PubProgram(
        network.circuit,
        list(network.observables),
        estimator=backend.estimator,
        precision=backend.precision,
        gradient=ParameterShift() if isinstance(rule, Simulated) else rule,
        max_pub_size=backend.max_pub_size,
        **params,
    )
    if isinstance(rule, Simulated):
        return SimulatedGradient(program, StatevectorProgram(circuit.circuit, circuit.observables, **params))
    return program


class PubProgram(nn.Module):
    r"""Expectations of a circuit through a primitive, differentiable by a rule that runs circuits.

    Every gate that holds a parameter gets an angle α of its own, a differentiable function of inputs and weights. The
    rule differentiates with respect to α, and only where a gradient is asked for: the angles of frozen weights, or of
    inputs that need no gradient, cost no circuit. Equal rows of angles are evaluated once and share their samples.

    Args:
        circuit: A circuit the estimator accepts as it is (transpiled where that is needed).
        observables: Operators on its qubits.
        input_params: Parameters that carry data, in the order of the input's last axis.
        weight_params: Trainable parameters, in the order of the weights' last axis.
        estimator: Any ``BaseEstimatorV2``.
        precision: Target standard error; 0 asks for exact values.
        gradient: Which circuits the backward pass runs; the parameter-shift rule by default.
        max_pub_size: Largest number of parameter sets in one PUB, or None for no limit. More are several PUBs of a job.

    Raises:
        CircuitError: For a parametric gate without a shift rule or a definition that leads to one.
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
        gradient: DifferenceRule | None = None,
        max_pub_size: int | None = None,
    ) -> None:
        super().__init__()
        self.circuit, self.params, expressions = unroll(circuit)
        self.angles = AngleMap(expressions, [*input_params, *weight_params])
        self.of_inputs, self.of_weights = (
            np.array([not angle.parameters.isdisjoint(params) for angle in expressions], dtype=bool)
            for params in (input_params, weight_params)
        )
        self.observables = ObservablesArray.coerce(list(observables)).reshape(-1, 1)  # a column against the bindings
        self.estimator, self.precision, self.max_pub_size = estimator, precision, max_pub_size
        self.gradient = ParameterShift() if gradient is None else gradient

    def forward(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """Return expectations, shape ``(..., B, M)``; arguments as for :class:`StatevectorProgram`."""
        lead = torch.broadcast_shapes(inputs.shape[:-1], (*weights.shape[:-1], 1))
        both = torch.cat([inputs.expand(*lead, -1), weights.unsqueeze(-2).expand(*lead, -1).to(inputs.dtype)], -1)
        angles = self.angles(both)  # (..., B, K)
        wanted = self.of_inputs & inputs.requires_grad | self.of_weights & weights.requires_grad  # (K,)
        values = _Expectations.apply(angles.flatten(0, -2), self, wanted)  # (N, M)
        return values.reshape(*lead, self.observables.size).to(inputs)

    def evaluate(self, angles: np.ndarray) -> np.ndarray:
        """Return expectations, shape ``(N, M)``, of angles of shape ``(N, K)``, as one job.

        Raises:
            BackendError: If the primitive returns values of another shape.
        """
        if len(angles) == 0:
            return np.zeros((0, self.observables.size))
        size = self.max_pub_size or len(angles)
        parts = [angles[start : start + size] for start in range(0, len(angles), size)]
        result = self.estimator.run([self._pub(part) for part in parts], precision=self.precision).result()
        return np.concatenate([self._values(pub.data.evs, len(part)) for pub, part in zip(result, parts, strict=True)])

    def _pub(self, angles: np.ndarray) -> tuple:
        bindings = ({tuple(self.params): angles},) if self.params else ()
        return (self.circuit, self.observables, *bindings)

    def _values(self, evs: Any, count: int) -> np.ndarray:
        """Return the values of one PUB, shape ``(count, M)``."""
        expected = (self.observables.size, count)
        values = np.asarray(evs)
        if not self.params and values.shape == (expected[0], 1):  # nothing was bound: all rows are one
            values = values.repeat(count, 1)
        if values.shape != expected:
            raise BackendError(
                f"{type(self.estimator).__name__} returned values of shape {values.shape}, expected {expected}; "
                f"it must broadcast observables against parameter values."
            )
        return values.T


class SimulatedGradient(nn.Module):
    """Values of one program with the gradients of another.

    Args:
        program: Gives the values; it is never differentiated.
        exact: Gives the gradients: a differentiable program of the same inputs and weights.
    """

    def __init__(self, program: nn.Module, exact: nn.Module) -> None:
        super().__init__()
        self.program, self.exact = program, exact

    def forward(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """Return expectations, shape ``(..., B, M)``; arguments as for :class:`StatevectorProgram`."""
        with torch.no_grad():
            values = self.program(inputs, weights)
        return _Replaced.apply(self.exact(inputs, weights), values) if torch.is_grad_enabled() else values


class _Expectations(torch.autograd.Function):
    """Values and vector–Jacobian products with respect to gate angles."""

    @staticmethod
    def forward(ctx: Any, angles: Tensor, program: PubProgram, wanted: np.ndarray) -> Tensor:
        ctx.program, ctx.wanted = program, wanted
        ctx.save_for_backward(angles)
        rows, which = unique_rows(angles.detach().cpu().numpy())
        return torch.from_numpy(program.evaluate(rows)[which]).to(angles)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _Product.apply(ctx.saved_tensors[0], grad, ctx.program, ctx.wanted), None, None


class _Product(torch.autograd.Function):
    """A vector–Jacobian product of :class:`_Expectations`."""

    @staticmethod
    def forward(ctx: Any, angles: Tensor, grad: Tensor, program: PubProgram, wanted: np.ndarray) -> Tensor:
        points, cotangent = (tensor.detach().cpu().double().numpy() for tensor in (angles, grad))
        product = vector_jacobian(program.evaluate, program.gradient, points, cotangent, wanted)
        return torch.from_numpy(product).to(angles)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> None:
        raise BackendError(
            "Values of an estimator were differentiated twice; gradient rules that run circuits give first "
            "derivatives only. Use an exact backend such as statevector, or gradient=simulated."
        )


class _Replaced(torch.autograd.Function):
    """The second argument, with the gradient going to the first."""

    @staticmethod
    def forward(ctx: Any, exact: Tensor, values: Tensor) -> Tensor:
        return values.to(exact)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None
