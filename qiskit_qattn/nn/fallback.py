"""Chains of backends: a head's call that one of them cannot answer goes to the next, and every fall is written down."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from qiskit_qattn.backends.pub import attention_program
from qiskit_qattn.backends.registry import Backend, get_backend
from qiskit_qattn.backends.spec import BackendSpec, End, parse_chain
from qiskit_qattn.errors import BackendError
from qiskit_qattn.library.attention_circuit import AttentionCircuit
from qiskit_qattn.nn.quadratic_form import CLASSICAL, QuadraticForm
from qiskit_qattn.simulation.amplitude import amplitude_angles
from qiskit_qattn.simulation.statevector import StatevectorProgram

T = TypeVar("T")
Pass = Literal["forward", "backward"]

_LOG = logging.getLogger("qiskit_qattn.backends.fallback")


class FallbackWarning(UserWarning):
    """A link of a chain failed, and the next one computed what it was asked for."""


@dataclass(frozen=True)
class Fall:
    """One call that went from a link of a chain to the next.

    Attributes:
        layer: The head's layer, or None for a head without a model.
        kind: The head's kind.
        call: Number of the head's call on the chain, from 1.
        during: The pass that failed; the backward pass of a call may fall though its forward pass did not.
        link: The backend that failed.
        to: The one that was tried next.
        reason: Its error, in one line.
    """

    layer: int | None
    kind: str
    call: int
    during: Pass
    link: str
    to: str
    reason: str


@dataclass
class Audit:
    """Where the calls of one head on a chain were computed.

    Attributes:
        layer: The head's layer, or None for a head without a model.
        kind: The head's kind.
        calls: Number of calls whose values each backend computed.
        gradients: Number of calls whose gradients each backend computed.
        falls: What failed, in order.
    """

    layer: int | None
    kind: str
    calls: Counter[str] = field(default_factory=Counter)
    gradients: Counter[str] = field(default_factory=Counter)
    falls: list[Fall] = field(default_factory=list)

    def fall(self, call: int, during: Pass, link: str, to: str, error: BackendError) -> None:
        """Write a fall down and log it; the first from each link is a :class:`FallbackWarning` too."""
        fall = Fall(self.layer, self.kind, call, during, link, to, " ".join(str(error).split()))
        first = all(link != other.link for other in self.falls)
        self.falls.append(fall)
        where = f"{self.kind} heads" if self.layer is None else f"Layer {self.layer}, {self.kind} heads"
        text = f"{where}, call {call}, {during} pass: {link} failed, {to} is next. {fall.reason}"
        _LOG.warning("%s", text)
        if first:
            more = "(Later falls of these heads from this link are in the log and in audit() only.)"
            warnings.warn(FallbackWarning(f"{text} {more}"), stacklevel=2)


@dataclass(frozen=True)
class Chain:
    """The backends of a chain, opened.

    Attributes:
        name: The chain in normal form.
        links: Name and backend of each link, or the error with which it could not be opened.
        end: What follows the last of them.
    """

    name: str
    links: tuple[tuple[str, Backend | BackendError], ...]
    end: End


def open_backend(text: str) -> Backend | Chain:
    """Return the backend a string names, or the opened chain of several.

    A link that cannot be opened for now counts as failed in all calls; only the last may not, where ``raise`` follows.

    Raises:
        UnknownNameError, ConfigError, MissingDependencyError: As :func:`get_backend` does, for any link.
        BackendError: If no link is left.
    """
    chain = parse_chain(text)
    if len(chain.links) == 1 and chain.end == "raise":
        return get_backend(str(chain.links[0]))
    links = tuple(_open(spec) for spec in chain.links)
    failed = [backend for _, backend in links if isinstance(backend, BackendError)]
    if len(failed) == len(links) and chain.end == "raise":
        raise failed[-1]
    return Chain(str(chain), links, chain.end)


def head_program(circuit: AttentionCircuit, backend: Backend) -> nn.Module:
    """Return a head's program on a backend: the backend's own engine, or PUBs for its estimator."""
    if backend.program is not None:
        return backend.program(circuit)
    return attention_program(circuit, backend)


class ChainProgram(nn.Module):
    """A head's program on each link of a chain; a link that raises :class:`BackendError` passes the call on.

    Each call starts at the first link again. The backward pass of a call runs on the link that computed its values; if
    that fails, the links after it compute the gradient. First derivatives only.

    Args:
        circuit: What to compute.
        chain: Where.
        audit: Where it is written down.

    Raises:
        ConfigError: For the end ``classical`` where the circuit has no classical twin.
    """

    def __init__(self, circuit: AttentionCircuit, chain: Chain, audit: Audit) -> None:
        super().__init__()
        self.audit, self.count = audit, 0
        self.names = [name for name, _ in chain.links]
        self.programs = nn.ModuleList(_Link(circuit, backend) for _, backend in chain.links)
        if chain.end == "classical":
            self.names.append(CLASSICAL)
            self.programs.append(QuadraticForm(circuit))

    def forward(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """Return expectations, shape ``(..., B, M)``; inputs are a head's, for amplitude encoding vectors.

        Raises:
            BackendError: Of the last link.
        """
        self.count += 1
        if torch.is_grad_enabled() and (inputs.requires_grad or weights.requires_grad):
            return _OnOneLink.apply(inputs, weights, self, self.count)
        _, values = self.first(self.count, "forward", 0, lambda program: program(inputs, weights))
        return values

    def first(self, call: int, during: Pass, start: int, compute: Callable[[nn.Module], T]) -> tuple[int, T]:
        """Return the first link from ``start`` on that does not fail, and what it computed."""
        counts = self.audit.calls if during == "forward" else self.audit.gradients
        for link in range(start, len(self.names) - 1):
            try:
                found = compute(self.programs[link])
            except BackendError as error:
                self.audit.fall(call, during, self.names[link], self.names[link + 1], error)
            else:
                counts[self.names[link]] += 1
                return link, found
        link = max(start, len(self.names) - 1)
        found = compute(self.programs[link])
        counts[self.names[link]] += 1
        return link, found


class _Link(nn.Module):
    """A head's program on one backend, for the head's inputs as they are."""

    def __init__(self, circuit: AttentionCircuit, backend: Backend | BackendError) -> None:
        super().__init__()
        self.amplitude = circuit.encoding.kind == "amplitude"
        self.program: nn.Module | None = None
        self.reason = ""
        try:
            if isinstance(backend, BackendError):
                raise backend
            self.program = head_program(circuit, backend)
        except BackendError as error:  # transpiling may ask the device
            self.reason = str(error)

    def forward(self, inputs: Tensor, weights: Tensor) -> Tensor:
        if self.program is None:
            raise BackendError(self.reason)
        takes_angles = self.amplitude and not isinstance(self.program, StatevectorProgram)
        values: Tensor = self.program(amplitude_angles(inputs) if takes_angles else inputs, weights)
        return values


class _OnOneLink(torch.autograd.Function):
    """Values of the first link that answers, with its gradients. Keeps the link's own graph for the backward pass."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weights: Tensor, program: ChainProgram, call: int) -> Tensor:
        leaves = tuple(tensor.detach().requires_grad_(tensor.requires_grad) for tensor in (inputs, weights))

        def values(link: nn.Module) -> Tensor:
            with torch.enable_grad():
                return link(*leaves)

        link, found = program.first(call, "forward", 0, values)
        ctx.program, ctx.call, ctx.values = program, call, values
        ctx.leaves, ctx.link, ctx.found = leaves, link, found
        return found.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        wanted = [leaf for leaf in ctx.leaves if leaf.requires_grad]
        own = ctx.program.programs[ctx.link]

        def product(link: nn.Module) -> tuple[Tensor | None, ...]:
            found = ctx.found if link is own else ctx.values(link)
            return torch.autograd.grad(found, wanted, grad, retain_graph=True, allow_unused=True)

        _, grads = ctx.program.first(ctx.call, "backward", ctx.link, product)
        each = iter(grads)
        of_inputs, of_weights = (next(each) if leaf.requires_grad else None for leaf in ctx.leaves)
        return of_inputs, of_weights, None, None


def _open(spec: BackendSpec) -> tuple[str, Backend | BackendError]:
    """Return the name and the backend of one link, or its error."""
    try:
        backend = get_backend(str(spec))
    except BackendError as error:
        return str(spec), error
    return backend.name, backend
