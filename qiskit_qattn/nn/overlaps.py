r"""Overlaps of the states of queries and keys, all pairs by one matrix product, and attention with complex weights.

A state of n qubits is the real parts of its amplitudes and then their imaginary parts, :math:`2 \cdot 2^n` numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from qiskit_qattn.library.pairs import Comparison, kept_qubits


def overlaps(q: Tensor, k: Tensor) -> Tensor:
    r"""Return real and imaginary parts of :math:`\langle q_i | k_j \rangle`, shape ``(..., 2, S, T)``.

    Args:
        q: States, shape ``(..., S, F)``.
        k: States, shape ``(..., T, F)``.
    """
    half = q.shape[-1] // 2
    turned = torch.cat([-q[..., half:], q[..., :half]], -1)  # i q: Re ⟨i q|k⟩ = Im ⟨q|k⟩
    return (torch.cat([q, turned], -2) @ k.mT).unflatten(-2, (2, -1))


def compared_states(comparison: Comparison, q: Tensor, k: Tensor, root: Tensor | None) -> tuple[Tensor, Tensor]:
    r"""Return the vectors whose products are τ times the comparison of the states.

    For ``mixed``, states become the entries of reduced density matrices :math:`\rho = M M^\dagger`, real parts and then
    imaginary ones. Rows of M are the kept qubits, columns those traced out. Then :math:`\mathrm{Tr}(\rho \sigma)` is
    the product of the entries.

    Args:
        comparison: How states are compared.
        q: States of queries, shape ``(B, nh, S, 2 * 2**n)``.
        k: States of keys, shape ``(B, nh, T, 2 * 2**n)``.
        root: √τ, shape ``(nh,)``; None for 1.
    """
    if root is not None:
        q = q * root[:, None, None]  # now of squared norm τ
    if comparison != "mixed":
        return q, k
    q, k = _density_matrices(q), _density_matrices(k)
    return q * q.shape[-1] ** 0.5, k  # attention divides by this root


def _density_matrices(states: Tensor) -> Tensor:
    """Return the entries of reduced density matrices, real parts and then imaginary ones, shape ``(..., 2 * 4**m)``."""
    n = states.shape[-1].bit_length() - 2
    size = 2 ** kept_qubits(n)
    parts = states.unflatten(-1, (2, -1, size)).mT.flatten(-3, -2)  # of M, (..., 2 * 2**m, 2**(n - m)): qubit 0 is last
    products = parts @ parts.mT
    above, below = products[..., :size, :], products[..., size:, :]
    real, imag = above[..., :size] + below[..., size:], below[..., :size] - above[..., size:]
    return torch.cat([real, imag], -2).flatten(-2)


def complex_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, dropout: float = 0.0, *, need_weights: bool = False
) -> tuple[Tensor, Tensor]:
    r"""Return :math:`\sum_j w_{ij} v_j` with complex weights and the moduli of these, which sum to 1.

    .. math:: w_{ij} = \langle q_i | k_j \rangle \Big/ \sum_j |\langle q_i | k_j \rangle|

    The first half of a value is the real parts of complex numbers, the second half the imaginary ones; a last number
    without a partner is real, and so is what it becomes. A mask that is added to the argument of a softmax multiplies a
    modulus by its exponential.

    Args:
        q: States of queries, shape ``(B, nh, S, F)``.
        k: States of keys, shape ``(B, nh, T, F)``.
        v: Values, shape ``(B, nh, T, hv)``.
        mask: As for :func:`~qiskit_qattn.nn.attention.attend`.
        dropout: Probability of dropping a weight.
        need_weights: Whether moduli of a row that sees no key are NaN, as for that function.

    Source: Chen et al., arXiv 2503.19002: complex linear combinations of unitaries have these normalised coefficients.
    """
    parts = overlaps(q, k)  # (B, nh, 2, S, T)
    # At 0 neither a root nor a phase has a gradient.
    moduli = parts.square().sum(-3).clamp_min(torch.finfo(parts.dtype).tiny).sqrt()  # (B, nh, S, T)
    if mask is not None:
        factor = mask.to(moduli.dtype) if mask.dtype == torch.bool else mask.exp()
        parts, moduli = parts * factor.unsqueeze(-3), moduli * factor
    total = moduli.sum(-1, keepdim=True)
    if not need_weights:  # a row that sees no key is 0
        total = total.masked_fill(total == 0, 1.0)
    if dropout:
        kept = F.dropout(torch.ones_like(moduli), dropout)
        parts, moduli = parts * kept.unsqueeze(-3), moduli * kept
    real, imag = (parts / total.unsqueeze(-3)).unbind(-3)
    half = v.shape[-1] // 2
    turned = torch.cat([-v[..., half : 2 * half], v[..., :half], torch.zeros_like(v[..., 2 * half :])], -1)  # i v
    return real @ v + imag @ turned, moduli / total
