"""The laws of estimating attention's mean from drawn keys: unbiased means and gradients, and variances."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from qiskit_qattn.nn import draws
from qiskit_qattn.nn.draws import Draw
from qiskit_qattn.nn.estimates import estimate, estimated_variance, exact_variance

GRID = 8
P = torch.tensor([1, 0, 3, 4, 0], dtype=torch.float64) / 8  # the tail of the likeliest is in quarters
Way = Callable[[Tensor, Tensor], Draw]
WAYS: dict[str, Way] = {
    "naive": draws.naive,
    "stratified": draws.stratified,
    "systematic": draws.systematic,
    "hybrid": lambda p, words: draws.hybrid(p, words[..., 1:], 1),
    "adaptive": lambda p, words: draws.stratified(p, words, torch.full_like(words[..., :1], 2)),
}
every_way = pytest.mark.parametrize("name", WAYS)


def every_word(samples: int) -> Tensor:
    """Return all outcomes of the words of S samples, equally probable, shape ``(1, 1, GRID**S, S)``."""
    grid = (torch.arange(GRID) * 2 + 1) * (2**32 // (2 * GRID))
    return torch.stack([torch.stack(each) for each in product(grid, repeat=samples)])[None, None]


def every_draw(name: str, samples: int, p: Tensor = P) -> tuple[Tensor, Draw]:
    """Return the weights of attention for each outcome, and its draw."""
    words = every_word(samples)
    rows = p.expand(1, 1, words.shape[2], -1)
    return rows, WAYS[name](rows, words)


@pytest.fixture
def v(rng: np.random.Generator) -> Tensor:
    """Return values of five keys."""
    return torch.from_numpy(rng.normal(size=(1, 1, 5, 3)))


@every_way
@pytest.mark.parametrize("control", [None, 2])
def test_the_mean_of_all_outcomes_is_attention(name: str, control: int | None, v: Tensor) -> None:
    p = torch.tensor([1, 1, 2, 4, 0], dtype=torch.float64) / 8 if control else P
    rows, draw = every_draw(name, 3, p)
    found = estimate(rows, v, draw, control=control)
    torch.testing.assert_close(found.mean(2), (p @ v[0, 0])[None, None], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["naive", "stratified", "hybrid"])
@pytest.mark.parametrize("samples", [2, 4])  # boundaries of the strata are on the grid
def test_variances_are_those_of_the_laws(name: str, samples: int, v: Tensor) -> None:
    rows, draw = every_draw(name, samples)
    errors = (estimate(rows, v, draw) - rows @ v).square().sum(-1)  # (1, 1, outcomes)
    law = exact_variance(rows[:, :, :1], v, name, samples, 1)  # type: ignore[arg-type]
    torch.testing.assert_close(errors.mean(-1), law[..., 0], rtol=0, atol=1e-12)


def test_variance_of_independent_samples_falls_as_one_over_their_number(v: Tensor) -> None:
    errors = []
    for samples in (1, 2, 3, 4):
        rows, draw = every_draw("naive", samples)
        errors.append(samples * float((estimate(rows, v, draw) - rows @ v).square().sum(-1).mean()))
    assert errors == pytest.approx(errors[:1] * 4)


def test_strata_are_never_worse_than_independent_samples(rng: np.random.Generator) -> None:
    for _ in range(50):
        p = torch.from_numpy(rng.dirichlet([0.5] * 7))[None, None, None]
        v = torch.from_numpy(rng.normal(size=(1, 1, 7, 2)))
        for samples in (2, 5):
            strata, naive = (exact_variance(p, v, way, samples) for way in ("stratified", "naive"))  # type: ignore[arg-type]
            assert float(strata) <= float(naive) + 1e-12


def test_systematic_can_be_worse_than_independent_samples() -> None:
    """Values that alternate with the period of the points: all samples are equal, as if one were drawn."""
    p, v = torch.full((1, 1, 16, 16), 1 / 16), torch.tensor([1.0, -1.0]).repeat(8).view(1, 1, 16, 1)
    offsets = (torch.arange(16) * 2 + 1) * 2**27
    words = offsets.view(1, 1, 16, 1).expand(-1, -1, -1, 8)
    assert float(estimate(p, v, draws.systematic(p, words)).square().mean()) == 1
    assert float(exact_variance(p, v, "naive", 8)[0, 0, 0]) == 0.125
    # In the order of their values the same keys have a variance of 0.
    assert not estimate(p, v.sort(2).values, draws.systematic(p, words)).any()


@pytest.mark.parametrize("name", ["naive", "hybrid"])
def test_the_estimated_variance_is_unbiased(name: str, v: Tensor) -> None:
    rows, draw = every_draw(name, 3)
    law = exact_variance(rows[:, :, :1], v, name, 3, 1)  # type: ignore[arg-type]
    torch.testing.assert_close(estimated_variance(draw, v).mean(-1), law[..., 0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("samples", [2, 3, 4])
def test_the_estimated_variance_of_strata_is_not_too_small(samples: int, v: Tensor) -> None:
    rows, draw = every_draw("stratified", samples)
    error = (estimate(rows, v, draw) - rows @ v).square().sum(-1).mean()
    told, naive = estimated_variance(draw, v).mean(), estimated_variance(draw._replace(strata=False), v).mean()
    assert error <= told
    if samples % 2 == 0:
        assert told <= naive + 1e-12


def test_one_sample_tells_no_variance(v: Tensor) -> None:
    _, draw = every_draw("naive", 1)
    assert estimated_variance(draw, v).isnan().all()


@every_way
@pytest.mark.parametrize("baseline", [False, True])
def test_the_score_functions_gradient_is_unbiased(name: str, baseline: bool, v: Tensor) -> None:
    """Of any linear function of the mean, for any baseline that does not depend on the draw."""
    logits = P.log().requires_grad_()
    words, upstream = every_word(3), torch.tensor([0.3, -1.2, 0.7], dtype=torch.float64)
    rows = logits.softmax(-1).expand(1, 1, words.shape[2], -1)
    b = torch.tensor([5.0, -3.0, 2.0], dtype=torch.float64).expand(*rows.shape[:3], 3) if baseline else None
    found = estimate(rows, v, WAYS[name](rows, words), baseline=b)
    (got,) = torch.autograd.grad((found * upstream).sum(-1).mean(), logits)
    (expected,) = torch.autograd.grad(logits.softmax(-1) @ v[0, 0] @ upstream, logits)
    torch.testing.assert_close(got.nan_to_num(), expected.nan_to_num(), rtol=0, atol=1e-12)
    assert found.detach().allclose(estimate(rows.detach(), v, WAYS[name](rows, words)))  # the value stays


def test_a_baseline_makes_the_gradient_less_noisy(v: Tensor) -> None:
    v, words = v + 10, every_word(2)
    noise = []
    for baseline in (None, (P @ v[0, 0]).expand(1, 1, words.shape[2], 3)):
        logits = P.log().expand(1, 1, words.shape[2], -1).clone().requires_grad_()
        rows = logits.softmax(-1)
        (got,) = torch.autograd.grad(estimate(rows, v, draws.naive(rows, words), baseline=baseline).sum(), logits)
        noise.append(float(got.nan_to_num().var(2).sum()))
    assert noise[1] < 0.1 * noise[0]


@every_way
@pytest.mark.parametrize("control", [None, 2])
def test_the_exact_gradient_is_that_of_attention(name: str, control: int | None, v: Tensor) -> None:
    logits = torch.randn(1, 1, 4, 5, dtype=torch.float64, requires_grad=True)
    words = torch.randint(2**32, (1, 1, 4, 6))
    p, upstream = logits.softmax(-1), torch.randn(1, 1, 4, 3, dtype=torch.float64)
    found = estimate(p, v, WAYS[name](p, words), gradient="exact", control=control)
    (got,) = torch.autograd.grad((found * upstream).sum(), logits, retain_graph=True)
    (expected,) = torch.autograd.grad((p @ v * upstream).sum(), logits)
    torch.testing.assert_close(got, expected)
    plain = estimate(p.detach(), v, WAYS[name](p, words), control=control)
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-14)


@pytest.mark.parametrize("gradient", ["score", "exact"])
def test_without_a_gradient_only_drawn_values_are_read(gradient: str, v: Tensor) -> None:
    """A value of NaN shows where it is read."""
    p, words = torch.full((1, 1, 1, 5), 0.2, dtype=torch.float64), torch.zeros(1, 1, 1, 2, dtype=torch.long)
    draw = draws.naive(p, words)  # the first key, twice
    v[:, :, 1:] = torch.nan
    found = estimate(p, v, draw, gradient=gradient, gather=True)  # type: ignore[arg-type]
    torch.testing.assert_close(found[0, 0], v[0, 0, :1])


@pytest.mark.parametrize("gradient", ["score", "exact"])
@pytest.mark.parametrize("control", [None, 2])
def test_gradients_are_those_of_differences(gradient: str, control: int | None, v: Tensor) -> None:
    """Where all keys are exact ones the estimate is a smooth function of logits and values."""
    logits, words = torch.randn(1, 1, 3, 5, dtype=torch.float64, requires_grad=True), torch.zeros(1, 1, 3, 2)

    def mean(logits: Tensor, v: Tensor) -> Tensor:
        p = logits.softmax(-1)
        return estimate(p, v, draws.hybrid(p, words.long(), 5), gradient=gradient, control=control)  # type: ignore[arg-type]

    assert torch.autograd.gradcheck(mean, (logits, v.requires_grad_()))


@every_way
def test_values_have_the_gradient_of_the_drawn_weights(name: str, v: Tensor) -> None:
    p, words = torch.randn(1, 1, 4, 5, dtype=torch.float64).softmax(-1), torch.randint(2**32, (1, 1, 4, 6))
    draw = WAYS[name](p, words)
    for gather in (False, True):
        assert torch.autograd.gradcheck(
            lambda v, gather=gather: estimate(p, v, draw, gather=gather), v.requires_grad_()
        )


@every_way
@pytest.mark.parametrize("control", [None, 2])
def test_reading_the_drawn_values_alone_changes_nothing(name: str, control: int | None) -> None:
    logits = torch.randn(2, 3, 4, 7, dtype=torch.float64, requires_grad=True)
    v = torch.randn(2, 3, 7, 5, dtype=torch.float64, requires_grad=True)
    p, b = logits.softmax(-1), torch.randn(2, 3, 4, 5, dtype=torch.float64)
    draw = WAYS[name](p, torch.randint(2**32, (2, 3, 4, 6)))
    found = [estimate(p, v, draw, baseline=b, control=control, gather=gather) for gather in (False, True)]
    torch.testing.assert_close(found[0], found[1])
    for first, second in zip(
        *(torch.autograd.grad(y.sin().sum(), (logits, v), retain_graph=True) for y in found), strict=True
    ):
        torch.testing.assert_close(first, second)


def test_block_means_take_the_variance_between_blocks_away() -> None:
    """Values that are equal within each block are known exactly; blocks that the row sees in part do not count."""
    p = torch.tensor([1, 3, 4, 4, 2, 2], dtype=torch.float64) / 16
    v = torch.tensor([1.0, 1, 5, 5, -2, -2], dtype=torch.float64).view(1, 1, 6, 1)
    rows, draw = every_draw("naive", 2, p)
    assert float((estimate(rows, v, draw) - rows @ v).square().mean()) > 1
    torch.testing.assert_close(estimate(rows, v, draw, control=2), rows @ v)
    assert float(estimated_variance(draw, v, 2, rows).abs().max()) < 1e-24
    masked = torch.tensor([1, 3, 8, 4, 0, 0], dtype=torch.float64) / 16
    unseen = v.clone()
    unseen[0, 0, 4:] = 1e9
    rows, draw = every_draw("naive", 2, masked)
    assert torch.equal(estimate(rows, v, draw, control=4), estimate(rows, unseen, draw, control=4))


def test_a_coefficient_fitted_to_the_same_draw_is_biased() -> None:
    """Two samples of g = 0, 1, 3 with v = g²: fitted to them the mean 2.5 comes out as 1.75; any fixed one is right.

    With two samples the fit goes through both, so that the estimate is the line through them at the mean of g.
    """
    p = torch.tensor([4, 2, 2], dtype=torch.float64) / 8
    g = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64)
    v, mean = g**2, (p @ g)
    _, draw = every_draw("naive", 2, p)
    gs, vs = g[draw.indices], v[draw.indices]  # (1, 1, outcomes, 2)
    fixed = vs.mean(-1) - 2.5 * (gs.mean(-1) - mean)
    assert float(fixed.mean()) == pytest.approx(float(p @ v))
    differ = gs[..., 0] != gs[..., 1]
    slope = torch.where(differ, (vs[..., 0] - vs[..., 1]) / (gs[..., 0] - gs[..., 1]).where(differ, 1.0), 0.0)
    fitted = vs.mean(-1) - slope * (gs.mean(-1) - mean)
    assert float(p @ v) == 2.5
    assert float(fitted.mean()) == pytest.approx(1.75)


@every_way
def test_blocks_longer_than_the_row_control_nothing(name: str, v: Tensor) -> None:
    """They are not filled up with zeros, which would take memory for each row."""
    rows, draw = every_draw(name, 2)
    assert torch.equal(estimate(rows, v, draw, control=2**31 - 1), estimate(rows, v, draw))
    torch.testing.assert_close(
        estimated_variance(draw, v, 2**31 - 1, rows), estimated_variance(draw, v), rtol=0, atol=0, equal_nan=True
    )
