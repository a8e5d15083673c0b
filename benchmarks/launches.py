"""What a GPU would be asked to do: calls, float64 among them, and bytes, counted on fake CUDA tensors without a GPU.

    python -m benchmarks.launches

A call is an operation of torch that computes something, which is at least one kernel; views and allocations are free.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_FREE = {
    "empty",
    "empty_strided",
    "empty_like",
    "_unsafe_view",
    "squeeze_",
    "promote_types",
    "new_empty",
    "new_empty_strided",
    "detach",
    "_reshape_alias",
}


@dataclass
class Launches:
    """What was called.

    Attributes:
        names: How often each operation was called.
        double: How many calls read or wrote float64.
        bytes: The bytes of all tensors that were read and written.
    """

    names: Counter[str] = field(default_factory=Counter)
    double: int = 0
    bytes: int = 0

    @property
    def calls(self) -> int:
        """The number of calls."""
        return self.names.total()


class _Count(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.found = Launches()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if not func.is_view and name not in _FREE:
            read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            tensors = [*read, *(leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor))]
            self.found.names[name] += 1
            self.found.double += any(t.dtype in (torch.float64, torch.complex128) for t in tensors)
            self.found.bytes += sum(t.untyped_storage().nbytes() if 0 in t.stride() else t.nbytes for t in tensors)
        return result


def count(call: Callable[[], Any]) -> Launches:
    """Return what a function of fake tensors calls, its backward pass included."""
    with _Count() as counter:
        call()
    return counter.found
