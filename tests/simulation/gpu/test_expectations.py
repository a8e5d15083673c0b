"""Kernels give the values and gradients of torch's operations in float64, to the rounding of float32."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

PARTS = ["complex", "real", "split"]


class Case:
    """Data, A, S and phases of one call, with names of the options as in the operator."""

    def __init__(self, rng, device, *, encoding, parts, rows=37, inputs=4, outcomes=9, outputs=3, heads=()):
        def draw(*shape):
            return torch.from_numpy(rng.normal(size=shape)).to(device)

        self.phases = encoding == "phases"
        phases = 5 if self.phases else 0
        features = 2 * phases if self.phases else inputs
        self.data = draw(*heads, rows, inputs).float()
        matrix = draw(*heads, features, 2 * outcomes if parts == "complex" else outcomes)
        self.matrix = (matrix / math.sqrt(features)).float()
        self.signs = draw(outcomes, outputs).float() / outcomes
        self.turns = draw(inputs, phases) if self.phases else None
        self.offset = draw(phases) if self.phases else None
        self.split = parts == "split"

    @property
    def rest(self):
        return self.signs, self.turns, self.offset, self.split

    def exact(self, data, matrix):
        """Return the values in float64, written out."""
        data, matrix = data.double(), matrix.double()
        if self.phases:
            phases = data @ self.turns + (0 if self.offset is None else self.offset)
            features = torch.cat([phases.cos(), phases.sin()], -1)
        else:
            features = data / data.norm(dim=-1, keepdim=True)
        if self.split:
            (a, b), (real, imaginary) = features.chunk(2, -1), matrix.chunk(2, -2)
            amplitudes = torch.cat([a @ real, b @ imaginary], -1)
        else:
            amplitudes = features @ matrix
        return amplitudes.square().unflatten(-1, (-1, len(self.signs))).sum(-2) @ self.signs.double()


def call(case, data=None, matrix=None):
    from qiskit_qattn.simulation.gpu.expectations import expectations

    return expectations(case.data if data is None else data, case.matrix if matrix is None else matrix, *case.rest)


def leaves(*tensors):
    return [tensor.detach().requires_grad_() for tensor in tensors]


def assert_near(found, expected, tolerance=1e-6):
    """Compare to a part of the largest entry, as rounding of sums is."""
    scale = max(1.0, float(expected.detach().abs().max())) if expected.numel() else 1.0
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance * scale)


CASES = [("vectors", "complex"), ("vectors", "real"), *(("phases", parts) for parts in PARTS)]


@pytest.mark.parametrize("heads", [(), (2,), (2, 1)], ids=str)
@pytest.mark.parametrize(("encoding", "parts"), CASES)
def test_values_and_gradients(encoding, parts, heads, device, rng):
    case = Case(rng, device, encoding=encoding, parts=parts, heads=heads)
    data, matrix = leaves(case.data, case.matrix)
    values = call(case, data, matrix)
    exact_data, exact_matrix = leaves(case.data.double(), case.matrix.double())
    expected = case.exact(exact_data, exact_matrix)
    assert values.dtype == torch.float32 and values.is_contiguous()
    assert_near(values, expected)
    grad = torch.from_numpy(rng.normal(size=values.shape)).to(device)
    found = torch.autograd.grad(values, (data, matrix), grad.float())
    for mine, exact in zip(found, torch.autograd.grad(expected, (exact_data, exact_matrix), grad), strict=True):
        assert_near(mine, exact)


@pytest.mark.parametrize("encoding", ["vectors", "phases"])
def test_several_tiles_of_each_axis(encoding, device, rng):
    inputs = 64 if encoding == "vectors" else 3
    case = Case(rng, device, encoding=encoding, parts="complex", rows=300, inputs=inputs, outcomes=70, outputs=20)
    data, matrix = leaves(case.data, case.matrix)
    exact_data, exact_matrix = leaves(case.data.double(), case.matrix.double())
    values, expected = call(case, data, matrix), case.exact(exact_data, exact_matrix)
    assert_near(values, expected)
    found = torch.autograd.grad(values.sum(), (data, matrix))
    for mine, exact in zip(found, torch.autograd.grad(expected.sum(), (exact_data, exact_matrix)), strict=True):
        assert_near(mine, exact)
    again = torch.autograd.grad(call(case, data, matrix).sum(), (data, matrix))
    assert all(map(torch.equal, found, again))  # sums have a fixed order


@pytest.mark.parametrize("encoding", ["vectors", "phases"])
def test_gradients_are_slopes_of_the_values(encoding, device, rng):
    case = Case(rng, device, encoding=encoding, parts="complex")
    step = 1e-2
    for at, tensor in enumerate((case.data, case.matrix)):
        direction = torch.from_numpy(rng.normal(size=tensor.shape)).to(tensor)
        pair = leaves(case.data, case.matrix)
        slope = (torch.autograd.grad(call(case, *pair).sum(), pair[at])[0] * direction).sum()
        ends = []
        for sign in (1, -1):
            moved = [case.data, case.matrix]
            moved[at] = tensor + sign * step * direction
            ends.append(float(call(case, *moved).double().sum()))
        assert float(slope) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=2e-2, abs=2e-3)


@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize("encoding", ["vectors", "phases"])
def test_batches_of_none_and_one(encoding, rows, device, rng):
    case = Case(rng, device, encoding=encoding, parts="complex", rows=rows, heads=(2,))
    data, matrix = leaves(case.data, case.matrix)
    values = call(case, data, matrix)
    assert_near(values, case.exact(case.data, case.matrix))
    of_data, of_matrix = torch.autograd.grad(values.sum(), (data, matrix))
    assert of_data.shape == data.shape
    assert bool(of_matrix.any()) == (rows > 0)


def test_strides_are_taken_as_they_come(device, rng):
    case = Case(rng, device, encoding="vectors", parts="complex", rows=5, inputs=8, heads=(3,))
    wide = torch.zeros(5, 3, 16, device=device)
    wide[..., ::2] = case.data.transpose(0, 1)
    views = [wide[..., ::2].transpose(0, 1), case.data.transpose(0, 1).contiguous().transpose(0, 1)]
    transposed = case.matrix.mT.contiguous().mT
    for view in views:
        torch.testing.assert_close(call(case, view, transposed), call(case), rtol=0, atol=0)
    (data,) = leaves(views[1])
    values = call(case, data)
    (found,) = torch.autograd.grad(values.sum(), data)  # of a gradient whose strides are all zero
    assert found.stride() == data.stride()
    (expected,) = torch.autograd.grad(call(case, data), data, torch.ones_like(values))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_axes_that_cannot_be_merged(device, rng):
    case = Case(rng, device, encoding="vectors", parts="complex", rows=5, heads=(2, 3))
    (data,) = leaves(case.data.transpose(0, 2).contiguous().transpose(0, 2))
    (exact,) = leaves(data.double())
    (found,) = torch.autograd.grad(call(case, data).sum(), data)
    assert_near(found, torch.autograd.grad(case.exact(exact, case.matrix).sum(), exact)[0])


@pytest.mark.parametrize(("data_heads", "matrix_heads"), [((), (2,)), ((2,), ()), ((2, 1), (3,))], ids=str)
def test_leading_axes_broadcast(data_heads, matrix_heads, device, rng):
    case = Case(rng, device, encoding="vectors", parts="complex", rows=4, heads=matrix_heads)
    data, matrix = leaves(torch.from_numpy(rng.normal(size=(*data_heads, 4, 4))).float().to(device), case.matrix)
    exact_data, exact_matrix = leaves(data.double(), matrix.double())
    values, expected = call(case, data, matrix), case.exact(exact_data, exact_matrix)
    assert_near(values, expected)
    found = torch.autograd.grad(values.sum(), (data, matrix))
    for mine, exact in zip(found, torch.autograd.grad(expected.sum(), (exact_data, exact_matrix)), strict=True):
        assert_near(mine, exact)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("encoding", ["vectors", "phases"])
def test_data_of_other_dtypes_are_computed_in_float32(encoding, dtype, device, rng):
    case = Case(rng, device, encoding=encoding, parts="complex")
    (data,) = leaves(case.data.to(dtype))
    values = call(case, data)
    assert values.dtype == torch.float32
    assert_near(values, case.exact(data, case.matrix))
    (found,) = torch.autograd.grad(values.sum(), data)
    (exact,) = leaves(data.double())
    (expected,) = torch.autograd.grad(case.exact(exact, case.matrix).sum(), exact)
    assert found.dtype == dtype
    assert_near(found, expected, max(1e-6, torch.finfo(dtype).eps))


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")  # numpy's, in the interpreter
def test_zero_and_extreme_vectors(device, rng):
    case = Case(rng, device, encoding="vectors", parts="complex", rows=6, inputs=8)
    sizes = torch.tensor([1.0, 0.0, 1e-30, 1e30, 1e-44, 3e38], device=device)[:, None]
    unit = case.data / case.data.abs().amax(-1, keepdim=True)
    (data,) = leaves(unit * sizes)
    values = call(case, data)
    expected = case.exact(unit, case.matrix)
    first = torch.eye(1, 8, device=device)
    expected[1] = case.exact(first, case.matrix)[0]
    expected[4] = case.exact(data.detach()[4:5], case.matrix)[0]  # few bits are left of so small a vector
    assert_near(values, expected)
    torch.testing.assert_close(values[:1], call(case, data.detach()[:1]), rtol=0, atol=0)  # rows are independent
    (found,) = torch.autograd.grad(values[:4].sum(), data)
    (exact,) = leaves(unit[:4].double())
    (slopes,) = torch.autograd.grad(case.exact(exact, case.matrix).sum(), exact)
    slopes[1] = 0
    assert_near(found[:4].double() * torch.where(sizes[:4] == 0, 1.0, sizes[:4]).double(), slopes)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, in the interpreter
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("encoding", ["vectors", "phases"])
def test_nan_and_infinity_give_nan_in_their_row_alone(encoding, bad, device, rng):
    case = Case(rng, device, encoding=encoding, parts="complex", rows=3)
    expected = call(case)
    case.data[1, 2] = bad
    values = call(case)
    assert values[1].isnan().all()
    torch.testing.assert_close(values[::2], expected[::2], rtol=0, atol=0)


def test_large_angles_lose_nothing(device, rng):
    case = Case(rng, device, encoding="phases", parts="complex")
    case.data = (case.data * 1000).round(decimals=3)
    assert_near(call(case), case.exact(case.data, case.matrix))


@pytest.mark.parametrize("encoding", ["vectors", "phases"])
def test_second_derivatives(encoding, device, rng):
    case = Case(rng, device, encoding=encoding, parts="complex", rows=3)
    found = []
    for compute, data, matrix in (
        (lambda *pair: call(case, *pair), case.data, case.matrix),
        (case.exact, case.data.double(), case.matrix.double()),
    ):
        pair = leaves(data, matrix)
        first = torch.autograd.grad(compute(*pair).square().sum(), pair, create_graph=True)
        found.append(torch.autograd.grad(sum(each.square().sum() for each in first), pair))
    for mine, exact in zip(*found, strict=True):
        assert_near(mine, exact, 1e-5)


@pytest.mark.parametrize("encoding", ["vectors", "phases"])
def test_the_operators_keep_torchs_rules(encoding, device, rng):
    from qiskit_qattn.simulation.gpu.expectations import expectations, expectations_backward

    case = Case(rng, device, encoding=encoding, parts="complex", rows=5, heads=(2,))
    data, matrix = leaves(case.data.transpose(0, 1).contiguous().transpose(0, 1), case.matrix)
    torch.library.opcheck(expectations, (data, matrix, *case.rest))
    grad = torch.ones(2, 5, 3, device=device)
    arguments = (grad, data.detach(), matrix.detach(), *case.rest)
    for wanted in ((True, True), (False, True), (True, False)):
        torch.library.opcheck(expectations_backward, (*arguments, *wanted))


def test_all_derivatives_by_a_batch_of_gradients(device, rng):
    case = Case(rng, device, encoding="vectors", parts="complex", rows=2)
    jacobian = torch.autograd.functional.jacobian(lambda x: call(case, x), case.data, vectorize=True)
    expected = torch.autograd.functional.jacobian(lambda x: case.exact(x, case.matrix), case.data.double())
    assert_near(jacobian, expected)
    assert np.isfinite(jacobian.numpy(force=True)).all()
