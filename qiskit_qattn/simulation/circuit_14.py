r"""Unitaries of circuit 14 for a batch of angles, as products of a few matrices instead of gates.

A ring of controlled RX has each qubit as the target of one gate, so its matrix has a single product per entry,

.. math:: \langle y | \mathrm{ring} | x \rangle = \prod_g \langle y_t | R_X(\theta_g)^{c_g} | x_t \rangle

with t the target of gate g, and :math:`c_g` its control's bit: of x, or of y where the control was a target before. A
factor is 1, 0, :math:`\cos(\theta_g / 2)` or :math:`-i \sin(\theta_g / 2)`. So the :math:`3^n` products of 1, cosines
and sines of all gates hold every entry up to a phase, and an entry is one look-up.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from qiskit_qattn.library.quixer import ring_pairs
from qiskit_qattn.simulation.constants import ConstantModule
from qiskit_qattn.simulation.operators import kronecker


class Circuit14(ConstantModule):
    """The unitaries of :func:`~qiskit_qattn.library.quixer.circuit_14`.

    Args:
        num_qubits: n.
    """

    def __init__(self, num_qubits: int) -> None:
        super().__init__()
        self.num_qubits = num_qubits
        self.rings = ring_pairs(num_qubits)
        for name, ring in zip(("up", "down"), self.rings, strict=True):
            if ring:
                which, phases = _entries(num_qubits, ring)
                self.add_constant(f"{name}_which", which.reshape(-1))
                self.add_constant(f"{name}_real", phases.real)
                self.add_constant(f"{name}_imag", phases.imag)

    def forward(self, angles: Tensor) -> Tensor:
        """Return unitaries, complex, shape ``(..., 2**n, 2**n)``.

        Args:
            angles: The angles of all layers in radians, shape ``(..., K)``.
        """
        self.leave_meta(angles)
        n = self.num_qubits
        half = angles.to(self.forming) / 2
        cosines, sines = half.cos(), half.sin()  # (..., K)
        if angles.dtype != self.forming:
            cosines, sines = cosines.to(angles.dtype), sines.to(angles.dtype)
        product, start = None, 0
        while start < angles.shape[-1]:
            for name, ring in zip(("up", "down"), self.rings, strict=True):
                c, s = cosines[..., start : start + n], sines[..., start : start + n]
                gates = torch.stack([c, -s, s, c], -1).unflatten(-1, (2, 2))  # (..., n, 2, 2)
                layer = kronecker(gates.flip(-3))  # the most significant qubit first
                start += n
                if ring:
                    layer = self._ring(name, cosines[..., start : start + n], sines[..., start : start + n], layer)
                    start += n
                product = layer if product is None else layer @ product.to(layer.dtype)
        if product is None:
            return torch.eye(2**n, dtype=cosines.dtype, device=angles.device).expand(*angles.shape[:-1], -1, -1) + 0j
        return product if product.is_complex() else torch.complex(product, torch.zeros_like(product))

    def _ring(self, name: str, cosines: Tensor, sines: Tensor, layer: Tensor) -> Tensor:
        """Return a ring's matrix times that of a layer of RY."""
        factors = torch.stack([torch.ones_like(cosines), cosines, sines], -1)  # (..., n, 3)
        products = reduce(_products, factors.unbind(-2))  # (..., 3**n)
        products = torch.cat([products, torch.zeros_like(products[..., :1])], -1)
        size = layer.shape[-1]
        sizes = products.index_select(-1, getattr(self, f"{name}_which")).unflatten(-1, (size, size))
        real, imag = getattr(self, f"{name}_real"), getattr(self, f"{name}_imag")
        return torch.complex((sizes * real) @ layer, (sizes * imag) @ layer)


def _products(one: Tensor, other: Tensor) -> Tensor:
    return (one[..., :, None] * other[..., None, :]).flatten(-2)


def _entries(num_qubits: int, ring: Sequence[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Return which product each entry of a ring's matrix is, the last for 0, and its phase, both ``(2**n, 2**n)``."""
    y, x = np.meshgrid(*[np.arange(2**num_qubits)] * 2, indexing="ij")
    which, zero, done = np.zeros_like(x), np.zeros(x.shape, dtype=bool), set[int]()
    for control, target in ring:
        acts = ((y if control in done else x) >> control) & 1
        flips = ((x ^ y) >> target) & 1
        which = 3 * which + acts * (1 + flips)
        zero |= (acts == 0) & (flips == 1)
        done.add(target)
    phases = np.array([1, -1j, -1, 1j])[np.bitwise_count(x ^ y) % 4]
    return np.where(zero, 3**num_qubits, which), phases
