"""TorchConnector: Qiskit Machine Learning's, with the exact engine behind it where that gives the same values."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from qiskit_machine_learning import QiskitMachineLearningError
from qiskit_machine_learning.connectors import TorchConnector as QiskitTorchConnector
from qiskit_machine_learning.neural_networks import EstimatorQNN, NeuralNetwork
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from qiskit_qattn.backends.place import Place
from qiskit_qattn.backends.registry import Backend
from qiskit_qattn.errors import CheckpointError, ConfigError
from qiskit_qattn.library.attention_circuit import AttentionCircuit
from qiskit_qattn.nn.audit import Audit
from qiskit_qattn.nn.compiled import compile_qnn
from qiskit_qattn.nn.fallback import Execution, program_on
from qiskit_qattn.nn.networks import (
    WEIGHTS,
    check_network_values,
    load_network,
    network_circuit,
    save_network,
)
from qiskit_qattn.nn.outcomes import SparseGradient
from qiskit_qattn.nn.placement import Movable, Placement
from qiskit_qattn.simulation.amplitude import check_finite
from qiskit_qattn.untrusted import shown


class TorchConnector(Placement, Movable, QiskitTorchConnector):
    r"""A drop-in for :class:`qiskit_machine_learning.connectors.TorchConnector`.

    .. math:: y_{b,m} = \langle O_m \rangle(x_b, \theta)

    Where the network is an :class:`EstimatorQNN` on an exact, noiseless simulator, values come from one batched torch
    program with autograd to inputs and weights, on the device and in the dtype of ``weight``; from 21 to 30 qubits
    from matrix product states, with gradients by parameter shift (see ``compile_qnn``). On any other estimator
    each pass is one broadcast PUB, with gradients by parameter shift. A :class:`SamplerQNN` on a sampler that draws no
    shots, Qiskit Machine Learning's default, takes the exact program too: values are sums of outcome probabilities, as
    ``interpret`` says. Samplers that draw shots, networks of other kinds, other gradient methods
    and circuits the engine cannot take run as in the parent class. Without the network's ``input_gradients`` nothing
    flows to inputs, as in the parent class, and no circuit is run for that.

    With ``backend``, or after :meth:`to_backend`, an :class:`EstimatorQNN` or a :class:`SamplerQNN` runs on a backend,
    or on a chain of them: transpiled once with its observables in the layout, with the backend's shots, gradient rule,
    ledger and budget. Of the network, the circuit, the observables or the interpretation, and the order of the
    parameters count then; its primitive, precision, gradient and pass manager do not. The probabilities of a
    :class:`SamplerQNN` are measured in one basis: with shots, and no mitigation, they are frequencies.

    Args:
        neural_network: Any Qiskit Machine Learning network.
        initial_weights: Initial weights; None draws them uniformly from [−1, 1].
        sparse: Whether to return sparse output; None takes the network's setting.
        backend: Where the circuit runs: a backend string, a chain such as ``"ibm:ibm_fez?budget=60s -> statevector"``,
            or the backend or place that one opened; None takes the network's own estimator.

    Raises:
        QiskitMachineLearningError: If sparse output is asked of a dense network, and, when called, if the last axis of
            the input is not ``neural_network.num_inputs`` long.
        CircuitError: For a network that measures other qubits than those its layout put the circuit on.
        ConfigError: For a backend, with a network of another class than these two, also a subclass.
        UnknownNameError, ConfigError: For a string that names no backend.
        ConfigError: For something else than a network, and when called with something else than a tensor.
    """

    def __init__(
        self,
        neural_network: NeuralNetwork,
        initial_weights: Any | None = None,
        sparse: bool | None = None,
        *,
        backend: Backend | Place | str | None = None,
    ) -> None:
        if not hasattr(neural_network, "num_weights"):
            hint = "its network is circuit.qnn()" if isinstance(neural_network, AttentionCircuit) else ""
            hint = hint or "a QuantumCircuit becomes one as EstimatorQNN(circuit=…, input_params=…, weight_params=…)"
            raise ConfigError(f"TorchConnector takes a neural network, got {shown(neural_network)}: {hint}.")
        super().__init__(neural_network, initial_weights, sparse)
        self._program: nn.Module | None = None
        self._program_for: tuple[Any, ...] | None = None
        self.place: Place | None = None
        self._audit = Audit(None, self.circuit_name)
        if backend is None:
            self._refresh()
        else:
            self.to_backend(backend)

    @property
    def backend(self) -> Backend | Place | None:
        """The backend that the circuit runs on, or the place for a chain; None for the network's own estimator."""
        return None if self.place is None else self.place.single or self.place

    @property
    def circuit_name(self) -> str:
        """The network's class, such as ``EstimatorQNN``: it is one circuit, without a name."""
        return type(self.neural_network).__name__

    @property
    def execution(self) -> Execution:
        """How the circuit is run now."""
        return Execution(self.place, self._program, self._audit)

    def prepare(self, place: Place, audit: Audit) -> Execution:
        """Return what :meth:`run_on` takes to run the circuit on a place, without moving it there."""
        program = program_on(network_circuit(self.neural_network), place, audit)
        return Execution(place, program.to(self._weights), audit)

    def run_on(self, execution: Execution) -> None:
        """Run the circuit in this way from now on."""
        self.place, self._audit = execution.place, execution.audit
        self._program = None if execution.program is None else execution.program.to(self._weights)
        if self.place is not None:
            self._program_for = self._parts()

    def forward(self, input_data: Tensor | None = None) -> Tensor:
        """Return values, shape ``(..., *output_shape)``, for inputs ``(..., num_inputs)`` or None for no inputs.

        With ``sparse`` they are a sparse COO tensor in float64, and the gradient of the weights is sparse too.
        """
        if not isinstance(input_data, Tensor | None):
            raise ConfigError(
                f"TorchConnector takes a tensor of shape (…, {self.neural_network.num_inputs}), got "
                f"{shown(input_data)}."
            )
        self._refresh()
        if self._program is None:
            values = super().forward(input_data).clone()  # it may be a view, which cannot be changed in place
            network = self.neural_network
            if type(network) is EstimatorQNN and not values.is_sparse:
                check_network_values(values, network)
            return values
        weight = SparseGradient.apply(self._weights) if self._sparse else self._weights
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
        if rows.is_meta:  # shapes only
            return weight.new_empty(*inputs.shape[:-1], *self.neural_network.output_shape)
        if self.place is not None and not (self.place.single and self.place.differentiable):
            check_finite(rows, wait=True)  # a device would be paid for it
        if self.neural_network.input_gradients:
            values = self._program(rows, weight)  # (B, M)
        else:
            values = self._program(rows.detach(), weight)  # (B, M)
            if rows.requires_grad and not values.requires_grad:
                values = _WithoutGradient.apply(values, rows)
        values = values.reshape(*inputs.shape[:-1], *self.neural_network.output_shape)
        values = values.to(device=inputs.device, dtype=weight.dtype)
        return values.double().to_sparse() if self._sparse else values

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the network and its weights to a folder; the estimator is not part of it.

        ``network.qpy`` is the circuit, ``network.json`` the observables and the order of inputs and weights, and
        ``model.safetensors`` the weights. ``qattn estimate`` reads the first two only.

        Args:
            folder: Where to; made if it is not there.

        Raises:
            ConfigError: For a network of another class than :class:`EstimatorQNN`.
            CheckpointError: If the files cannot be written.
        """
        save_network(self.neural_network, folder)
        try:
            save_file({"weight": self._weights.detach().cpu().contiguous()}, Path(folder) / WEIGHTS)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"The weights cannot be written to {str(folder)!r}: {error}") from error

    @classmethod
    def from_pretrained(
        cls, folder: str | os.PathLike[str], *, backend: Backend | Place | str | None = None
    ) -> TorchConnector:
        """Return what :meth:`save_pretrained` wrote, with an exact estimator.

        Args:
            folder: Where from.
            backend: As for the class.

        Raises:
            CheckpointError: For a folder without a network, or files that are damaged or do not fit together.
        """
        network = load_network(folder)
        try:
            weight = load_file(Path(folder) / WEIGHTS)["weight"]
        except (OSError, KeyError, SafetensorError) as error:
            raise CheckpointError(f"{WEIGHTS} in {str(folder)!r} cannot be read: {error}") from error
        if weight.shape != (network.num_weights,):
            raise CheckpointError(
                f"{WEIGHTS} in {str(folder)!r} has weights of shape {tuple(weight.shape)}, but the network has "
                f"{network.num_weights}."
            )
        layer = cls(network, backend=backend).to(weight.dtype)
        with torch.no_grad():
            layer._weights.copy_(weight)
        return layer

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
        """Build the program again if the network's primitive, gradient or interpretation was replaced."""
        parts, known = self._parts(), self._program_for
        same = known is not None and known[0] == parts[0] and known[1] is parts[1] and known[2] is parts[2]
        if same and known is not None and known[3] is parts[3]:
            return
        if self.place is None:
            program = compile_qnn(self.neural_network).program
            self._program, self._program_for = None if program is None else program.to(self._weights), parts
        else:
            self.run_on(self.prepare(self.place, self._audit))

    def _parts(self) -> tuple[Any, ...]:
        """Return what of the network can be replaced and counts where the circuit runs now."""
        network = self.neural_network
        shape, interpret = network.output_shape, getattr(network, "interpret", None)
        if self.place is not None:
            return shape, interpret, self.place, None
        primitive = getattr(network, "sampler" if hasattr(network, "sampler") else "estimator", None)
        return shape, interpret, primitive, getattr(network, "gradient", None)


class _WithoutGradient(torch.autograd.Function):
    """The first argument, which depends on the second but gives it no gradient, as Qiskit Machine Learning's does."""

    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor, inputs: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None

    @staticmethod
    def jvp(ctx: Any, values: Tensor | None, inputs: Tensor | None) -> Tensor | None:
        return values
