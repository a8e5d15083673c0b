"""Where a module's circuits run: moving them, coming back, and what was computed where."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import asdict
from types import TracebackType
from typing import Any, Protocol, Self

from qiskit_qattn.backends.place import Place, PlaceReference, wait_until_closed
from qiskit_qattn.backends.registry import Backend
from qiskit_qattn.errors import ConfigError
from qiskit_qattn.nn.attention import CausalSelfAttention
from qiskit_qattn.nn.fallback import Audit, Execution
from qiskit_qattn.nn.heads import QuantumHead
from qiskit_qattn.nn.inference import check_not_fixed


class Movable(Protocol):
    """What can run on another place: a quantum head, or a connector with its network."""

    @property
    def execution(self) -> Execution:
        """How its circuit is run now."""

    def prepare(self, place: Place, audit: Audit, /) -> Execution:
        """Return what :meth:`run_on` takes to run the circuit on a place, without moving it there."""

    def run_on(self, execution: Execution, /) -> None:
        """Run the circuit in this way from now on."""


class _Origin:
    """How a part was run before a move. It keeps neither the part alive nor the sessions of its place open."""

    def __init__(self, part: Movable, references: dict[int, PlaceReference]) -> None:
        self._part = weakref.ref(part)
        before = part.execution
        self._program, self._place = before.program, None
        if before.place is not None:
            self._place = references.setdefault(id(before.place), PlaceReference(before.place))

    def restore(self) -> None:
        """Run the part as before; what it recorded since the move stays."""
        part = self._part()
        if part is not None:
            place = None if self._place is None else self._place()
            part.run_on(Execution(place, self._program, part.execution.audit))


class Placement(ABC):
    """A module whose circuits move between backends: all together, and back at the end of a ``with`` statement."""

    # How all were run before the last move, and the place it opened: None for one that the caller had opened.
    _last_move: tuple[list[_Origin], weakref.ref[Place] | None] | None = None
    _blocks_entered: tuple[tuple[list[_Origin], Place | None], ...] = ()

    @abstractmethod
    def movable_parts(self) -> list[tuple[int | None, str, Movable]]:
        """Return the parts that are moved as (layer or None, kind, part)."""

    def audit(self) -> dict[str, Any]:
        """Return what was computed where since the module was moved to a chain of backends the last time.

        Returns:
            ``calls`` and ``gradients``: how many calls of the circuits each backend computed the values and gradients
            of; ``heads``: the same for each layer and kind; ``falls``: every call, in order of the heads, that went
            from one link of the chain to the next, and why. Empty unless it was moved to a chain.
        """
        audits = [part.execution.audit for _, _, part in self.movable_parts()]
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

    def to_backend(self, backend: Backend | Place | str) -> Self:
        """Run every circuit on another backend; weights and ``state_dict`` stay as they are.

        Sessions on a device that a string opened are closed when no circuit and no ``with`` block uses them any more:
        by the next move, when the module is deleted, or at the end of the program.

        In a ``with`` statement the circuits return at the end of the block to where they were, and sessions that were
        opened for the block are closed::

            with model.to_backend("ibm:least_busy?mode=session&budget=60s"):
                model.generate(prompt, 100)

        Args:
            backend: A backend string such as ``statevector?shots=1024``, a chain of them as for
                :meth:`QuantumHead.to_backend`, or the backend or place that one opened.

        Raises:
            UnknownNameError, ConfigError: For a string that names no backend; nothing was moved then.
            ConfigError: For a copy that :func:`~qiskit_qattn.nn.inference.inference` made.
        """
        check_not_fixed(self, "moved to another backend")
        parts = self.movable_parts()
        place = Place.of(backend)
        # All are prepared before the first moves.
        executions = [part.prepare(place, Audit(layer, kind)) for layer, kind, part in parts]
        references: dict[int, PlaceReference] = {}
        before = [_Origin(part, references) for _, _, part in parts]
        self._last_move = before, weakref.ref(place) if isinstance(backend, str) else None
        for (_, _, part), execution in zip(parts, executions, strict=True):
            part.run_on(execution)
        wait_until_closed()
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
        """Run the circuits where they were before, and close the sessions that the move opened."""
        *outer, (before, opened) = self._blocks_entered
        self._blocks_entered, self._last_move = tuple(outer), None
        for origin in before:
            origin.restore()
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
                    where = {"backend": ran_on(calls) or module.place.name, **({"calls": calls} if calls else {})}
                for _ in range(count):
                    rows.append({"layer": layer, "head": number, "kind": kind, **where})
                    number += 1
        return rows

    def movable_parts(self) -> list[tuple[int | None, str, Movable]]:
        """Return the quantum heads."""
        return list(self.quantum_heads())


def ran_on(calls: dict[str, int]) -> str:
    """Return where calls were computed, in words; with the number of calls if there is more than one place."""
    if len(calls) == 1:
        return next(iter(calls))
    return ", ".join(f"{name} ({count:,} of {sum(calls.values()):,} calls)" for name, count in calls.items())
