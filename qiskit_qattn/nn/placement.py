"""Where a module's circuits run: moving them, coming back, and what was computed where.

Any torch module will do: its circuits are those of the quantum heads and connectors it holds, at any depth.
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Self, cast

from torch import nn

from qiskit_qattn.backends.place import Place, PlaceReference, wait_until_closed
from qiskit_qattn.backends.pub import PubProgram
from qiskit_qattn.backends.registry import Backend
from qiskit_qattn.backends.tiling import Tile
from qiskit_qattn.errors import ConfigError
from qiskit_qattn.nn.audit import Audit
from qiskit_qattn.nn.fallback import Execution

_FIXED = "is_inference_copy"


class Movable(nn.Module, ABC):
    """A torch module that runs one circuit and can run it on another place: a quantum head, or a connector."""

    @property
    @abstractmethod
    def circuit_name(self) -> str:
        """What its circuit is called where nothing else names it."""

    @property
    @abstractmethod
    def execution(self) -> Execution:
        """How its circuit is run now."""

    @abstractmethod
    def prepare(self, place: Place, audit: Audit) -> Execution:
        """Return what :meth:`run_on` takes to run the circuit on a place, without moving it there."""

    @abstractmethod
    def run_on(self, execution: Execution) -> None:
        """Run the circuit in this way from now on."""

    @property
    def tiles(self) -> dict[str, int]:
        """Of circuits that ran side by side, how many were measured on which qubits of the device so far."""
        program, found = self.execution.program, Counter[Tile]()
        for part in () if program is None else program.modules():
            found.update(part.tiles if isinstance(part, PubProgram) else {})
        return {" ".join(map(str, tile)): count for tile, count in sorted(found.items())}


@dataclass(frozen=True)
class Part:
    """A circuit of a module.

    Attributes:
        name: Its path in the module, as in ``named_modules()``; empty for the module itself.
        layer: Its layer, where the module numbers its layers, else None.
        kind: Its kind, where the module names kinds, else the name of its circuit.
        module: What runs it.
    """

    name: str
    layer: int | None
    kind: str
    module: Movable


def quantum_parts(module: nn.Module) -> list[Part]:
    """Return the quantum heads and connectors that a module holds, in the order of ``named_modules()``.

    A part that is held in several places is returned once, under its first name. For a module that may hold circuits
    but holds none, such as a GPT with classical heads, the list is empty.

    Args:
        module: Any torch module.

    Raises:
        ConfigError: For a module that holds nothing of this package, or something else than a module.
    """
    if not isinstance(module, nn.Module):
        raise ConfigError(f"Circuits are moved together with a torch.nn.Module, got {type(module).__name__}.")
    labels = module.part_labels() if isinstance(module, Placement) else {}
    parts, known = [], False
    for name, each in module.named_modules():
        known = known or isinstance(each, Placement)
        if isinstance(each, Movable):
            layer, kind = labels.get(id(each), (None, each.circuit_name))
            parts.append(Part(name, layer, kind, each))
    if not (parts or known):
        raise ConfigError(
            f"{type(module).__name__} holds no circuit: none of its modules is a QuantumHead, "
            f"qiskit_qattn.TorchConnector, QuantumMultiheadAttention or GPT. replace_attention() puts quantum heads "
            f"into a model."
        )
    return parts


def to_backend(module: nn.Module, backend: Backend | Place | str) -> Move:
    """Run every circuit that a module holds on another backend; weights and ``state_dict`` stay as they are.

    The module is changed in place. In a ``with`` statement the circuits return at the end of the block to where they
    were, and sessions that were opened for the block are closed::

        with qa.to_backend(model, "ibm:least_busy?mode=session&budget=60s"):
            model(x)

    Otherwise sessions on a device that a string opened are closed when no circuit uses them any more: by the next move,
    when the module is deleted, or at the end of the program. A block that leaves such a session closes it too, and the
    first job after the block opens another; one that is to stay open belongs to the caller: :func:`session`.

    Args:
        module: Any torch module that holds quantum heads, connectors or replaced attention, at any depth.
        backend: A backend string such as ``statevector?shots=1024``, a chain of them as for
            :meth:`QuantumHead.to_backend`, or the backend or place that one opened.

    Returns:
        The move, which a ``with`` statement takes; ``as`` gives the module.

    Raises:
        UnknownNameError, ConfigError: For a string that names no backend; nothing was moved then.
        ConfigError: For a module without a circuit, a circuit that cannot run there, and a copy that
            :func:`~qiskit_qattn.nn.inference.inference` made; nothing was moved then.
    """
    return Move(module, backend)


def audit(module: nn.Module) -> dict[str, Any]:
    """Return what was computed where since a module was moved to a chain or a group of backends the last time.

    Args:
        module: Any torch module that holds quantum heads, connectors or replaced attention, at any depth.

    Returns:
        ``calls`` and ``gradients``: how many calls of the circuits each backend computed the values and gradients
        of; a call that several devices of a group computed a share of is under their names, with ``+`` between them.
        ``heads``: the same for each circuit, with its ``name``, which is its path in the module, its ``layer`` in a
        GPT, else None, and its ``kind``; on a group also ``rows``, how many rows each device computed, its ``devices``,
        and ``last_rows``, the place in ``devices`` of what computed each row of the last call; where circuits ran side
        by side also ``tiles``, how many were measured on which qubits. ``falls``: every call, in order of the circuits,
        that went from one backend to the next, and why. Empty unless the module was moved to a chain or a group.

    Raises:
        ConfigError: For a module without a circuit.
    """
    parts = [part.module for part in quantum_parts(module)]
    audits = [part.execution.audit for part in parts]
    calls, gradients = (
        dict(sum((getattr(audit, name) for audit in audits), Counter())) for name in ("calls", "gradients")
    )
    heads = [
        {"name": a.name, "layer": a.layer, "kind": a.kind, "calls": dict(a.calls), "gradients": dict(a.gradients)}
        | (_rows(a) if a.rows else {})
        | ({"tiles": tiles} if (tiles := part.tiles) else {})
        for part, a in zip(parts, audits, strict=True)
    ]
    falls = [asdict(fall) for audit in audits for fall in audit.falls]
    if not (calls or falls):
        return {}
    return {"calls": calls, "gradients": gradients, "heads": heads, "falls": falls}


def _rows(audit: Audit) -> dict[str, Any]:
    """Return which devices of a group computed how many rows, and the rows of the last call."""
    devices = list(audit.rows)
    return {
        "rows": dict(audit.rows),
        "devices": devices,
        "last_rows": [devices.index(label) for label in audit.row_labels],
    }


def mark_fixed(module: nn.Module) -> None:
    """Mark a module as part of a copy for inference."""
    setattr(module, _FIXED, True)


def check_not_fixed(module: nn.Module, what: str) -> None:
    """Raise :class:`ConfigError` for a copy for inference or a part of one, which is neither saved nor moved."""
    modules = module.modules() if isinstance(module, nn.Module) else ()
    if any(getattr(each, _FIXED, False) for each in modules):
        raise ConfigError(f"A copy for inference cannot be {what}; that is done with the model it was made from.")


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


class Move:
    """A move of a module's circuits, made when this is constructed; a ``with`` block undoes it at its end.

    Args:
        module: The module.
        backend: Where to, as for :func:`to_backend`, which raises the same errors.

    Attributes:
        module: The module.
    """

    def __init__(self, module: nn.Module, backend: Backend | Place | str) -> None:
        check_not_fixed(module, "moved to another backend")
        parts = quantum_parts(module)
        place = Place.of(backend)
        # All are prepared before the first moves.
        warned: set[tuple[str, str]] = set()
        executions = [
            each.module.prepare(place, Audit(each.layer, each.kind, each.name, warned=warned)) for each in parts
        ]
        references: dict[int, PlaceReference] = {}
        self.module: nn.Module | None = module
        self._before = [_Origin(each.module, references) for each in parts]
        # Without a block a move keeps no session open: neither the one it left nor the one it opened.
        self._opened = weakref.ref(place) if isinstance(backend, str) else None
        self._inside: Place | None = None
        self._entered = False
        for each, execution in zip(parts, executions, strict=True):
            each.module.run_on(execution)
        wait_until_closed()

    def __enter__(self) -> Any:
        """Begin a block at whose end the move is undone.

        Raises:
            ConfigError: For a move that a block has undone already.
        """
        if self._entered:
            raise ConfigError("A block has undone this move already; move again with to_backend().")
        self._entered = True
        self._inside = None if self._opened is None else self._opened()
        return self.module

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Run the circuits where they were before, and close the sessions that the move opened."""
        for origin in self._before:
            origin.restore()
        inside, self._inside = self._inside, None
        if inside is not None:
            inside.__exit__(kind, error, traceback)


