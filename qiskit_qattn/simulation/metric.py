"""The Fubini-Study metric of a circuit's weights, a quarter of its quantum Fisher information."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.func import jvp, vmap

from qiskit_qattn.library.attention_circuit import AttentionCircuit
from qiskit_qattn.simulation.compound import CompoundProgram
from qiskit_qattn.simulation.statevector import StateProgram
from qiskit_qattn.simulation.unary import OrthogonalProgram

States = StateProgram | OrthogonalProgram | CompoundProgram
_LARGEST = 2**22  # amplitudes of derivatives at a time


def state_program(circuit: AttentionCircuit) -> States:
    """Return what computes the states of a circuit, on as many amplitudes as they may have.

    Raises:
        CircuitError: For a circuit that the exact engine cannot take.
    """
    kinds: dict[str, type[States]] = {"unary": OrthogonalProgram, "matrix": CompoundProgram}
    return kinds.get(circuit.encoding.kind, StateProgram)(circuit)


def fubini_study(program: States, inputs: Tensor, weights: Tensor) -> Tensor:
    r"""Return the Fubini-Study metric of a circuit's weights, in the mean over its inputs, shape ``(..., P, P)``.

    .. math:: g_{ij} = \frac{1}{B} \sum_b \mathrm{Re} \big[ \langle \partial_i \psi_b | \partial_j \psi_b \rangle
              - \langle \partial_i \psi_b | \psi_b \rangle \langle \psi_b | \partial_j \psi_b \rangle \big], \qquad
              \psi_b = \psi(x_b, \theta)

    To second order :math:`1 - |\langle \psi(x, \theta) | \psi(x, \theta + \delta) \rangle|^2 = \delta^T g\, \delta`,
    in the mean over x. The quantum Fisher information is 4 g. Computed as the Gram matrix of what of each derivative is
    orthogonal to the state, so that it has no negative eigenvalue but by rounding.

    Args:
        program: The circuit's states, see :func:`state_program`.
        inputs: Shape ``(..., B, num_inputs)``.
        weights: Angles in radians, shape ``(..., P)``; leading axes, one per head, broadcast with the inputs'.

    Source: Stokes et al., Quantum 4, 269 (2020), arXiv 1909.02108, equation 10.
    """
    lead = torch.broadcast_shapes(inputs.shape[:-2], weights.shape[:-1])
    inputs, weights = inputs.detach().expand(*lead, -1, -1), weights.detach().expand(*lead, -1)

    def derivative(direction: Tensor) -> Tensor:
        return jvp(partial(program.states, inputs), (weights,), (direction.expand_as(weights),))[1]

    with torch.no_grad():
        state = program.states(inputs, weights)  # (..., B, N)
        directions = torch.eye(weights.shape[-1], dtype=weights.dtype, device=weights.device)
        at_once = max(1, _LARGEST // max(1, state.numel()))
        tangents = vmap(derivative, chunk_size=at_once)(directions)  # (P, ..., B, N)
        tangents = tangents - (state.conj() * tangents).sum(-1, keepdim=True) * state
        real = torch.view_as_real(tangents) if tangents.is_complex() else tangents.unsqueeze(-1)
        flat = real.flatten(-3).movedim(0, -2)  # (..., P, B N)
        return flat @ flat.mT / inputs.shape[-2]
