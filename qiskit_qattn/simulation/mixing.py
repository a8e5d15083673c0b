"""Quixer on the exact engine: a polynomial of a linear combination of tokens' unitaries, at each position."""

from __future__ import annotations

import torch
from torch import Tensor

from qiskit_qattn.library.attention_circuit import AttentionCircuit
from qiskit_qattn.simulation.circuit_14 import Circuit14
from qiskit_qattn.simulation.constants import ConstantModule
from qiskit_qattn.simulation.precision import without_autocast
from qiskit_qattn.simulation.readout import MeasurementBases, build_readout


def window_coefficients(coefficients: Tensor, steps: int, total: int, real: Tensor | None = None) -> Tensor:
    r"""Return :math:`b_{t-j} / \sum_{j'} |b_{t-j'}|` for the last positions t and all positions j of a sequence.

    Coefficients of later positions, of those outside the window and of padding are 0, and not part of the sum.

    Args:
        coefficients: b, real or complex, shape ``(H, W)``; :math:`b_0` is the position's own.
        steps: T, for how many positions t.
        total: S, of how many positions in all.
        real: Which positions are no padding, shape ``(B, S)``; None for all.

    Returns:
        Shape ``(B, H, T, S)``, B = 1 where there is no padding.
    """
    device, window = coefficients.device, coefficients.shape[-1]
    offsets = torch.arange(total - steps, total, device=device)[:, None] - torch.arange(total, device=device)
    seen = ((offsets >= 0) & (offsets < window))[None, None]  # (1, 1, T, S)
    if real is not None:
        seen = seen & real[:, None, None, :]
    chosen = coefficients[:, offsets.clamp(0, window - 1)] * seen  # (B, H, T, S)
    norms = chosen.abs().sum(-1, keepdim=True)
    return chosen / norms.masked_fill(norms == 0, 1.0)


def mixed_states(maps: Tensor, coefficients: Tensor, polynomial: Tensor) -> Tensor:
    r"""Return :math:`\sum_k c_k M_t^k e_0` for :math:`M_t = \sum_j b_{tj} U_j`, shape ``(B, H, T, D)``.

    All :math:`M_t` are one product of the coefficients with the maps, :math:`T S D^2` multiplications; each power of
    each is a matrix times a vector, :math:`T D^2`.

    Args:
        maps: U, real or complex, shape ``(B, H, S, D, D)``.
        coefficients: b, shape ``(B or 1, H, T, S)``.
        polynomial: c, real, shape ``(H, d + 1)``.
    """
    mixtures = (coefficients.to(maps.dtype) @ maps.flatten(-2)).unflatten(-1, maps.shape[-2:])  # (B, H, T, D, D)
    power, c = mixtures[..., 0], polynomial[:, None, :]  # (B, H, T, D), (H, 1, d + 1)
    first = torch.eye(1, power.shape[-1], dtype=power.dtype, device=power.device)[0]
    state = c[..., :1] * first + c[..., 1:2] * power
    for k in range(2, polynomial.shape[-1]):
        power = (mixtures @ power.unsqueeze(-1)).squeeze(-1)
        state = state + c[..., k : k + 1] * power
    return state


class MixingProgram(ConstantModule):
    r"""Expectations of post-selected states :math:`F \sum_k c_k M_t^k |0 \rangle`, and how probable these are.

    Args:
        token: The circuit of one token: its encoding is circuit 14 for U, its ansatz circuit 14 for F.
    """

    signs: Tensor

    def __init__(self, token: AttentionCircuit) -> None:
        super().__init__()
        self.unitary = Circuit14(token.num_qubits)
        readout = build_readout(token.observables)
        outcomes, signs = readout.needed_outcomes()
        self.measure = MeasurementBases(readout, outcomes)
        self.add_constant("signs", signs)  # (R, M)

    def forward(
        self,
        features: Tensor,
        weights: Tensor,
        coefficients: Tensor,
        polynomial: Tensor,
        steps: int,
        real: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        r"""Return expectations, shape ``(B, H, T, M)``, and probabilities of post-selection, shape ``(B, H, T)``.

        .. math:: p = \lVert \psi \rVert^2 / \lVert c \rVert_1^2

        Args:
            features: Angles of all positions in radians, shape ``(B, H, S, F)``.
            weights: Angles of F in radians, shape ``(H, P)``.
            coefficients: b as real and imaginary parts, shape ``(H, W, 2)``.
            polynomial: c, shape ``(H, d + 1)``.
            steps: T, how many of the last positions.
            real: Which positions are no padding, shape ``(B, S)``; None for all.
        """
        self.leave_meta(features)
        dtype = self.signs.dtype  # float32 in half-precision modules
        with without_autocast(features.device):
            polynomial = polynomial.to(dtype)
            b = torch.view_as_complex(coefficients.to(dtype))
            states = mixed_states(
                self.unitary(features.to(dtype)), window_coefficients(b, steps, features.shape[-2], real), polynomial
            )
            readout = self.measure(self.unitary(weights.to(dtype))).to(states.dtype)  # (H, R, D)
            outcomes = torch.view_as_real(states @ readout.mT).square().sum(-1)  # (B, H, T, R)
            norms = torch.view_as_real(states).square().sum((-2, -1))  # (B, H, T)
            values = outcomes @ self.signs / norms.clamp_min(torch.finfo(dtype).tiny).unsqueeze(-1)
            return values, norms / polynomial.abs().sum(-1)[:, None].square()