class Placement:
    """Methods of a module that moves with all its circuits, and comes back at the end of a ``with`` statement."""

    _last_move: Move | None = None
    _blocks_entered: tuple[Move, ...] = ()

    def part_labels(self) -> dict[int, tuple[int, str]]:
        """Return the layer and kind of each of its circuits, where it numbers layers and names kinds, by ``id``."""
        return {}

    def audit(self) -> dict[str, Any]:
        """Return what was computed where since the module was moved to a chain of backends: :func:`audit`."""
        return audit(cast(nn.Module, self))

    def to_backend(self, backend: Backend | Place | str) -> Self:
        """Run every circuit on another backend, as :func:`to_backend` does, and return the module.

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
        self._last_move = to_backend(cast(nn.Module, self), backend)
        self._last_move.module = None  # no cycle: a deleted module closes what it opened at once
        return self

    def __enter__(self) -> Self:
        """Begin a block at whose end the last :meth:`to_backend` is undone.

        Raises:
            ConfigError: If there is none to undo.
        """
        move, self._last_move = self._last_move, None
        if move is None:
            raise ConfigError("A model in a with statement must have been moved: with model.to_backend(…).")
        move.__enter__()
        self._blocks_entered += (move,)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Run the circuits where they were before, and close the sessions that the move opened."""
        *outer, move = self._blocks_entered
        self._blocks_entered, self._last_move = tuple(outer), None
        move.__exit__(kind, error, traceback)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the moves, and what torch's modules leave out: a copy was neither moved nor compiled itself."""
        state = cast(dict[str, Any], super().__getstate__())
        return {name: value for name, value in state.items() if name not in ("_last_move", "_blocks_entered")}


def ran_on(calls: dict[str, int]) -> str:
    """Return where calls were computed, in words; with the number of calls if there is more than one place."""
    if len(calls) == 1:
        return next(iter(calls))
    return ", ".join(f"{name} ({count:,} of {sum(calls.values()):,} calls)" for name, count in calls.items())
