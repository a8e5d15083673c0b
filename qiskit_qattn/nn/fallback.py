"""Chains of backends: a call that one of them cannot answer goes to the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from qiskit_qattn.backends.joint import Call, JointProgram, evaluate
from qiskit_qattn.backends.pub import attention_program
from qiskit_qattn.backends.registry import Backend, get_backend
from qiskit_qattn.backends.session import Opened
from qiskit_qattn.backends.spec import BackendSpec, End, parse_chain
from qiskit_qattn.errors import BackendError
from qiskit_qattn.library.attention_circuit import AttentionCircuit
from qiskit_qattn.nn.audit import Audit, Pass
from qiskit_qattn.nn.quadratic_form import CLASSICAL, QuadraticForm
from qiskit_qattn.simulation.amplitude import amplitude_angles
from qiskit_qattn.simulation.statevector import StatevectorProgram

T = TypeVar("T")


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


def backends_of(target: Backend | Chain) -> list[Backend]:
    """Return a backend, or the backends of a chain that could be opened."""
    links = [target] if isinstance(target, Backend) else [link for _, link in target.links]
    return [link for link in links if isinstance(link, Backend)]


def held_open(backend: Backend | Chain | str) -> tuple[Backend | Chain, Opened | None]:
    """Return a backend, opened if it is a string, and what a module keeps as long as it runs there.

    That closes the backend's sessions when no module keeps it any more. It is None for a backend of the caller's own.

    Raises:
        UnknownNameError, ConfigError, MissingDependencyError, BackendError: As :func:`open_backend` does.
    """
    if not isinstance(backend, str):
        return backend, None
    target = open_backend(backend)
    return target, Opened(backends_of(target))


def head_program(circuit: AttentionCircuit, backend: Backend) -> nn.Module:
    """Return a head's program on a backend: the backend's own engine, or PUBs for its estimator."""
    if backend.program is not None:
        return backend.program(circuit)
    return attention_program(circuit, backend)


def program_on(circuit: AttentionCircuit, where: Backend | Chain, audit: Audit) -> nn.Module:
    """Return a circuit's program on a backend, or on a chain of them that writes down what was computed where."""
    return ChainProgram(circuit, where, audit) if isinstance(where, Chain) else head_program(circuit, where)


class ChainProgram(JointProgram):
    """A head's program on each link of a chain; a link that raises :class:`BackendError` passes the call on.

    Each call starts at the first link again. Heads that share the chain share jobs, so they fall together; each fall is
    written down for each head. The backward pass of a call runs on the link that computed its values; if that fails,
    the links after it compute the gradient. First derivatives only.

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
        self.chain = chain
        self.names = [name for name, _ in chain.links]
        self.links = nn.ModuleList(_Link(circuit, backend) for _, backend in chain.links)
        if chain.end == "classical":
            self.names.append(CLASSICAL)
            self.links.append(_Link(circuit, QuadraticForm(circuit)))

    @property
    def place(self) -> int:
        """The chain."""
        return id(self.chain)

    @staticmethod
    def together(calls: Sequence[Call]) -> list[Tensor]:
        """Return expectations, each of shape ``(..., B, M)``; inputs are heads', for amplitude encoding vectors.

        Raises:
            BackendError: Of the last link.
        """
        programs = [cast(ChainProgram, program) for program, _, _ in calls]
        for program in programs:
            program.count += 1
        turns = [_Turn(program, program.count, index) for index, program in enumerate(programs)]
        tensors = [tensor for _, *pair in calls for tensor in pair]
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
            return list(_OnOneLink.apply(turns, *tensors))
        return _first(turns, "forward", lambda group: _values(group, tensors))


class _Link(nn.Module):
    """A head's program on one backend, for the head's inputs as they are.

    Attributes:
        program: The program, or None where there is none.
        reason: Why there is none.
    """

    def __init__(self, circuit: AttentionCircuit, where: Backend | BackendError | QuadraticForm) -> None:
        super().__init__()
        self.program: nn.Module | None = None
        self.reason = ""
        try:
            if isinstance(where, BackendError):
                raise where
            self.program = where if isinstance(where, QuadraticForm) else head_program(circuit, where)
        except BackendError as error:  # transpiling may ask the device
            self.reason = str(error)
        takes_vectors = isinstance(self.program, StatevectorProgram | QuadraticForm)
        self._takes_angles = circuit.encoding.kind == "amplitude" and not takes_vectors

    def call(self, inputs: Tensor, weights: Tensor) -> Call:
        """Return the call of the program."""
        assert self.program is not None
        return self.program, amplitude_angles(inputs) if self._takes_angles else inputs, weights


@dataclass
class _Turn:
    """One head's part in a call that heads make together.

    Attributes:
        program: The head's program.
        number: Number of its call.
        index: Its place among the heads; the call's tensors are the inputs and weights of all heads in turn.
        link: How far along the chain it has come.
    """

    program: ChainProgram
    number: int
    index: int
    link: int = 0

    @property
    def at(self) -> _Link:
        return cast(_Link, self.program.links[self.link])

    def own(self, tensors: Sequence[T]) -> Sequence[T]:
        """Return the head's inputs and weights, or what else belongs to them."""
        return tensors[2 * self.index : 2 * self.index + 2]

    def fall(self, during: Pass, error: BackendError) -> None:
        """Go to the next link.

        Raises:
            BackendError: The error, if there is none.
        """
        names = self.program.names
        if self.link + 1 == len(names):
            raise error
        self.program.audit.fall(self.number, during, names[self.link], names[self.link + 1], error)
        self.link += 1

    def count(self, during: Pass) -> None:
        """Write down where it was computed."""
        audit = self.program.audit
        (audit.calls if during == "forward" else audit.gradients)[self.program.names[self.link]] += 1


