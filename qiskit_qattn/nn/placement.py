"""Where a module's circuits run: moving them, coming back, and what was computed where."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import asdict
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from torch import nn

from qiskit_qattn.backends.registry import Backend
from qiskit_qattn.backends.session import Opened
from qiskit_qattn.errors import ConfigError
from qiskit_qattn.nn.audit import Audit
from qiskit_qattn.nn.fallback import Chain, backends_of, held_open
from qiskit_qattn.nn.heads import QuantumHead

if TYPE_CHECKING:
    from qiskit_qattn.nn.attention import CausalSelfAttention


class Placed(Protocol):
    """What runs on a backend or a chain: a quantum head, or the network of a connector."""

    @property
    def audit(self) -> Audit:
        """Where its calls were computed since it was moved to a chain the last time."""

    @property
    def placed(self) -> tuple[Any, Any, Opened | None]:
        """Where it is, its program there and what is kept for it, which :meth:`place` takes to come back."""

    def prepare(self, backend: Backend | Chain, audit: Audit, /) -> nn.Module:
        """Return the program that :meth:`place` takes, without moving there."""

    def place(self, backend: Any, program: Any, audit: Audit, opened: Opened | None, /) -> None:
        """Run a program from now on, and keep what the backend's sessions need to stay open."""


class _Place:
    """Where a head is, for a way back to it that does not keep sessions open by itself."""

    def __init__(self, head: Placed) -> None:
        self._head = head
        self._backend, self._program, opened = head.placed
        self._opened = None if opened is None else weakref.ref(opened)

    def come_back(self, again: dict[int, Opened]) -> None:
        """Bring the head back; ``again`` holds what was closed since and is opened again, by backend."""
        opened = None if self._opened is None else self._opened()
        if opened is None and self._opened is not None:
            opened = again.setdefault(id(self._backend), Opened(backends_of(self._backend)))
        self._head.place(self._backend, self._program, self._head.audit, opened)


class Placement(ABC):
    """A module whose circuits move between backends: all together, and back at the end of a ``with`` statement."""

    # The places that a move left, and what it opened: None for a backend of the caller's own.
    _last_move: tuple[list[_Place], weakref.ref[Opened] | None] | None = None
    _blocks_entered: tuple[tuple[list[_Place], Opened | None], ...] = ()

    @abstractmethod
    def placed_parts(self) -> list[tuple[int | None, str, Placed]]:
        """Return what is moved as (layer or None, kind, part)."""

    def audit(self) -> dict[str, Any]:
        """Return what was computed where since the module was moved to a chain of backends the last time.

        Returns:
            ``calls`` and ``gradients``: how many calls of the circuits each backend computed the values and gradients
            of; ``heads``: the same for each layer and kind; ``falls``: every call, in order of the heads, that went
            from one link of the chain to the next, and why. Empty unless it was moved to a chain.
        """
        audits = [head.audit for _, _, head in self.placed_parts()]
        calls, gradients = (
            dict(sum((getattr(audit, name) for audit in audits), Counter())) for name in ("calls", "gradients")
        )
        heads = [
            {"layer": a.layer, "kind": a.kind, "calls": dict(a.calls), "gradients": dict(a.gradients)} for a in audits
        ]
        falls = [asdict(fall) for audit in audits for fall in audit.falls]
        if not (calls or falls):
            return {}
        return {"calls": calls, "gradients": gradients, "heads": heads, "falls": falls}

    def to_backend(self, backend: Backend | Chain | str) -> Self:
        """Run every circuit on another backend; weights and ``state_dict`` stay as they are.

        What a backend named by a string holds open on its device, such as a session, is closed when no circuit, and no
        block that was entered, is on it any more: by the next move, with the module, or at the end of the program.

        In a ``with`` statement they come back at the end of the block to where they were, and what was opened for it is
        closed then::

            with model.to_backend("ibm:least_busy?mode=session&budget=60s"):
                model.generate(prompt, 100)

        Args:
            backend: A backend, or a string such as ``statevector?shots=1024``, or a chain of strings as for
                :meth:`QuantumHead.to_backend`.

        Raises:
            UnknownNameError, ConfigError: For a string that names no backend; nothing was moved then.
        """
        heads = self.placed_parts()
        target, opened = held_open(backend)
        audits = [Audit(layer, kind) for layer, kind, _ in heads]
        # All are built before the first moves.
        programs = [head.prepare(target, audit) for (_, _, head), audit in zip(heads, audits, strict=True)]
        before = [_Place(head) for _, _, head in heads]
        self._last_move = before, None if opened is None else weakref.ref(opened)
        for (_, _, head), program, audit in zip(heads, programs, audits, strict=True):
            head.place(target, program, audit, opened)
        return self

    def __enter__(self) -> Self:
        """Begin a block at whose end the last :meth:`to_backend` is undone.

        Raises:
            ConfigError: If there is none to undo.
        """
        move, self._last_move = self._last_move, None
        if move is None:
            raise ConfigError("A model in a with statement must have been moved: with model.to_backend(…).")
        before, opened = move
        self._blocks_entered += ((before, None if opened is None else opened()),)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Bring the circuits back, and close what the move opened."""
        *outer, (before, opened) = self._blocks_entered
        self._blocks_entered, self._last_move = tuple(outer), None
        again: dict[int, Opened] = {}
        for place in before:
            place.come_back(again)
        if opened is not None:
            opened.__exit__(kind, error, traceback)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the moves: a copy was not moved itself."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_last_move", "_blocks_entered")}


class ModelPlacement(Placement):
    """The part of a model that knows its quantum heads, all of which it moves."""

    @abstractmethod
    def attention_layers(self) -> list[CausalSelfAttention]:
        """Return the attention of every layer."""

    def quantum_heads(self) -> list[tuple[int, str, QuantumHead]]:
        """Return the quantum heads as (layer, kind, module)."""
        return [
            (layer, kind, module)
            for layer, attention in enumerate(self.attention_layers())
            for kind, module in attention.maps.items()
            if isinstance(module, QuantumHead)
        ]

    def head_backends(self) -> list[dict[str, Any]]:
        """Return, for every head, its layer, number, kind and the backend it runs on (``torch`` if classical).

        On a chain, that is where its calls were computed, and ``calls`` says how many each backend computed; before
        the first call it is the chain.
        """
        rows = []
        for layer, attention in enumerate(self.attention_layers()):
            number = 0
            for kind, count in attention.counts.items():
                module = attention.maps[kind]
                where: dict[str, Any] = {"backend": "torch"}
                if isinstance(module, QuantumHead):
                    calls = module.ran_on
                    where = {"backend": ran_on(calls) or module.backend.name, **({"calls": calls} if calls else {})}
                for _ in range(count):
                    rows.append({"layer": layer, "head": number, "kind": kind, **where})
                    number += 1
        return rows

    def placed_parts(self) -> list[tuple[int | None, str, Placed]]:
        """Return the quantum heads."""
        return list(self.quantum_heads())


def ran_on(calls: dict[str, int]) -> str:
    """Return where calls were computed, in words; with the number of calls if there is more than one place."""
    if len(calls) == 1:
        return next(iter(calls))
    return ", ".join(f"{name} ({count:,} of {sum(calls.values()):,} calls)" for name, count in calls.items())
