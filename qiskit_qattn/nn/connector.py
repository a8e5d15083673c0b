"""TorchConnector: Qiskit Machine Learning's, with the exact engine behind it where that gives the same values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from qiskit.primitives import StatevectorEstimator
from qiskit_machine_learning import QiskitMachineLearningError
from qiskit_machine_learning.connectors import TorchConnector as QiskitTorchConnector
from qiskit_machine_learning.gradients import LinCombEstimatorGradient, ParamShiftEstimatorGradient
from qiskit_machine_learning.neural_networks import EstimatorQNN, NeuralNetwork
from qiskit_machine_learning.primitives import QMLEstimator
from torch import Tensor, nn

from qiskit_qattn.backends.mps.estimator import mps_program, mps_summary
from qiskit_qattn.backends.pub import PubProgram
from qiskit_qattn.errors import CircuitError, MissingDependencyError
from qiskit_qattn.simulation.estimator import TorchEstimator
from qiskit_qattn.simulation.program import MAX_QUBITS
from qiskit_qattn.simulation.statevector import StatevectorProgram


class TorchConnector(QiskitTorchConnector):
    r"""A drop-in for :class:`qiskit_machine_learning.connectors.TorchConnector`.

    .. math:: y_{b,m} = \langle O_m \rangle(x_b, \theta)

    Where the network is an :class:`EstimatorQNN` on an exact, noiseless simulator, values come from one batched torch
    program with autograd to inputs and weights, on the device and in the dtype of ``weight``; from 17 to 30 qubits
    from matrix product states, with gradients by parameter shift (:func:`compile_qnn` tells). On any other estimator
    each pass is one broadcast PUB, with gradients by parameter shift. Networks of other kinds, other gradient methods
    and circuits the engine cannot take run as in the parent class.

    Args:
        neural_network: Any Qiskit Machine Learning network.
        initial_weights: Initial weights; None draws them uniformly from [−1, 1].
        sparse: Whether to return sparse output; None takes the network's setting.

    Raises:
        QiskitMachineLearningError: If sparse output is asked of a dense network, and, when called, if the last axis of
            the input is not ``neural_network.num_inputs`` long.
    """

    def __init__(
        self, neural_network: NeuralNetwork, initial_weights: Any | None = None, sparse: bool | None = None
    ) -> None:
        super().__init__(neural_network, initial_weights, sparse)
        self._program: nn.Module | None = None
        self._program_for: tuple[Any, Any] | None = None
        self._refresh()

    def forward(self, input_data: Tensor | None = None) -> Tensor:
        """Return expectations, shape ``(..., M)``, for inputs of shape ``(..., num_inputs)`` or None for no inputs."""
        self._refresh()
        if self._program is None:
            return super().forward(input_data).clone()  # it may be a view, which cannot be changed in place
        weight = self._weights
        inputs = weight.new_zeros(0) if input_data is None else input_data
        if inputs.shape[-1] != self.neural_network.num_inputs:
            raise QiskitMachineLearningError(
                f"Invalid input dimension! Received {inputs.shape} and "
                f"expected input compatible to {self.neural_network.num_inputs}"
            )
        wide = inputs.dtype == torch.float64  # large angles are reduced before they are rounded
        rows = inputs.to(device=weight.device, dtype=inputs.dtype if wide else weight.dtype)
        if rows.ndim != 2:
            rows = rows.flatten(0, -2) if rows.ndim > 2 else rows[None]
        values = self._program(rows, weight)  # (B, M)
        if inputs.ndim == 2 and inputs.device == weight.device:
            return values.to(weight.dtype)
        return values.reshape(*inputs.shape[:-1], values.shape[-1]).to(device=inputs.device, dtype=weight.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TorchConnector:
        super()._apply(fn, recurse)
        self.register_parameter("weight", self._weights)  # one of two names, also where torch makes new ones: from meta
        return self

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        name = "weight" if f"{prefix}weight" in state_dict else "_weights"
        self.register_parameter("_weights", self._parameters[name])  # it may have been assigned instead of copied
        self.register_parameter("weight", self._weights)

    def _refresh(self) -> None:
        """Build the program again if the network's estimator or gradient was replaced."""
        network = self.neural_network
        estimator, gradient = getattr(network, "estimator", None), getattr(network, "gradient", None)
        known = self._program_for
        if known is None or known[0] is not estimator or known[1] is not gradient:
            self._program_for = estimator, gradient
            program = compile_qnn(network).program
            self._program = None if program is None else program.to(self._weights)


@dataclass(frozen=True)
class CompiledQNN:
    """How a network will be evaluated.

    Attributes:
        engine: ``statevector`` and ``density_matrix`` are torch engines with autograd. ``mps`` and ``pub`` send
            broadcast PUBs with gradients by parameter shift: to matrix product states, for exact values beyond 16
            qubits, and to the network's own estimator. ``network`` leaves everything to the network, one PUB a sample.
        reason: Why this one, in a sentence.
        program: The module that evaluates ``(inputs, weights)``, or None for ``network``.
    """

    engine: Literal["statevector", "density_matrix", "mps", "pub", "network"]
    reason: str
    program: nn.Module | None

    def __str__(self) -> str:
        return f"{self.engine}: {self.reason}"


def compile_qnn(network: NeuralNetwork) -> CompiledQNN:
    """Tell which engine :class:`TorchConnector` runs a network on, and why.

    Args:
        network: Any Qiskit Machine Learning network.
    """
    if not isinstance(network, EstimatorQNN):
        return CompiledQNN("network", f"{type(network).__name__} is no EstimatorQNN.", None)
    estimator, gradient = network.estimator, network.gradient
    if not isinstance(gradient, ParamShiftEstimatorGradient | LinCombEstimatorGradient):
        return CompiledQNN("network", f"{type(gradient).__name__} is no exact derivative, so it is kept.", None)
    arguments: dict[str, Any] = {
        "input_params": network.input_params or (),
        "weight_params": network.weight_params or (),
    }
    circuit, observables = network.circuit, list(network.observables)
    try:
        if is_exact(network):
            engine = getattr(estimator, "engine", StatevectorProgram)
            if engine is StatevectorProgram and circuit.num_qubits > MAX_QUBITS:
                why = f"{type(estimator).__name__} returns exact values; {mps_summary(circuit)}."
                return CompiledQNN("mps", why, mps_program(circuit, observables, **arguments))
            program = engine(circuit, observables, **arguments)
            name: Any = "statevector" if isinstance(program, StatevectorProgram) else "density_matrix"
            return CompiledQNN(name, f"{type(estimator).__name__} returns exact values; {program.summary()}.", program)
        if type(gradient) is not ParamShiftEstimatorGradient:
            return CompiledQNN("network", f"{type(gradient).__name__} on an estimator that is not exact is kept.", None)
        precision = network.default_precision
        program = PubProgram(circuit, observables, estimator=estimator, precision=precision, **arguments)
    except (CircuitError, MissingDependencyError) as error:  # too wide, not unitary, no Aer: the network may manage
        return CompiledQNN("network", str(error), None)
    why = f"{type(estimator).__name__} at precision {precision:g} is no exact simulator; one PUB a pass."
    return CompiledQNN("pub", why, program)


def is_exact(network: EstimatorQNN) -> bool:
    """Tell whether a network's estimator is a simulator that returns exact values, of which a torch engine is known."""
    estimator = network.estimator
    if type(estimator) is QMLEstimator:
        return estimator.default_precision == 0  # it then ignores the precision asked for
    return type(estimator) in (StatevectorEstimator, TorchEstimator) and network.default_precision == 0
