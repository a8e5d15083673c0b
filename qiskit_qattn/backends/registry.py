"""Backends by name. A provider is an entry point: a function from a parsed string to a :class:`Backend`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from qiskit.primitives import BaseEstimatorV2

from qiskit_qattn.backends.gradients import Gradient, ParameterShift
from qiskit_qattn.backends.spec import BackendSpec
from qiskit_qattn.errors import unknown_name

if TYPE_CHECKING:
    from torch import nn

    from qiskit_qattn.library.attention_circuit import AttentionCircuit

GROUP = "qiskit_qattn.backends"


@dataclass(frozen=True)
class Backend:
    """Where circuits run.

    Attributes:
        name: The backend string in normal form.
        estimator: The primitive that evaluates PUBs.
        pass_manager: Transpiles a circuit for it, or None where any circuit will do.
        precision: Target standard error of each expectation; 0 is exact.
        shots: Samples a measurement basis, or None where values are exact.
        differentiable: Whether a torch engine computes the values, so that autograd applies.
        max_pub_size: Largest number of parameter sets in one PUB, or None for no limit.
        gradient: How values of the estimator are differentiated, where autograd does not apply.
        program: Makes a differentiable torch program of an :class:`AttentionCircuit`, or None where there is none.
        price: Price per task and shot in US dollars where the provider publishes one, else None.
    """

    name: str
    estimator: BaseEstimatorV2
    pass_manager: Any = None
    precision: float = 0.0
    shots: int | None = None
    differentiable: bool = False
    gradient: Gradient = field(default_factory=ParameterShift)
    program: Callable[[AttentionCircuit], nn.Module] | None = None
    max_pub_size: int | None = None
    price: tuple[float, float] | None = None


def precision_of(shots: int) -> float:
    r"""Return the precision :math:`1 / \sqrt N` for which an estimator takes N shots.

    Estimators take :math:`\lceil 1 / \varepsilon^2 \rceil`; a little is added so that rounding does not make it N + 1.
    """
    return (1 + 1e-15) / math.sqrt(shots)


def list_backends() -> list[str]:
    """Return the names that are registered here, ours and third parties'."""
    return sorted({entry.name for entry in entry_points(group=GROUP)})


def get_backend(text: str) -> Backend:
    """Return the backend a string names.

    Args:
        text: ``name[:target][?key=value&…]``, for example ``statevector?shots=1024&seed=7``.

    Raises:
        UnknownNameError: For an unknown name or option; the message lists the known ones.
        ConfigError: For a malformed string or value.
    """
    spec = BackendSpec.parse(text)
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if spec.name not in found:
        raise unknown_name("backend", spec.name, found)
    return found[spec.name].load()(spec)
