"""Constants of a torch program: stored in double precision, converted to the module's dtype and device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class ConstantModule(nn.Module):
    """A module whose constants are not part of its state: never saved, and always converted from float64 masters.

    So ``module.double()`` after ``module.float()`` restores full precision, and constants are restored when a module
    leaves the device ``meta``. They are not buffers, which other libraries copy or leave empty. They are created on
    the CPU, whatever the default device, and move with the module. In half-precision modules they stay in float32, in
    which the simulation then runs. Complex constants are stored as pairs of reals, since ``module.to(dtype)`` would
    drop imaginary parts; those without an imaginary part are stored as reals.
    """

    # As torch._dynamo.mark_static does for a class, without importing the compiler: constants of one shape in a model and
    # of another in the next are no lengths that vary.
    _dynamo_marked_static = True

    def __init__(self) -> None:
        super().__init__()
        self._masters: dict[str, np.ndarray] = {}
        self._double: set[str] = set()
        self._complex: set[str] = set()
        self._on_meta = False

    def add_constant(self, name: str, array: np.ndarray, *, double: bool = False) -> None:
        """Make ``array`` (real, complex or integer) the constant ``name``; ``double`` pins it to float64."""
        self._complex.discard(name)
        if np.iscomplexobj(array) and array.imag.any():
            array = np.stack([array.real, array.imag], -1)
            self._complex.add(name)
        self._masters[name] = np.ascontiguousarray(array.real)
        if double:
            self._double.add(name)
        integer = array.dtype.kind in "iu"
        self._store(name, torch.int64 if integer else torch.get_default_dtype(), torch.device("cpu"))

    def constant(self, name: str) -> Tensor:
        """Return a constant; complex ones as complex tensors (a view)."""
        stored = getattr(self, name)
        return torch.view_as_complex(stored) if name in self._complex else stored

    def leave_meta(self, like: Tensor) -> None:
        """Create constants that are on the device ``meta`` again on the device of a tensor.

        After ``load_state_dict(assign=True)`` and with ``torch.func.functional_call``, weights may have left ``meta``
        without the module.
        """
        if self._on_meta and not like.is_meta:
            self.to_empty(device=like.device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        for name in self._masters:
            own = getattr(self, name)
            try:
                like = fn(own.new_empty(0))
            except NotImplementedError:  # nothing can be copied out of meta; constants need no copy
                like = fn(own.new_empty(0, device="cpu"))
            self._store(name, like.dtype, like.device)
        return self

    def _store(self, name: str, dtype: torch.dtype, device: torch.device) -> None:
        """Convert a master and store it as the constant."""
        if name in self._double and device.type != "mps":  # Apple's devices have no float64
            dtype = torch.float64
        elif dtype in (torch.float16, torch.bfloat16):
            dtype = torch.float32
        with torch.inference_mode(False):  # a module built in inference mode may be trained later
            setattr(self, name, torch.as_tensor(self._masters[name], dtype=dtype, device=device))
        self._on_meta = device.type == "meta"


def constant_bytes(module: nn.Module) -> int:
    """Return the memory that the constants of a module and its submodules take, in bytes."""
    parts = [part for part in module.modules() if isinstance(part, ConstantModule)]
    return sum(master.nbytes + getattr(part, name).nbytes for part in parts for name, master in part._masters.items())
