"""Loops and torch's calls give the same values and the same gradients."""

from __future__ import annotations

import os
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from qiskit.circuit import ParameterVector

from qiskit_qattn.simulation import phase_product as phase_products
from qiskit_qattn.simulation.angles import AngleMap
from qiskit_qattn.simulation.cpu import phase_product as loops
from qiskit_qattn.simulation.elementary import Rotation
from qiskit_qattn.simulation.phase_product import PhaseProduct, loops_are_faster, phase_product
from qiskit_qattn.simulation.program import LocalStep
from qiskit_qattn.simulation.trigonometric import TrigonometricMatrix

X = list(ParameterVector("x", 2))
W = list(ParameterVector("w", 9))
ANGLES = {
    "plain": X,
    "affine": [X[0] - 0.5 * X[1] + 0.3, X[1], X[0] + X[1]],
    "products": [X[0] * X[1], X[0].sin() + X[1]],
}
close = partial(torch.testing.assert_close, rtol=0, atol=2e-5)


def draw(rng, *shape):
    return torch.from_numpy(rng.normal(size=shape).astype(np.float32)).requires_grad_()


def both_ways(monkeypatch, leaves, call):
    """Return values and gradients by loops, then by torch."""
    results = []
    for by_loops in (True, False):
        monkeypatch.setattr(phase_products, "loops_are_faster", lambda *arguments, answer=by_loops: answer)
        values = call()
        slope = torch.linspace(-1, 1, values.shape[-1]).expand_as(values)  # not contiguous
        results.append([values, *torch.autograd.grad(values, leaves, slope)])
    return results


@pytest.mark.parametrize("rows", [1, 255, 256, 600])
@pytest.mark.parametrize("parts", ["real", "complex", "split"])
@pytest.mark.parametrize("heads", [((), ()), ((), (3,)), ((2, 1), (1, 3)), ((3,), ())], ids=str)
@pytest.mark.parametrize("angles", ANGLES)
def test_matrices(angles, heads, parts, rows, rng, monkeypatch):
    phases, count = AngleMap(ANGLES[angles], X), len(ANGLES[angles])
    data = draw(rng, *heads[0], rows, 2)
    matrix = draw(rng, *heads[1], 2 * count, 10 if parts == "complex" else 5)
    signs = torch.from_numpy(rng.integers(-1, 2, size=(5, 3)).astype(np.float32))
    split = parts == "split"
    mine, torchs = both_ways(
        monkeypatch, [data, matrix], lambda: phase_product(data, phases, matrix, signs, split=split)
    )
    for a, b in zip(mine, torchs, strict=True):
        assert a.shape == b.shape and a.dtype == torch.float32
        close(a / b.abs().max(), b / b.abs().max())


@pytest.mark.parametrize("num_weights", [0, 1, 4, 9])
@pytest.mark.parametrize("heads", [(), (2,)], ids=str)
def test_blocks(heads, num_weights, rng, monkeypatch):
    weights = W[:num_weights]
    steps = [LocalStep(((Rotation("Y", 0, 2 * w), Rotation("X", 0, w)), (Rotation("Y", 1, w),))) for w in weights]
    start, end = rng.normal(size=(4, 6)), rng.normal(size=(5, 4))
    block = TrigonometricMatrix(steps, weights, start, end, from_real=True, last=True, real=False)
    phases, data, theta = AngleMap(ANGLES["affine"], X), draw(rng, 40, 2), draw(rng, *heads, num_weights)
    signs = torch.from_numpy(rng.normal(size=(5, 2)).astype(np.float32))
    mine, torchs = both_ways(monkeypatch, [data, theta], lambda: phase_product(data, phases, theta, signs, block))
    for a, b in zip(mine, torchs, strict=True):
        assert a.shape == b.shape
        scale = max(1.0, float(torch.linalg.vector_norm(b.detach())))
        close(a / scale, b / scale)


def test_scaled_signs_have_heads_of_their_own(rng, monkeypatch):
    phases, data, matrix = AngleMap(X, X), draw(rng, 3, 2), draw(rng, 4, 5)
    signs = torch.from_numpy(rng.normal(size=(2, 5, 3)).astype(np.float32))
    mine, torchs = both_ways(monkeypatch, [data, matrix], lambda: phase_product(data, phases, matrix, signs))
    assert mine[0].shape == (2, 3, 3)
    for a, b in zip(mine, torchs, strict=True):
        close(a, b)


