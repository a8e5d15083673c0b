"""Observables between the features of the data: what few features of many qubits need instead of amplitudes."""

from __future__ import annotations

import torch
from torch import Tensor


def effective_observables(matrix: Tensor, signs: Tensor) -> Tensor:
    r"""Return :math:`E_m = A\,\mathrm{diag}(S_m)\,A^T`, summed in float64, shape ``(..., M, F, F)`` in A's dtype.

    Args:
        matrix: A, shape ``(..., F, R)``, or ``(..., F, 2 * R)`` with all real parts, then all imaginary.
        signs: S, shape ``(..., R, M)``.
    """
    exact = torch.float32 if matrix.device.type == "mps" else torch.float64
    rows = matrix.to(exact)
    parts = rows.unflatten(-1, (-1, signs.shape[-2]))  # (..., F, 1 or 2, R)
    scaled = parts.unsqueeze(-4) * signs.to(exact).mT[..., :, None, None, :]  # (..., M, F, 1 or 2, R)
    return (scaled.flatten(-2) @ rows.mT.unsqueeze(-3)).to(matrix.dtype)


def quadratic_forms(features: Tensor, observables: Tensor) -> Tensor:
    r"""Return :math:`f_b^T E_m f_b`, shape ``(..., B, M)``.

    Args:
        features: f, shape ``(..., B, F)``.
        observables: E, shape ``(..., M, F, F)``.
    """
    stacked = observables.transpose(-3, -2).flatten(-2)  # (..., F, M * F)
    products = (features @ stacked).unflatten(-1, (-1, features.shape[-1]))  # (..., B, M, F)
    return (products @ features.unsqueeze(-1)).squeeze(-1)
