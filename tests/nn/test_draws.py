"""The laws of drawing keys, by enumeration: every outcome of the random words of a small grid, with its probability."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import chi2
from torch import Tensor

from qiskit_qattn.nn import draws
from qiskit_qattn.nn.draws import Draw, dense_weights, philox, random_words

P = torch.tensor([1, 0, 3, 4, 0], dtype=torch.float64) / 8
GRID = 8  # words at the middle of 8 intervals: with p in eighths, each stands for all others of its interval
WAYS: dict[str, Callable[[Tensor, Tensor], Draw]] = {
    "naive": draws.naive,
    "stratified": draws.stratified,
    "systematic": draws.systematic,
    "hybrid": lambda p, words: draws.hybrid(p, words[..., 1:], 1),
    "adaptive": lambda p, words: draws.stratified(p, words, torch.full_like(words[..., :1], 1)),
}


def every_word(samples: int) -> Tensor:
    """Return all outcomes of the words of S samples on the grid, equally probable, shape ``(GRID**S, S)``."""
    grid = (torch.arange(GRID) * 2 + 1) * (2**32 // (2 * GRID))
    return torch.stack([torch.stack(each) for each in product(grid, repeat=samples)])


def words_of(*values: int) -> tuple[Tensor, ...]:
    """Return 32-bit words as tensors."""
    return tuple(torch.tensor(value) for value in values)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_random_words_are_those_of_philox(
    counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]
) -> None:
    """The known answers that Random123 publishes for Philox4x32-10."""
    found = philox(words_of(*counter), (torch.tensor(key[0]), torch.tensor(key[1])))
    assert tuple(map(int, found)) == expected


def test_words_depend_on_seed_step_stream_head_and_row() -> None:
    rows, heads = torch.arange(5)[None] + (7 << 40), torch.arange(3)
    plain = random_words(6, rows, heads, seed=1, step=2, stream=0)
    assert plain.shape == (1, 3, 5, 6)
    assert int(plain.min()) >= 0 and int(plain.max()) < 2**32
    assert len(plain.unique()) == plain.numel()
    others = [
        random_words(6, rows, heads, seed=2, step=2, stream=0),
        random_words(6, rows, heads, seed=1, step=3, stream=0),
        random_words(6, rows, heads, seed=1, step=2, stream=1),
        random_words(6, rows, heads + 3, seed=1, step=2, stream=0),
        random_words(6, rows + (1 << 32), heads, seed=1, step=2, stream=0),
    ]
    for other in others:
        assert not torch.isin(plain, other).any()


def test_words_of_a_row_do_not_depend_on_the_other_rows(rng: np.random.Generator) -> None:
    rows = torch.from_numpy(rng.integers(0, 2**50, (4, 6)))
    all_rows = random_words(9, rows, torch.arange(2), seed=3, step=torch.tensor(5), stream=0)
    order = torch.from_numpy(rng.permutation(4))
    assert torch.equal(random_words(9, rows[order], torch.arange(2), seed=3, step=5, stream=0), all_rows[order])
    some = random_words(4, rows[1:2, 2:], torch.arange(1, 2), seed=3, step=5, stream=0)
    assert torch.equal(some, all_rows[1:2, 1:, 2:, :4])


def test_words_are_uniform() -> None:
    words = random_words(64, torch.arange(500)[None], torch.arange(4), seed=11, step=0, stream=0)
    for shift in (26, 0):  # of the upper and of the lower bits
        counts = torch.bincount((words >> shift).flatten() & 63, minlength=64).double()
        expected = words.numel() / 64
        assert chi2.ppf(0.0005, 63) < float(((counts - expected) ** 2 / expected).sum()) < chi2.ppf(0.9995, 63)


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("samples", [2, 3])
def test_every_way_is_unbiased(name: str, samples: int) -> None:
    """The mean over all outcomes of what each key counts is its probability: for every f, E Σ w f(j) = Σ p f."""
    words = every_word(samples)
    draw = WAYS[name](P.expand(len(words), -1), words)
    weights = dense_weights(draw.indices, draw.weights, len(P))
    torch.testing.assert_close(weights.mean(0), P, rtol=0, atol=1e-12)
    torch.testing.assert_close(weights.sum(-1), torch.ones(len(words), dtype=torch.float64), rtol=0, atol=1e-12)


def test_strata_of_different_numbers_are_unbiased() -> None:
    words = every_word(3)
    for count in (1, 2, 3):
        draw = draws.stratified(P.expand(len(words), -1), words, torch.full((len(words), 1), count))
        assert torch.count_nonzero(draw.weights[0]) == count
        torch.testing.assert_close(dense_weights(*draw[:2], len(P)).mean(0), P, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", WAYS)
def test_keys_of_probability_zero_are_never_drawn(name: str, dtype: torch.dtype, rng: np.random.Generator) -> None:
    """Not even by the least and the largest word, and not where sums are rounded."""
    logits = torch.from_numpy(rng.normal(0, 4, (300, 40))).to(dtype)
    masked = torch.from_numpy(rng.random((300, 40)) < 0.6)
    masked[:, 7] = False
    masked[:100, 20:] = True
    p = logits.masked_fill(masked, -torch.inf).softmax(-1)
    words = torch.from_numpy(rng.integers(0, 2**32, (300, 16)))
    words[:, :2], words[:, 2:4] = 0, 2**32 - 1
    draw = WAYS[name](p, words)
    assert not masked.gather(-1, draw.indices)[draw.weights > 0].any()
    assert (draw.weights.float().sum(-1) - 1).abs().max() < (1e-2 if dtype == torch.bfloat16 else 1e-5)


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("nothing", [0.0, torch.nan])
def test_a_row_that_sees_no_key_gets_no_weight(name: str, nothing: float) -> None:
    draw = WAYS[name](torch.full((2, 4), nothing), torch.full((2, 3), 2**31))
    assert int(draw.indices.min()) >= 0 and int(draw.indices.max()) < 4
    if nothing == 0:
        assert not draw.weights.any()


def test_likeliest_keys_are_there_for_certain(rng: np.random.Generator) -> None:
    p = torch.from_numpy(rng.dirichlet([0.3] * 8, 50))
    draw = draws.hybrid(p, torch.from_numpy(rng.integers(0, 2**32, (50, 4))), 3)
    top = p.topk(3, -1)
    assert torch.equal(draw.indices[:, :3], top.indices) and torch.equal(draw.weights[:, :3], top.values)
    assert not (draw.indices[:, 3:, None] == top.indices[:, None]).any()  # the others are of the tail


def test_numbers_of_samples_follow_the_entropy() -> None:
    p = torch.tensor([[0.25] * 4, [1, 0, 0, 0], [0.5, 0.5, 0, 0], [0.97, 0.01, 0.01, 0.01]])
    assert draws.entropy_counts(p, 32)[:3, 0].tolist() == [32, 2, 32]
    assert draws.entropy_counts(p, 32)[3, 0].item() == 4  # of entropy 0.121 of log 4


def test_numbers_of_samples_follow_the_spread_of_a_pilot() -> None:
    values = torch.tensor(
        [[[1.0, 2], [1, 2], [1, 2]], [[3, 0], [-3, 0], [0, 0]], [[5, 0], [4, 0], [3, 0]], [[0, 0]] * 3]
    )
    # Of the third row s² = 1 and m = 50 / 3: 32 · 0.06 samples are 2.
    assert draws.pilot_counts(values, 32)[..., 0].tolist() == [2, 32, 2, 2]
    assert draws.pilot_counts(values, 100)[2].item() == 6
    assert draws.pilot_counts(torch.tensor([[[torch.nan], [1.0]]]), 8).item() == 8


def test_a_number_of_samples_from_a_pilot_is_unbiased_and_one_from_the_samples_is_not() -> None:
    """By enumeration of the words of the pilot and of the draw; taken from the draw's own samples there is a bias."""
    v = torch.tensor([4.0, 9, 0, 1, 9], dtype=torch.float64)[:, None]
    words = every_word(2)
    rows = P.expand(len(words), -1)
    counts = draws.pilot_counts(v[draws.naive(rows, words).indices], 4)
    assert len(counts.unique()) > 1
    drawn = every_word(4)
    for count in counts.unique():
        draw = draws.stratified(P.expand(len(drawn), -1), drawn, count.expand(len(drawn), 1))
        torch.testing.assert_close(dense_weights(*draw[:2], len(P)).mean(0), P, rtol=0, atol=1e-12)
    own = draws.naive(P.expand(len(drawn), -1), drawn)
    chosen = draws.pilot_counts(v[own.indices[:, :2]], 4)
    kept = torch.arange(4) < chosen
    biased = dense_weights(own.indices, kept / chosen.double(), len(P)).mean(0)
    assert (biased - P).abs().max() > 0.01


def test_stopping_by_the_samples_themselves_is_biased() -> None:
    """To draw a third sample where the first two differ, and report the mean of all: 0.272 for a mean of 0.3."""
    p = {0.0: 0.7, 1.0: 0.3}
    mean = 0.0
    for first, second, third in product(p, repeat=3):
        values = [first, second] + [third] * (first != second)
        mean += p[first] * p[second] * p[third] * sum(values) / len(values)
    assert mean == pytest.approx(0.272)
