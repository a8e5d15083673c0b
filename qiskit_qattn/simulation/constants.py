"""Constants of a torch program: stored in double precision, converted to the module's dtype and device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qiskit_qattn.simulation.precision import forming_dtype


class ConstantModule(nn.Module):
    """A module whose constants are not part of its state: never saved, and always converted from float64 masters.

    So ``module.double()`` after ``module.float()`` restores full precision, and constants are restored when a module
    leaves the device ``meta``. They are not buffers, which other libraries copy or leave empty. They are created on
    the CPU, whatever the default device, and move with the module. In half-precision modules they stay in float32, in
    which the simulation then runs. Complex constants are stored as pairs of reals, since ``module.to(dtype)`` would
    drop imaginary parts; those without an imaginary part are stored as reals.

    Attributes:
        forming: The dtype in which unitaries are formed: that of the constants that are pinned to double precision.
        needs_float64: Whether that is float64 whatever the device and :meth:`form_in` say.
    """

    # As torch._dynamo.mark_static does for a class, without importing the compiler: constants of one shape in a model
    # and of another in the next are no lengths that vary.
    _dynamo_marked_static = True
    forming: torch.dtype
    needs_float64 = False

    def __init__(self) -> None:
        super().__init__()
        self._masters: dict[str, np.ndarray] = {}
        self._double: set[str] = set()
        self._complex: set[str] = set()
        self._asked: torch.dtype | None = None
        self._settle(torch.empty(0, device="cpu"))

    def add_constant(self, name: str, array: np.ndarray, *, double: bool = False) -> None:
        """Make ``array`` (real, complex or integer) the constant ``name``, with ``double`` in the dtype ``forming``."""
        self._complex.discard(name)
        if np.iscomplexobj(array) and array.imag.any():
            array = np.stack([array.real, array.imag], -1)
            self._complex.add(name)
        self._masters[name] = np.ascontiguousarray(array.real)
        if double:
            self._double.add(name)
        self._store(name)

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

    def form_in(self, dtype: torch.dtype | None) -> None:
        """Form unitaries in float64 or float32 from now on; None leaves that to the device, as at the start."""
        for part in self.modules():
            if isinstance(part, ConstantModule):
                part._asked = dtype
                part._settle(part._like)

    def need_float64(self) -> None:
        """Form unitaries in float64 on all devices that have it."""
        for part in self.modules():
            if isinstance(part, ConstantModule):
                part.needs_float64 = True
                part._settle(part._like)

    def follow(self, other: ConstantModule) -> None:
        """Store the constants of this module and its parts as those of another."""
        for part in self.modules():
            if isinstance(part, ConstantModule):
                part._asked, part.needs_float64 = other._asked, part.needs_float64 or other.needs_float64
                part._settle(other._like)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        try:
            self._settle(fn(self._like))
        except NotImplementedError:  # nothing can be copied out of meta; constants need no copy
            self._settle(fn(torch.empty_like(self._like, device="cpu")))
        return self

    def _settle(self, like: Tensor) -> None:
        """Store all constants on the device of an empty tensor, for a module of its dtype."""
        self._like = like
        self._on_meta = like.is_meta
        self.forming = forming_dtype(like.device, like.dtype)
        if like.device.type != "mps":  # Apple's devices have no float64
            self.forming = torch.float64 if self.needs_float64 else self._asked or self.forming
        for name in self._masters:
            self._store(name)

    def _store(self, name: str) -> None:
        """Convert a master and store it as the constant."""
        master, dtype = self._masters[name], self._like.dtype
        if master.dtype.kind in "iu":
            dtype = torch.int64
        elif name in self._double:
            dtype = self.forming
        elif dtype in (torch.float16, torch.bfloat16):
            dtype = torch.float32
        with torch.inference_mode(False):  # a module built in inference mode may be trained later
            setattr(self, name, torch.as_tensor(master, dtype=dtype, device=self._like.device))


def constant_bytes(module: nn.Module) -> int:
    """Return the memory that the constants of a module and its submodules take, in bytes."""
    parts = [part for part in module.modules() if isinstance(part, ConstantModule)]
    return sum(master.nbytes + getattr(part, name).nbytes for part in parts for name, master in part._masters.items())
