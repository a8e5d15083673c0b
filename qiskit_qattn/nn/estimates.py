r"""Estimates of attention's :math:`\mu = \sum_j p_j v_j` from drawn keys: the mean, its gradient and its variance.

.. math:: \hat\mu = \sum_s w_s v_{j_s}, \qquad \mathrm{E}\,\hat\mu = \mu

Values have the gradient of that sum. For the probabilities there are two: the score function's, from the drawn keys
alone, and that of exact attention, which takes all values.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from qiskit_qattn.nn.draws import Draw, dense_weights

Gradient = Literal["score", "exact"]


def estimate(
    p: Tensor,
    v: Tensor,
    draw: Draw,
    *,
    gradient: Gradient = "score",
    baseline: Tensor | None = None,
    control: int | None = None,
    gather: bool = False,
) -> Tensor:
    r"""Return :math:`\hat\mu`, shape ``(B, H, L, h)``.

    With ``control`` the means of blocks of values are a control variate of coefficient 1: for the block g(j) of key j,

    .. math:: \hat\mu = \sum_s w_s (v_{j_s} - \bar v_{g(j_s)}) + \sum_g P_g \bar v_g

    where a block counts for a row that sees all its keys; otherwise its mean is taken as 0. It is fixed before keys are
    drawn, so the estimate is unbiased, as it would not be with a coefficient fitted to the same draw.

    The gradient ``score`` with respect to p is that of the score function:

    .. math:: \nabla\mu = \mathrm{E} \sum_s w_s (v_{j_s} - b) \nabla \log p_{j_s}

    for a baseline b that does not depend on the draw. ``exact`` is the gradient of :math:`\sum_j p_j v_j`.

    Args:
        p: Weights of exact attention, shape ``(B, H, L, T)``.
        v: Values, shape ``(B, H, T, h)``.
        draw: The drawn keys, shape ``(B, H, L, S)``.
        gradient: Which gradient p gets.
        baseline: b, shape ``(B, H, L, h)``; None for 0.
        control: Keys of a block; None for no control variate.
        gather: Whether to read the drawn values alone; otherwise weights are added up by key and multiplied with all
            values. Sums are the same but for rounding.
    """
    indices, weights, keys = draw.indices, draw.weights, p.shape[-1]
    given = p
    if gradient == "exact":
        p = p.detach()
    elif p.requires_grad:
        drawn = p.gather(-1, indices)
        one = torch.where(drawn > 0, drawn / drawn.detach().where(drawn > 0, 1.0), 1.0)  # of value 1
        weights = weights * one
    mean = gathered(indices, weights, v) if gather else dense_weights(indices, weights, keys) @ v
    if control is not None:
        whole = keys // control  # no row sees all keys of the block that is not whole
        blocks = dense_weights(indices // control, weights, whole + 1)[..., :whole] - _sums(p, control)
        seen = _sums((p.detach() > 0).to(p.dtype), control) == control
        means = _sums(v.transpose(-1, -2), control).transpose(-1, -2) / control  # (B, H, blocks, h)
        mean = mean - blocks.masked_fill(~seen, 0.0) @ means
    if gradient == "exact" and given.requires_grad:
        exact = given @ v.detach()
        return mean + (exact - exact.detach())
    if baseline is not None:
        score = weights.sum(-1, keepdim=True)
        mean = mean - (score - score.detach()) * baseline.detach()
    return mean


def gathered(indices: Tensor, weights: Tensor, v: Tensor) -> Tensor:
    r"""Return :math:`\sum_s w_s v_{j_s}`, shape ``(B, H, L, h)``, from the values of the drawn keys alone."""
    batch, heads, keys, width = v.shape
    first = keys * torch.arange(batch * heads, device=v.device).view(batch, heads, 1, 1)
    flat = (indices + first).flatten(0, -2)
    y = F.embedding_bag(flat, v.reshape(-1, width), per_sample_weights=weights.to(v.dtype).flatten(0, -2), mode="sum")
    return y.view(batch, heads, -1, width)


def taken(v: Tensor, indices: Tensor) -> Tensor:
    """Return the values ``(B, H, T, h)`` of keys ``(B, H, L, S)``, shape ``(B, H, L, S, h)``."""
    flat = indices.flatten(-2).unsqueeze(-1).expand(-1, -1, -1, v.shape[-1])
    return v.gather(-2, flat).unflatten(-2, indices.shape[-2:])


def estimated_variance(draw: Draw, v: Tensor, control: int | None = None, p: Tensor | None = None) -> Tensor:
    r"""Return an estimate of :math:`\mathrm{E}\lVert\hat\mu - \mu\rVert^2` from the draw, shape ``(B, H, L)``.

    Independent samples: :math:`W^2 s^2 / S`, where W is the weight of all and s² their sample variance; unbiased.
    Strata: :math:`\sum w^2 \lVert v_{j_{2i}} - v_{j_{2i+1}}\rVert^2` over pairs of neighbours, which on average is the
    variance, and what the means of the two strata differ by: never too small on average. NaN for a single sample, which
    tells nothing. :func:`~qiskit_qattn.nn.draws.systematic` has no such estimate.

    Args:
        draw: The drawn keys.
        v: Values, shape ``(B, H, T, h)``.
        control: As for :func:`estimate`, which then needs ``p``.
        p: Weights of exact attention.
    """
    indices, weights = draw.indices[..., draw.exact :], draw.weights[..., draw.exact :]
    values = taken(v, indices)  # (B, H, L, S, h)
    if control is not None:
        assert p is not None
        seen = F.pad(_sums((p > 0).to(v.dtype), control) == control, (0, 1)).gather(-1, indices // control)
        means = F.pad(_sums(v.transpose(-1, -2), control), (0, 1)).transpose(-1, -2) / control
        values = values - taken(means, indices // control) * seen[..., None]
    samples = indices.shape[-1]
    if samples < 2:
        return values.new_full(values.shape[:-2], torch.nan)
    if not draw.strata:
        spread = (values - values.mean(-2, keepdim=True)).square().sum((-1, -2))  # (B, H, L)
        return weights[..., 0].square() * spread * samples / (samples - 1)
    first = list(range(0, samples - 1, 2)) + [samples - 2] * (samples % 2)  # the last of an odd number has a pair too
    second = [i + 1 for i in first]
    differences = (values[..., first, :] - values[..., second, :]).square().sum(-1)  # (B, H, L, pairs)
    return (weights[..., second].square() * differences).sum(-1)


def frequency_variance(draw: Draw, v: Tensor, samples: int | Tensor) -> Tensor:
    """Return the unbiased estimate for frequencies f of the outcomes of S independent samples: that of ``naive``.

    Args:
        draw: All keys in order, with f as weights.
        v: Values, shape ``(B, H, T, h)``.
        samples: S, or that of each row, shape ``(B, H, L)``: at least 2; otherwise the estimate is NaN.
    """
    others = torch.as_tensor(samples, dtype=v.dtype, device=v.device) - 1
    return _variance(draw.weights, v) / others.where(others > 0, torch.nan)


def exact_variance(
    p: Tensor, v: Tensor, strategy: Literal["naive", "stratified", "hybrid"], samples: int, exact: int = 0
) -> Tensor:
    r"""Return :math:`\mathrm{E}\lVert\hat\mu - \mu\rVert^2`, shape ``(B, H, L)``, from all values.

    - ``naive``: :math:`(\sum_j p_j \lVert v_j \rVert^2 - \lVert\mu\rVert^2) / S`
    - ``stratified``: :math:`\sum_s \mathrm{Var}_s / S^2`, of each stratum
    - ``hybrid``: :math:`P_\mathrm{tail}^2 \mathrm{Var}_\mathrm{tail} / (S - k)`

    Args:
        p: Weights of exact attention, shape ``(B, H, L, T)``.
        v: Values, shape ``(B, H, T, h)``.
        strategy: The way of sampling.
        samples: S, the k exact ones included.
        exact: k, of ``hybrid``.
    """
    if strategy == "hybrid":
        top = p.topk(min(exact, p.shape[-1]), -1).indices
        tail = p.scatter(-1, top, 0.0)
        share = tail.sum(-1, keepdim=True)
        return share[..., 0].square() * _variance(tail / share.where(share > 0, 1.0), v) / (samples - exact)
    if strategy == "naive":
        return _variance(p, v) / samples
    strata = stratum_probabilities(p, samples)  # (B, H, L, S, T)
    return _variance(strata, v.unsqueeze(-3)).sum(-1) / samples**2


def stratum_probabilities(p: Tensor, samples: int) -> Tensor:
    """Return the probabilities of the keys within each of S strata of equal probability, shape ``(..., S, T)``."""
    ends = p.cumsum(-1).unsqueeze(-2)  # (..., 1, T)
    low = torch.arange(samples, device=p.device, dtype=p.dtype).unsqueeze(-1) / samples  # (S, 1)
    within = (ends.clamp(max=low + 1 / samples) - (ends - p.unsqueeze(-2)).clamp(min=low)).clamp_min(0)
    return within * samples


def _variance(p: Tensor, v: Tensor) -> Tensor:
    r"""Return :math:`\sum_j p_j \lVert v_j \rVert^2 - \lVert \sum_j p_j v_j \rVert^2`, shape ``(...)``."""
    squares = (v * v).sum(-1, keepdim=True)
    return ((p @ squares)[..., 0] - (p @ v).square().sum(-1)).clamp_min(0)


def _sums(x: Tensor, block: int) -> Tensor:
    """Return the sums over the whole blocks of the last axis, shape ``(..., ⌊T / block⌋)``."""
    whole = x.shape[-1] // block
    return x[..., : whole * block].unflatten(-1, (whole, block)).sum(-1)
