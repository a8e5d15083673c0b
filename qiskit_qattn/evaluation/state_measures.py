"""Measures of sets of states and vectors: entanglement, distance from Haar-random states, effective dimension."""

from __future__ import annotations

import math

import torch
from torch import Tensor

BINS = 75  # of the histogram of fidelities, as in Sim et al.


def meyer_wallach(states: Tensor) -> Tensor:
    r"""Return the global entanglement of pure states, between 0 (product states) and 1, shape ``(...)``.

    .. math:: Q(\psi) = 2 \Big( 1 - \frac{1}{n} \sum_{k=1}^{n} \mathrm{tr}\, \rho_k^2 \Big)

    with :math:`\rho_k` the state of qubit k alone. A GHZ state has Q = 1.

    Args:
        states: Amplitudes of unit vectors, shape ``(..., 2**n)``.

    Source: Meyer and Wallach, J. Math. Phys. 43, 4273 (2002), doi 10.1063/1.1497700, in the form of Brennen, Quantum
    Inf. Comput. 3, 619 (2003), arXiv quant-ph/0305094.
    """
    num_qubits = states.shape[-1].bit_length() - 1
    purities = []
    for k in range(num_qubits):
        split = states.unflatten(-1, (-1, 2, 2**k)).transpose(-3, -2).flatten(-2)  # (..., 2, 2**(n - 1))
        reduced = split @ split.mH  # (..., 2, 2)
        purities.append(reduced.abs().square().sum((-2, -1)))
    return 2 * (1 - torch.stack(purities).mean(0))


def unary_meyer_wallach(states: Tensor) -> Tensor:
    r"""Return :func:`meyer_wallach` of states without a 1 or with a single one, shape ``(...)``.

    .. math:: \mathrm{tr}\, \rho_k^2 = (1 - p_k)^2 + p_k^2 + 2 |a|^2 p_k, \qquad p_k = |c_k|^2

    Args:
        states: Amplitudes a of the state without a 1 and :math:`c_k` with it on qubit k, shape ``(..., n + 1)``.
    """
    chances = states.abs().square()
    none, single = chances[..., :1], chances[..., 1:]
    return 2 * (1 - ((1 - single).square() + single.square() + 2 * none * single).mean(-1))


def pair_meyer_wallach(states: Tensor) -> Tensor:
    r"""Return :func:`meyer_wallach` of states without a 1 or with two, shape ``(...)``.

    .. math:: \mathrm{tr}\, \rho_k^2 = (1 - p_k)^2 + p_k^2, \qquad p_k = \sum_j |c_{kj}|^2

    Args:
        states: Amplitudes of the state without a 1 and of all pairs of n qubits in order, shape
            ``(..., n (n - 1) / 2 + 1)``.
    """
    num_qubits = (1 + math.isqrt(8 * states.shape[-1] - 7)) // 2
    pairs = torch.triu_indices(num_qubits, num_qubits, 1, device=states.device)
    holds = torch.nn.functional.one_hot(pairs, num_qubits).sum(0)  # (n (n - 1) / 2, n)
    chances = states[..., 1:].abs().square()
    ones = chances @ holds.to(chances)  # (..., n)
    return 2 * (1 - ((1 - ones).square() + ones.square()).mean(-1))


def haar_divergence(fidelities: Tensor, dimension: int, bins: int = BINS) -> float:
    r"""Return the divergence of the fidelities of pairs of states from those of Haar-random pairs, in nats.

    .. math:: D_{KL}(\hat P \,\|\, P_{Haar}) = \sum_b \hat p_b \ln \frac{\hat p_b}{p_b}, \qquad
              p_b = (1 - F_b)^{N-1} - (1 - F_{b+1})^{N-1}

    over equal bins :math:`[F_b, F_{b+1})` of [0, 1], where :math:`p_b` integrates :math:`P_{Haar}(F) = (N-1)
    (1-F)^{N-2}`. Haar-random states have 0, up to about bins / (2 · pairs); equal states have the largest value,
    :math:`(N - 1) \ln(\mathrm{bins})`.

    Args:
        fidelities: :math:`|\langle \psi | \phi \rangle|^2` of pairs, any shape.
        dimension: N, at least 2.
        bins: Number of bins.

    Source: Sim, Johnson and Aspuru-Guzik, Adv. Quantum Technol. 2, 1900070 (2019), arXiv 1905.10876, with its 75
    bins.
    """
    counts = torch.histc(fidelities.flatten().double().clamp(0, 1), bins, 0, 1)  # (bins,)
    shares = counts / counts.sum()
    # ln((1 - a)^(N-1) - (1 - b)^(N-1)) with 1 - a = (bins - i) / bins, so that nothing underflows
    left = torch.arange(bins, 0, -1, dtype=torch.float64)
    power = dimension - 1
    log_haar = power * (left.log() - math.log(bins)) + torch.log1p(-((left - 1) / left).pow(power))
    seen = shares > 0
    return float((shares[seen] * (shares[seen].log() - log_haar[seen])).sum())


def participation_ratio(vectors: Tensor) -> Tensor:
    r"""Return the effective dimension of sets of vectors, between 1 and their length, shape ``(...)``.

    .. math:: d_{\mathrm{eff}} = \frac{(\sum_i \lambda_i)^2}{\sum_i \lambda_i^2}
              = \frac{(\mathrm{tr}\, C)^2}{\mathrm{tr}\, C^2}

    with :math:`\lambda_i` the eigenvalues of the covariance matrix C: the number of directions over which the
    variance is spread. It is invariant under scaling and rotation of the vectors. Equal vectors have 0.

    Args:
        vectors: Shape ``(..., N, M)``.

    Source: Gao et al., bioRxiv 214262 (2017), doi 10.1101/214262; Litwin-Kumar et al., Neuron 93, 1153 (2017),
    doi 10.1016/j.neuron.2017.01.030.
    """
    centred = vectors.double() - vectors.double().mean(-2, keepdim=True)  # (..., N, M)
    covariance = centred.mT @ centred / vectors.shape[-2]  # (..., M, M)
    total = covariance.diagonal(dim1=-2, dim2=-1).sum(-1)
    return total.square() / covariance.square().sum((-2, -1)).clamp_min(torch.finfo(torch.float64).tiny)
