"""Results that are kept until what they were computed from changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class Kept(Generic[T]):
    """The last result of a function of tensors, computed again once a value in them differs.

    Values are compared, since ``weight.data`` can be edited without torch's version counter noticing. For use without
    gradients.
    """

    def __init__(self) -> None:
        self._known: tuple[Any, list[Tensor], T] | None = None

    def get(self, compute: Callable[[], T], tensors: Sequence[Tensor], *key: Any) -> T:
        """Return the result for these tensors, of one dtype and device, and for whatever else ``key`` holds."""
        alike: dict[torch.Size, list[Tensor]] = {}
        for tensor in tensors:
            alike.setdefault(tensor.shape, []).append(tensor)
        values = [torch.stack(group) for group in alike.values()]  # few calls, whose time is all that matters here
        full = (key, [tensor.shape for tensor in tensors], [(value.dtype, value.device) for value in values])
        known = self._known  # once: another thread may replace it
        if known is not None and known[0] == full and all(map(torch.equal, known[1], values)):
            return known[2]
        result = compute()
        self._known = (full, values, result)
        return result