def test_second_derivatives_go_through_torch(rng):
    phases, data, matrix = AngleMap(X, X), draw(rng, 3, 2), draw(rng, 4, 5)

    def slope(x, a):
        return torch.autograd.grad(phase_product(x, phases, a, torch.ones(5, 1)).sum(), x, create_graph=True)[0].sum()

    exact = AngleMap(X, X).double()
    x, a = data.detach().double().requires_grad_(), matrix.detach().double().requires_grad_()
    values = phase_product(x, exact, a, torch.ones(5, 1, dtype=torch.float64)).sum()
    expected = torch.autograd.grad(torch.autograd.grad(values, x, create_graph=True)[0].sum(), [x, a])
    for mine, right in zip(torch.autograd.grad(slope(data, matrix), [data, matrix]), expected, strict=True):
        torch.testing.assert_close(mine, right.float(), rtol=1e-4, atol=1e-4)


def test_a_second_backward_needs_the_graph_to_be_kept(rng):
    values = phase_product(draw(rng, 3, 2), AngleMap(X, X), draw(rng, 4, 5), torch.ones(5, 1)).sum()
    values.backward()
    with pytest.raises(RuntimeError, match="second time"):
        values.backward()


def test_no_rows(rng, monkeypatch):
    phases, data, matrix = AngleMap(X, X), draw(rng, 0, 2), draw(rng, 4, 5)
    mine, torchs = both_ways(monkeypatch, [data, matrix], lambda: phase_product(data, phases, matrix, torch.ones(5, 1)))
    for a, b in zip(mine, torchs, strict=True):
        close(a, b)


@pytest.mark.parametrize(
    ("rows", "heads", "width", "dtype", "faster"),
    [
        (1, 1, 5, torch.float32, True),
        (10**7, 1, 5, torch.float32, True),  # narrow rows
        (500, 1, 1000, torch.float32, True),  # little work
        (1000, 1, 1000, torch.float32, False),
        (500, 2, 1000, torch.float32, False),
        (1, 1, 5, torch.float64, False),
        (1, 1, 5, torch.bfloat16, False),
    ],
)
def test_where_loops_are_faster(rows, heads, width, dtype, faster):
    columns, matrix = torch.zeros(1, 2, dtype=dtype).expand(rows, 2), torch.zeros(1, 1, 1).expand(heads, 4, width)
    signs = torch.ones(5, 1, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    assert loops_are_faster(PhaseProduct(AngleMap(X, X), None, False), columns, matrix, signs) is faster


@pytest.mark.parametrize("heads", [(), (2,)], ids=str)
def test_shares_on_threads_of_their_own_change_nothing(heads, rng, monkeypatch):
    phases, data, matrix = AngleMap(ANGLES["affine"], X), draw(rng, *heads, 1001, 2), draw(rng, *heads, 6, 5)
    call = partial(phase_product, data, phases, matrix, torch.ones(5, 1), split=True)
    before, threads = both_ways(monkeypatch, [data, matrix], call)[0], torch.get_num_threads()
    monkeypatch.setattr(loops, "_SHARE", 100)
    try:
        torch.set_num_threads(3)
        assert len(loops._shares(1001, 15)) == 3
        after = both_ways(monkeypatch, [data, matrix], call)[0]
    finally:
        torch.set_num_threads(threads)
    for a, b in zip(after, before, strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-3)


def test_a_forked_process_has_threads_of_its_own(rng, monkeypatch):
    monkeypatch.setattr(loops, "_SHARE", 100)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    data, signs = draw(rng, 1001, 2).detach(), torch.ones(5, 1)
    matrix, phases = draw(rng, 4, 5).detach(), AngleMap(X, X)
    expected = phase_product(data, phases, matrix, signs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads, which is what is tried here
        child = os.fork()
    if child == 0:
        same = torch.equal(phase_product(data, phases, matrix, signs), expected)
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_tensors_that_only_behave_as_such_are_left_to_torch():
    class Other(torch.Tensor):
        pass

    columns = torch.zeros(1, 2).as_subclass(Other)
    assert not loops_are_faster(PhaseProduct(AngleMap(X, X), None, False), columns, torch.zeros(4, 5), torch.ones(5, 1))
