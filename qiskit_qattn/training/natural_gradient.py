"""Quantum natural gradient as an optimizer of torch: steps of equal size in states, not in angles."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import ParamsT

from qiskit_qattn.errors import ConfigError
from qiskit_qattn.nn.connector import TorchConnector
from qiskit_qattn.nn.heads import QuantumHead
from qiskit_qattn.nn.networks import network_circuit
from qiskit_qattn.simulation.metric import fubini_study
from qiskit_qattn.simulation.statevector import StateProgram
from qiskit_qattn.simulation.unary import OrthogonalProgram


class QuantumNaturalGradient(torch.optim.Optimizer):
    r"""Descent along the quantum natural gradient of circuits' angles.

    .. math:: v \leftarrow \mu v + (g(\theta) + \lambda I)^{-1} \nabla L(\theta), \qquad \theta \leftarrow \theta - \eta v

    with g the Fubini-Study metric (:func:`~qiskit_qattn.simulation.metric.fubini_study`) of each head's circuit, a block
    of its own per head, since heads are circuits side by side. Where data enter, g is the mean over rows of the last
    batch that the circuit computed with gradients. States come from the exact engine, wherever the gradients come from.

    Args:
        params: Circuit angles, ``weight`` of a :class:`QuantumHead` or a :class:`TorchConnector`, or groups of them, as
            for torch's optimizers; the other weights of a model take an optimizer of their own.
        model: The module that holds the circuits. Its circuits get hooks that keep some of their inputs.
        lr: η.
        damping: λ, of the size of a metric's eigenvalues, which are at most P/4 for P rotations.
        momentum: μ.
        rows: How many rows of a batch, evenly spaced, the metric is the mean over.

    Raises:
        ConfigError: For a parameter that is not the angles of a circuit in ``model``, or settings out of bounds.
        CircuitError: For a circuit that the exact engine cannot take.

    Source: Stokes, Izaac, Killoran and Carleo, Quantum 4, 269 (2020), arXiv 1909.02108.
    """

    def __init__(
        self,
        params: ParamsT,
        model: nn.Module,
        lr: float = 0.05,
        *,
        damping: float = 0.01,
        momentum: float = 0.0,
        rows: int = 64,
    ) -> None:
        self._circuits = {module.weight: module for module in model.modules() if _is_circuit(module)}
        self._programs: dict[Tensor, StateProgram | OrthogonalProgram] = {}
        self._inputs: dict[Tensor, Tensor] = {}
        super().__init__(params, {"lr": lr, "damping": damping, "momentum": momentum, "rows": rows})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of circuit angles, as torch's optimizers do."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        for weight in group["params"]:
            if weight not in self._circuits:
                raise ConfigError("not a circuit")
            module = self._circuits[weight]
            self._programs[weight] = _states_of(module).to(weight)
            module.register_forward_hook(partial(self._keep, weight, group["rows"]), with_kwargs=True)

    def _keep(self, weight: Tensor, rows: int, module: nn.Module, args: Any, kwargs: Any, _: Any) -> None:
        if not torch.is_grad_enabled():
            return
        x = args[0] if args else next(iter(kwargs.values()), None)
        x = weight.new_zeros(1, 0) if x is None else x.detach()
        self._inputs[weight] = _some_rows(x, weight.shape[:-1], rows).to(weight)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Any:
        """Take a step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                metric = fubini_study(self._programs[weight], self._inputs[weight], weight).double()
                metric.diagonal(dim1=-2, dim2=-1).add_(group["damping"])
                direction = torch.linalg.solve(metric, weight.grad.double()).to(weight.dtype)
                if group["momentum"]:
                    state = self.state[weight]
                    state["velocity"] = direction + group["momentum"] * state.get("velocity", 0.0)
                    direction = state["velocity"]
                weight.sub_(direction, alpha=group["lr"])
        return loss


def _is_circuit(module: nn.Module) -> bool:
    return isinstance(module, QuantumHead | TorchConnector)


def _states_of(module: nn.Module) -> StateProgram | OrthogonalProgram:
    circuit = module.circuit if isinstance(module, QuantumHead) else network_circuit(module.neural_network)
    return OrthogonalProgram(circuit) if circuit.encoding.kind == "unary" else StateProgram(circuit)


def _some_rows(x: Tensor, heads: torch.Size, most: int) -> Tensor:
    """Return evenly spaced rows of inputs ``(..., *heads, N, F)``, at most ``most`` per head: ``(*heads, n, F)``."""
    if not heads:
        rows = x[None] if x.ndim < 2 else x.flatten(0, -2)  # (K N, F)
        return rows[:: max(1, -(-len(rows) // most))]
    x = x.expand(*torch.broadcast_shapes(x.shape[:-2], heads), *x.shape[-2:])
    x = x.reshape(-1, *heads, *x.shape[-2:]).movedim(0, -3).flatten(-3, -2)  # (*heads, K N, F)
    return x[..., :: max(1, -(-x.shape[-2] // most)), :]
