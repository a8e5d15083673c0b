"""Constants of a torch program: kept in double precision, handed out in the module's dtype and device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class ConstantModule(nn.Module):
    """A module whose constants are no state: never saved, and converted from float64 masters, not from each other.

    ``module.double()`` after ``module.float()`` therefore restores full precision. Half-precision dtypes leave the
    constants in float32, in which the simulation then runs. Complex constants are stored as pairs of reals, since
    ``module.to(dtype)`` would drop imaginary parts; those without an imaginary part become real ones.
    """

    def __init__(self) -> None:
        super().__init__()
        self._masters: dict[str, np.ndarray] = {}
        self._double: set[str] = set()
        self._complex: set[str] = set()

    def add_constant(self, name: str, array: np.ndarray, *, double: bool = False) -> None:
        """Register ``array`` (real, complex or integer) as the constant ``name``; ``double`` pins it to float64."""
        self._complex.discard(name)
        if np.iscomplexobj(array) and array.imag.any():
            array = np.stack([array.real, array.imag], -1)
            self._complex.add(name)
        array = array.real
        self._masters[name] = np.ascontiguousarray(array)
        if double:
            self._double.add(name)
        dtype = torch.float64 if double else torch.get_default_dtype()
        tensor = torch.as_tensor(self._masters[name], dtype=None if array.dtype.kind in "iu" else dtype)
        self.register_buffer(name, tensor, persistent=False)

    def constant(self, name: str) -> Tensor:
        """Return a constant; complex ones as complex tensors (a view)."""
        stored = getattr(self, name)
        return torch.view_as_complex(stored) if name in self._complex else stored

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        for name, master in self._masters.items():
            now = getattr(self, name)
            dtype = now.dtype
            if name in self._double and now.device.type != "mps":  # Apple's devices have no float64
                dtype = torch.float64
            elif dtype in (torch.float16, torch.bfloat16):
                dtype = torch.float32
            setattr(self, name, torch.as_tensor(master, dtype=dtype, device=now.device))
        return self
