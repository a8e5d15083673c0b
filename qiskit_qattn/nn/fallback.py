"""Programs on a place: on one backend, or on a chain of them, where a call that fails goes to the next.

What was computed where, and every call that went on to the next backend, is recorded in an :class:`Audit`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from qiskit_qattn.backends.joint import Call, JointProgram, evaluate, not_compiled
from qiskit_qattn.backends.place import Place
from qiskit_qattn.backends.pub import PubProgram
from qiskit_qattn.backends.registry import Backend
from qiskit_qattn.backends.several import Group
from qiskit_qattn.errors import BackendError, ConfigError
from qiskit_qattn.library.attention_circuit import AttentionCircuit
from qiskit_qattn.nn.audit import Audit, Pass
from qiskit_qattn.nn.link import Link, program_on_backend
from qiskit_qattn.nn.quadratic_form import CLASSICAL, QuadraticForm
from qiskit_qattn.nn.several import SharedProgram
from qiskit_qattn.simulation.derivatives import transforms

T = TypeVar("T")


@dataclass(frozen=True)
class Execution:
    """How a circuit is run.

    Attributes:
        place: Where; None for an estimator of a network's own.
        program: The torch module that computes its expectations there; None where Qiskit Machine Learning does.
        audit: Where the calls on a chain are recorded.
    """

    place: Place | None
    program: nn.Module | None
    audit: Audit

    @property
    def differentiable(self) -> bool:
        """Whether torch engines compute the values, so that gradients run no circuits."""
        if self.place is not None:
            return self.place.differentiable
        return self.program is not None and not isinstance(self.program, PubProgram)


def program_on(circuit: AttentionCircuit, place: Place, audit: Audit) -> nn.Module:
    """Return a circuit's program on a place; on a chain or group it records in ``audit`` what was computed where."""
    backend = place.single
    return ChainProgram(circuit, place, audit) if backend is None else program_on_backend(circuit, backend)


def _link(circuit: AttentionCircuit, where: Backend | BackendError | Group, audit: Audit) -> Link:
    return Link(circuit, SharedProgram(circuit, where, audit) if isinstance(where, Group) else where)


class ChainProgram(JointProgram):
    """A circuit's program on each link of a chain; where a link raises :class:`BackendError`, the next is called.

    A link is a backend, or a group of them; a chain may be a group alone.
    Each call starts at the first link again. Heads on the same chain share jobs, so they go to the next link together;
    that is recorded for each head. The backward pass of a call runs on the link that computed its values; if that
    fails, the links after it compute the gradient. First derivatives only.

    Args:
        circuit: What to compute.
        place: The chain.
        audit: Where it is recorded.

    Raises:
        ConfigError: For the end ``classical`` where the circuit has no classical twin.
    """

    def __init__(self, circuit: AttentionCircuit, place: Place, audit: Audit) -> None:
        super().__init__()
        self.audit = audit
        self._chain = place.links  # not the place: a program does not keep its sessions open
        self.names = [name for name, _ in place.links]
        self.links = nn.ModuleList(_link(circuit, where, audit) for _, where in place.links)
        if place.end == "classical":
            self.names.append(CLASSICAL)
            self.links.append(Link(circuit, QuadraticForm(circuit)))

    @property
    def job_key(self) -> int:
        """The same for all programs on the chain."""
        return id(self._chain)

    @staticmethod
    @not_compiled
    def together(calls: Sequence[Call]) -> list[Tensor]:
        """Return expectations, each of shape ``(..., B, M)``; inputs are heads', for amplitude encoding vectors.

        Raises:
            BackendError: Of the last link.
            ConfigError: Inside a transform of ``torch.func``.
        """
        if transforms():
            raise ConfigError(
                "A chain of backends was called inside torch.func or in forward mode, where it cannot pass a gradient "
                "on to another backend. Use a single backend there, or plain backward()."
            )
        programs = [cast(ChainProgram, program) for program, _, _ in calls]
        for program in programs:
            program.audit.count += 1
        turns = [_Turn(program, program.audit.count, index) for index, program in enumerate(programs)]
        tensors = [tensor for _, *pair in calls for tensor in pair]
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
            return list(_OnOneLink.apply(turns, *tensors))
        return _first(turns, "forward", lambda group: _values(group, tensors))


@dataclass
class _Turn:
    """One head's part in a call that several heads share.

    Attributes:
        program: The head's program.
        number: Number of its call.
        index: Its number among the heads; the call's tensors are the inputs and weights of all heads in turn.
        link: Number of the link that is tried now.
        label: Names of what computed it; empty before that.
    """

    program: ChainProgram
    number: int
    index: int
    link: int = 0
    label: str = ""

    @property
    def current(self) -> Link:
        return cast(Link, self.program.links[self.link])

    def own(self, tensors: Sequence[T]) -> Sequence[T]:
        """Return the two items of the head's inputs and weights."""
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
        self.link, self.label = self.link + 1, ""

    def count(self, during: Pass) -> None:
        """Record where it was computed; gradients are where the values were, unless they fell."""
        audit = self.program.audit
        self.label = self.label or self.current.label or self.program.names[self.link]
        (audit.calls if during == "forward" else audit.gradients)[self.label] += 1


def _first(turns: Sequence[_Turn], during: Pass, compute: Callable[[list[_Turn]], Sequence[T]]) -> list[T]:
    """Return what was computed for each turn on the first link that does not fail, from its current one on.

    Turns on the same link are computed together.
    """
    found: dict[int, T] = {}
    while waiting := [turn for turn in turns if turn.index not in found]:
        link = min(turn.link for turn in waiting)
        group = [turn for turn in waiting if turn.link == link]
        if closed := [turn for turn in group if turn.current.program is None]:
            for turn in closed:
                turn.fall(during, BackendError(turn.current.reason))
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
    return evaluate([turn.current.call(*turn.own(tensors)) for turn in turns])


class _OnOneLink(torch.autograd.Function):
    """Values of the first link that does not fail, and gradients by that link's own graph."""

    @staticmethod
    def forward(ctx: Any, turns: list[_Turn], *tensors: Tensor) -> tuple[Tensor, ...]:
        leaves = [tensor.detach().requires_grad_(tensor.requires_grad) for tensor in tensors]

        def values(group: list[_Turn]) -> list[Tensor]:
            with torch.enable_grad():
                return _values(group, leaves)

        found = _first(turns, "forward", values)
        ctx.turns, ctx.values, ctx.leaves, ctx.found = turns, values, leaves, found
        return tuple(value.detach().clone() for value in found)  # the caller may change them in place

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
