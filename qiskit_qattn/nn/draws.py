r"""Keys drawn by their probabilities: from random words to indices and weights, for every way of sampling.

A draw of S keys :math:`j_1 \ldots j_S` with weights w stands for the weights p of attention:

.. math:: \mathrm{E} \sum_s w_s f(j_s) = \sum_j p_j f(j) \quad \text{for every } f

Probabilities are rounded to multiples of 2⁻³⁰, as whole numbers: their sums do not depend on the order of addition, so
a key of probability 0 is never drawn, and a CPU and a GPU draw the same keys. The random words are functions of a key
and a counter: row, head, layer and step say which, so that no row's words depend on the other rows of a batch.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_WEYL = 0x9E3779B9, 0xBB67AE85
_UNIT = 2**30  # of probability: with 32 random bits, products stay below 2^63


class Draw(NamedTuple):
    """Keys drawn for each row.

    Attributes:
        indices: The numbers of the keys, shape ``(..., S)``.
        weights: The weight of each, same shape; all 0 for a row that sees no key.
        exact: The number of first keys that are not drawn but always taken.
        strata: Whether each of the others is from a stratum of its own, of equal probability, in order.
        counts: The number of samples of each row, shape ``(..., 1)``, where rows differ; further ones have weight 0.
    """

    indices: Tensor
    weights: Tensor
    exact: int = 0
    strata: bool = False
    counts: Tensor | None = None


def philox(counter: tuple[Tensor, ...], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Return the four 32-bit words of Philox4x32-10 for each counter, as int64.

    Args:
        counter: Four tensors of words, which broadcast.
        key: Two.

    Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011,
    doi 10.1145/2063384.2063405.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        high0, low0 = _product(_MULTIPLIERS[0], c0)
        high1, low1 = _product(_MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return c0, c1, c2, c3


def _product(factor: int, word: Tensor) -> tuple[Tensor, Tensor]:
    """Return the upper and lower 32 bits of a product of words; no step leaves the range of int64."""
    high, low = word * (factor >> 16), word * (factor & 0xFFFF)
    return (high + (low >> 16)) >> 16, (((high & 0xFFFF) << 16) + low) & _WORD


def random_words(count: int, rows: Tensor, heads: Tensor, *, seed: int, step: Tensor | int, stream: int) -> Tensor:
    """Return random words for each row of each head, uniform below 2³², shape ``(B, H, L, count)``.

    Args:
        count: How many for each row.
        rows: A number of each row: its position, and what else tells it apart, shape ``(B, L)``.
        heads: A number of each head, below 2³², shape ``(H,)``.
        seed: Below 2³².
        step: Below 2³², of the training.
        stream: Below 256; each has words of its own.
    """
    blocks = torch.arange(-(-count // 4), device=rows.device) + (stream << 24)
    rows, heads = rows[:, None, :, None], heads[:, None, None]
    counter = blocks, rows & _WORD, heads, (rows >> 32) & _WORD
    step = torch.as_tensor(step, dtype=torch.int64, device=rows.device)
    words = torch.stack(torch.broadcast_tensors(*philox(counter, (torch.full_like(step, seed), step))), -1)
    return words.flatten(-2)[..., :count]


def naive(p: Tensor, words: Tensor) -> Draw:
    """Return S independent keys, each of weight 1 / S: what measuring Σ √p_j |j⟩ gives S times.

    Args:
        p: Probabilities of the keys, shape ``(..., T)``; they sum to 1, or to 0 where a row sees no key.
        words: Random words, shape ``(..., S)``, which broadcast with the rows.
    """
    masses, total = _masses(p)
    return _equal(_keys_at(masses, words * total >> 32), p, total)


def stratified(p: Tensor, words: Tensor, counts: Tensor | None = None) -> Draw:
    """Return one key of each of S strata: key s by a point of [s / S, (s + 1) / S) of the distribution function.

    Args:
        p: As for :func:`naive`.
        words: As for :func:`naive`.
        counts: How many strata each row has, at most S, shape ``(..., 1)``; None for S.
    """
    masses, total = _masses(p)
    samples = torch.arange(words.shape[-1], device=p.device)
    if counts is None:
        points = (samples * total + (words * total >> 32)) // words.shape[-1]
        return _equal(_keys_at(masses, points), p, total)._replace(strata=True)
    used = samples < counts
    points = (samples * total + (words * total >> 32)) // counts
    indices = _keys_at(masses, torch.where(used, points, 0))
    weights = torch.where(used & (total > 0), 1 / counts.to(p.dtype), 0.0)
    return Draw(indices, weights.expand(indices.shape), strata=True, counts=counts)


def systematic(p: Tensor, words: Tensor) -> Draw:
    """Return the keys at S equidistant points of the distribution function, moved by one random number.

    Unbiased, but worse than :func:`naive` where the values repeat with the period of the points.

    Args:
        p: As for :func:`naive`.
        words: As for :func:`naive`; the first of each row counts.
    """
    return stratified(p, words[..., :1].expand(words.shape))._replace(strata=False)


def hybrid(p: Tensor, words: Tensor, exact: int) -> Draw:
    """Return the k likeliest keys, each of its own weight p, and S independent ones of the rest.

    Args:
        p: As for :func:`naive`.
        words: As for :func:`naive`.
        exact: k.
    """
    top, first = p.detach().topk(min(exact, p.shape[-1]), -1)  # (..., k)
    tail = p.detach().scatter(-1, first, 0.0)
    masses, total = _masses(tail)
    drawn = _equal(_keys_at(masses, words * total >> 32), p, total)
    # A tail without mass is not drawn from: its key is the likeliest, which the row sees.
    indices = torch.where(total > 0, drawn.indices, first[..., :1])
    weights = drawn.weights * tail.sum(-1, keepdim=True)
    return Draw(torch.cat([first, indices], -1), torch.cat([top, weights], -1), top.shape[-1])


def entropy_counts(p: Tensor, samples: int) -> Tensor:
    r"""Return how many samples each row takes: :math:`S H(p) / \log n`, from 2 to S.

    It is rounded up to an even number where S allows. H is the entropy of the row, n the number of keys that it sees.
    The number depends on p alone: one that depends on the samples, such as to stop once they agree, would bias their
    mean.

    Args:
        p: As for :func:`naive`.
        samples: S.

    Returns:
        Shape ``(..., 1)``.
    """
    p = p.detach().float().nan_to_num(0.0)
    seen = (p > 0).sum(-1, keepdim=True).clamp_min(2)
    share = torch.special.entr(p).sum(-1, keepdim=True) / seen.log()
    return _even(share, samples)


def _even(share: Tensor, samples: int) -> Tensor:
    """Return a share of S samples, rounded up to an even number, at least 2, at most S."""
    return (2 * torch.ceil(share.nan_to_num(1.0) * (samples / 2) - 1e-4)).clamp(2, samples).long()


def pilot_counts(values: Tensor, samples: int) -> Tensor:
    r"""Return how many samples each row takes by a pilot: :math:`S s^2 / m`, from 2 to S.

    It is rounded up to an even number where S allows. s² is the sample variance of the pilot's values and m the mean of
    their squared norms, so that rows have the same error relative to their values: by strata
    :math:`\mathrm{E}\lVert\hat\mu - \mu\rVert^2` is about m / S or less. The mean that is reported has samples of its
    own: one that contained the pilot would be biased.

    Args:
        values: The values of the pilot's P ≥ 2 keys, which are independent samples, shape ``(..., P, h)``.
        samples: S.

    Returns:
        Shape ``(..., 1)``.
    """
    values = values.detach().float()
    spread = values.var(-2).sum(-1, keepdim=True)  # (..., 1)
    squares = values.square().sum(-1).mean(-1, keepdim=True)
    return _even(spread / squares.where(squares > 0, 1.0), samples)


def dense_weights(indices: Tensor, weights: Tensor, keys: int) -> Tensor:
    """Return the weight of each of T keys, shape ``(..., T)``: the drawn ones' added up."""
    return weights.new_zeros(*weights.shape[:-1], keys).scatter_add(-1, indices, weights)


def _masses(p: Tensor) -> tuple[Tensor, Tensor]:
    """Return probabilities as whole numbers, shape ``(..., T)``, and their sum, shape ``(..., 1)``."""
    p = p.detach()
    p = p if p.dtype == torch.float64 else p.float()
    masses = (p.nan_to_num(0.0) * _UNIT).round().long()
    return masses, masses.sum(-1, keepdim=True)


def _keys_at(masses: Tensor, points: Tensor) -> Tensor:
    """Return the first key for which the sum of the masses up to it is above the point, shape ``(..., S)``."""
    sums = masses.cumsum(-1)
    points = points.expand(*sums.shape[:-1], points.shape[-1]).contiguous()
    return torch.searchsorted(sums, points, right=True).clamp_max(masses.shape[-1] - 1)


def _equal(indices: Tensor, p: Tensor, total: Tensor) -> Draw:
    weights = (total > 0).to(p.dtype) / indices.shape[-1]
    return Draw(indices, weights.expand(indices.shape))
