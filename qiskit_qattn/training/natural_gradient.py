"""Quantum natural gradient as an optimizer of torch: steps of equal length between states, not between angles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor, distributed, nn
from torch.optim.optimizer import ParamsT

from qiskit_qattn.errors import ConfigError
from qiskit_qattn.library.attention_circuit import AttentionCircuit
from qiskit_qattn.nn.connector import TorchConnector
from qiskit_qattn.nn.heads import QuantumHead
from qiskit_qattn.nn.networks import network_circuit
from qiskit_qattn.nn.placement import Movable
from qiskit_qattn.simulation.metric import States, fubini_study, state_program
from qiskit_qattn.untrusted import shown


class QuantumNaturalGradient(torch.optim.Optimizer):
    r"""Descend along the quantum natural gradient of circuits' angles, with momentum.

    .. math:: v \leftarrow \mu v + (g(\theta) + \lambda I)^{-1} \nabla L(\theta), \qquad
              \theta \leftarrow \theta - \eta v

    with g the Fubini-Study metric, see :func:`~qiskit_qattn.simulation.metric.fubini_study`. Each head is a circuit on
    qubits of its own, so g has one full block of P × P per head. Where data enter, g is the mean over some rows of the
    last call with gradients: of the last one only, if gradients are accumulated over several. States are computed by
    the exact engine, on whatever backend gradients are.

    Args:
        params: Angles of circuits, ``weight`` of a :class:`QuantumHead` or a :class:`TorchConnector`, or groups of
            them, as for torch's optimizers. All others take an optimizer of their own, those of subclasses too, such
            as heads that score pairs.
        model: The module that holds the circuits; hooks on these keep the rows.
        lr: η.
        damping: λ, compared with eigenvalues of g, which for P rotations add up to P/4 at most.
        momentum: μ.
        rows: How many rows of a call, evenly spaced, enter the mean.

    Raises:
        ConfigError: For a parameter that is not the angles of a circuit in ``model``, or a setting out of bounds.
        CircuitError: For a circuit that the exact engine cannot take.

    Source: Stokes, Izaac, Killoran and Carleo, Quantum 4, 269 (2020), arXiv 1909.02108.
    """

    def __init__(
        self,
        params: ParamsT,
        model: nn.Module,
        lr: float = 0.03,
        *,
        damping: float = 0.01,
        momentum: float = 0.9,
        rows: int = 64,
    ) -> None:
        self._others: list[nn.Module] = []  # circuits that this optimizer does not take
        self._circuits: dict[Tensor, tuple[nn.Module, AttentionCircuit]] = {}
        for each in model.modules():  # subclasses of heads, of pairs for example, give their circuits other inputs
            if type(each) is QuantumHead:
                self._circuits[each.weight] = each, each.circuit
            elif type(each) is TorchConnector:
                self._circuits[each.weight] = each, network_circuit(each.neural_network)
            elif isinstance(each, Movable):
                self._others.append(each)
        self._programs: dict[Tensor, States] = {}
        self._kept: dict[Tensor, _Kept] = {}
        super().__init__(params, {"lr": lr, "damping": damping, "momentum": momentum, "rows": rows})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of circuits' angles, as torch's optimizers do.

        Raises:
            ConfigError, CircuitError: As the class does.
        """
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            _check(group)
            for weight in group["params"]:
                if weight not in self._circuits:
                    raise self._refused(weight)
                self._programs[weight] = state_program(self._circuits[weight][1])
        except Exception:
            self.param_groups.pop()
            raise
        for weight in group["params"]:
            self._kept[weight] = _Kept(weight, group["rows"])
            self._circuits[weight][0].register_forward_hook(self._kept[weight], with_kwargs=True)

    def _refused(self, weight: Tensor) -> ConfigError:
        """Return the error for a parameter that is taken by another optimizer."""
        own = [type(each).__name__ for each in self._others if any(weight is p for p in each.parameters(recurse=False))]
        if own:
            return ConfigError(
                f"A parameter of shape {tuple(weight.shape)} is of a {own[0]}, which gives its circuit other inputs"
                " than a QuantumHead does, so its metric is not known here: give it to another optimizer."
            )
        return ConfigError(
            f"A parameter of shape {tuple(weight.shape)} is not the angles of a circuit in the model: give the weight"
            " of a QuantumHead or a TorchConnector, and all others to another optimizer."
        )

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take a step; ``closure``, if given, computes loss and gradients first, and its loss is returned.

        Raises:
            ConfigError: If a circuit was not called with gradients before, or in one of several processes, whose
                metrics and then weights would differ.
        """
        if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
            raise ConfigError("QuantumNaturalGradient runs in a single process; take another optimizer in several.")
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                direction = self._natural(weight, group["damping"])
                self._kept[weight].most = group["rows"]
                if group["momentum"]:
                    state = self.state[weight]
                    velocity = state.setdefault("velocity", torch.zeros_like(weight))
                    direction = velocity.mul_(group["momentum"]).add_(direction)
                weight.sub_(direction, alpha=group["lr"])
        return loss

    def _natural(self, weight: Tensor, damping: float) -> Tensor:
        """Return (g + λ I)⁻¹ ∇L, in the shape of the weight."""
        if (rows := self._kept[weight].rows) is None:
            raise ConfigError("A circuit's metric is taken at its inputs: call the model with gradients before step().")
        program = self._programs[weight].to(weight)
        metric = fubini_study(program, rows, weight).double()  # (*heads, P, P)
        metric.diagonal(dim1=-2, dim2=-1).add_(damping)
        assert weight.grad is not None
        return torch.linalg.solve(metric, weight.grad.double().unsqueeze(-1)).squeeze(-1).to(weight.dtype)


class _Kept:
    """A hook that keeps rows of a circuit's inputs in its last call with gradients.

    Args:
        weight: The circuit's angles; calls of another module, such as an inference copy, are passed over.
        most: How many rows.
    """

    def __init__(self, weight: Tensor, most: int) -> None:
        self.weight, self.most = weight, most
        self.rows: Tensor | None = None

    def __call__(self, module: nn.Module, args: Any, kwargs: Any, _: Any) -> None:
        """Keep rows of a call."""
        weight = self.weight
        if torch.is_grad_enabled() and module.weight is weight:
            x = args[0] if args else next(iter(kwargs.values()), None)
            x = weight.new_zeros(1, 0) if x is None else x.detach()  # a network without inputs
            self.rows = _some_rows(x, weight.shape[:-1], self.most).to(weight)


def _check(group: dict[str, Any]) -> None:
    """Check the settings of a group."""
    for name, least in (("lr", "at least 0"), ("damping", "above 0"), ("momentum", "at least 0 and below 1")):
        value = float(group[name])
        if not (0 <= value < (1 if name == "momentum" else float("inf"))) or (name == "damping" and value == 0):
            raise ConfigError(f"{name} is {shown(group[name])}, but must be a finite number, {least}.")
    if type(group["rows"]) is not int or group["rows"] < 1:
        raise ConfigError(f"rows is {shown(group['rows'])}, but must be a whole number, at least 1.")


def _some_rows(x: Tensor, heads: torch.Size, most: int) -> Tensor:
    """Return evenly spaced rows of inputs ``(..., *heads, N, F)``, at most ``most`` per head: ``(*heads, n, F)``."""
    if x.ndim < 2:
        x = x[None]
    x = x.expand(*torch.broadcast_shapes(x.shape[:-2], heads), *x.shape[-2:])
    lead = x.ndim - 2 - len(heads)
    rows = x.movedim(tuple(range(lead)), tuple(range(-2 - lead, -2))).flatten(-2 - lead, -2)  # (*heads, K N, F)
    return rows[..., :: max(1, -(-rows.shape[-2] // most)), :]