def _first(turns: Sequence[_Turn], during: Pass, compute: Callable[[list[_Turn]], Sequence[T]]) -> list[T]:
    """Return what was computed for each turn on the first link, from its own on, that does not fail.

    Turns on the same link are computed together.
    """
    found: dict[int, T] = {}
    while waiting := [turn for turn in turns if turn.index not in found]:
        link = min(turn.link for turn in waiting)
        group = [turn for turn in waiting if turn.link == link]
        if closed := [turn for turn in group if turn.at.program is None]:
            for turn in closed:
                turn.fall(during, BackendError(turn.at.reason))
            continue
        try:
            results = compute(group)
        except BackendError as error:
            for turn in group:
                turn.fall(during, error)
        else:
            for turn, result in zip(group, results, strict=True):
                turn.count(during)
                found[turn.index] = result
    return [found[turn.index] for turn in turns]


def _values(turns: Sequence[_Turn], tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the values of turns on one link."""
    return evaluate([turn.at.call(*turn.own(tensors)) for turn in turns])


class _OnOneLink(torch.autograd.Function):
    """Values of the first link that answers, with its gradients. Keeps the link's own graph for the backward pass."""

    @staticmethod
    def forward(ctx: Any, turns: list[_Turn], *tensors: Tensor) -> tuple[Tensor, ...]:
        leaves = [tensor.detach().requires_grad_(tensor.requires_grad) for tensor in tensors]

        def values(group: list[_Turn]) -> list[Tensor]:
            with torch.enable_grad():
                return _values(group, leaves)

        found = _first(turns, "forward", values)
        ctx.turns, ctx.values, ctx.leaves, ctx.found = turns, values, leaves, found
        return tuple(value.detach() for value in found)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        turns = [replace(turn) for turn in ctx.turns if any(leaf.requires_grad for leaf in turn.own(ctx.leaves))]

        def products(group: list[_Turn]) -> list[list[Tensor | None]]:
            fallen = [turn for turn in group if turn.link != ctx.turns[turn.index].link]
            again = dict(zip([turn.index for turn in fallen], ctx.values(fallen), strict=True))
            values = [again.get(turn.index, ctx.found[turn.index]) for turn in group]
            leaves = [leaf for turn in group for leaf in turn.own(ctx.leaves)]
            wanted = [leaf for leaf in leaves if leaf.requires_grad]
            slopes = [grads[turn.index] for turn in group]
            each = iter(torch.autograd.grad(values, wanted, slopes, retain_graph=True, allow_unused=True))
            return [[next(each) if leaf.requires_grad else None for leaf in turn.own(ctx.leaves)] for turn in group]

        of_leaves: list[Tensor | None] = [None] * len(ctx.leaves)
        for turn, pair in zip(turns, _first(turns, "backward", products), strict=True):
            of_leaves[2 * turn.index : 2 * turn.index + 2] = pair
        return None, *of_leaves


def _open(spec: BackendSpec) -> tuple[str, Backend | BackendError]:
    """Return the name and the backend of one link, or its error."""
    try:
        backend = get_backend(str(spec))
    except BackendError as error:
        return str(spec), error
    return backend.name, backend
