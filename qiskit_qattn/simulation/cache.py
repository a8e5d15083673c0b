"""Caches of results, and keys that change with what the results were computed from."""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from types import FunctionType
from typing import Any, Generic, TypeVar

import torch
from qiskit import QuantumCircuit
from torch import Tensor

from qiskit_qattn.forks import ForkLock

T = TypeVar("T")
_MOST_BYTES = 2**27


class LatestResult(Generic[T]):
    """A cache of the last result of a function of tensors, computed again once a value in them differs.

    Values are compared, since ``weight.data`` can be edited without a change of torch's version counter. For use
    without gradients.
    """

    def __init__(self) -> None:
        self._entry: tuple[Any, list[Tensor], T] | None = None

    def get(self, compute: Callable[[], T], tensors: Sequence[Tensor], *key: Any) -> T:
        """Return the result for these tensors, of one dtype and device, and for whatever else ``key`` holds."""
        by_shape: dict[torch.Size, list[Tensor]] = {}
        for tensor in tensors:
            by_shape.setdefault(tensor.shape, []).append(tensor)
        values = [torch.stack(group) for group in by_shape.values()]  # so that few calls compare them
        full_key = (key, [tensor.shape for tensor in tensors], [(value.dtype, value.device) for value in values])
        entry = self._entry  # read once: another thread may replace it
        if entry is not None and entry[0] == full_key and all(map(torch.equal, entry[1], values)):
            return entry[2]
        result = compute()
        self._entry = (full_key, values, result)
        return result


class ResultPool(Generic[T]):
    """A cache of the most recently used results, each used by one thread at a time.

    :meth:`take` removes a result from the pool and :meth:`give` puts it back; a second thread that needs it meanwhile
    computes its own. Copies and pickles of a pool are empty.

    Args:
        most: The number of results.
        most_bytes: Their total size; a result that is larger by itself is not cached.
    """

    def __init__(self, most: int = 32, most_bytes: int = _MOST_BYTES) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._entries: OrderedDict[Hashable, tuple[T, int]] = OrderedDict()  # least recently used first
        self._lock = ForkLock()

    def __len__(self) -> int:
        return len(self._entries)

    def __reduce__(self) -> Any:
        return type(self), (self._most, self._most_bytes)

    def take(self, key: Hashable) -> T | None:
        """Remove and return the result of a key, or return None."""
        with self._lock:
            entry = self._entries.pop(key, None)
        return None if entry is None else entry[0]

    def give(self, key: Hashable, result: T, size: int = 0) -> None:
        """Add a result of ``size`` bytes, and drop the least recently used ones beyond the limits."""
        if size > self._most_bytes:
            return
        with self._lock:
            self._entries[key] = result, size
            while len(self._entries) > self._most or sum(s for _, s in self._entries.values()) > self._most_bytes:
                self._entries.popitem(last=False)


class Identity:
    """A key that equals only keys of the same object, which it keeps alive."""

    def __init__(self, item: Any) -> None:
        self.item = item

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and other.item is self.item

    def __hash__(self) -> int:
        return id(self.item)


def circuit_content(circuit: QuantumCircuit) -> Hashable | None:
    """Return a key that is equal only for circuits of the same content, or None if the circuit cannot be pickled.

    It covers everything in the circuit, definitions and matrices of its operations included, so a circuit that is
    edited in place gets another key. Classes of operations are compared as objects: a class defined again differs.
    """
    pickler = _Pickler(stream := io.BytesIO())
    try:
        pickler.dump(circuit)
    except (pickle.PicklingError, AttributeError, TypeError, ValueError, RecursionError):
        return None
    return stream.getvalue(), tuple(pickler.globals)


class _Pickler(pickle.Pickler):
    """Collects the classes and functions that a pickle refers to by name."""

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream, protocol=5)
        self.globals: list[Hashable] = []

    def reducer_override(self, item: Any) -> Any:
        """Record classes and functions; pickle everything as usual."""
        if isinstance(item, type | FunctionType):
            self.globals.append(item)
        return NotImplemented
