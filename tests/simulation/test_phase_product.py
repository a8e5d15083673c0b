"""One pass forward and backward equals the product written out, with all its derivatives."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from qiskit.circuit import ParameterVector

from qiskit_qattn.simulation.angles import AngleMap
from qiskit_qattn.simulation.elementary import Rotation
from qiskit_qattn.simulation.phase_product import phase_product
from qiskit_qattn.simulation.products import side_by_side
from qiskit_qattn.simulation.program import LocalStep
from qiskit_qattn.simulation.trigonometric import TrigonometricMatrix

X = list(ParameterVector("x", 2))
ANGLES = {
    "plain": X,
    "affine": [X[0] - 0.5 * X[1] + 0.3, X[1], X[0] + X[1]],
    "products": [X[0] * X[1], X[0].sin() + X[1]],
}


def draw(rng, *shape):
    return torch.from_numpy(rng.normal(size=shape)).requires_grad_()


@pytest.mark.parametrize("parts", [1, 2], ids=["real", "complex"])
@pytest.mark.parametrize("heads", [(), (3,)], ids=str)
@pytest.mark.parametrize("angles", ANGLES)
def test_values_and_two_derivatives(angles, heads, parts, rng):
    phases = AngleMap(ANGLES[angles], X).double()
    count = len(ANGLES[angles])
    data, matrix = draw(rng, 4, 2), draw(rng, *heads, 2 * count, 5 * parts)  # data without the heads' axis broadcast
    signs = torch.from_numpy(rng.normal(size=(5, 2)))
    turned = phases(data)
    amplitudes = torch.cat([turned.cos(), turned.sin()], -1) @ matrix
    expected = amplitudes.square().unflatten(-1, (parts, 5)).sum(-2) @ signs
    product = partial(phase_product, angles=phases, signs=signs)
    torch.testing.assert_close(product(data, source=matrix), expected, rtol=0, atol=1e-12)
    assert torch.autograd.gradcheck(lambda x, a: product(x, source=a), (data, matrix))
    assert torch.autograd.gradgradcheck(lambda x, a: product(x, source=a), (data, matrix))


@pytest.mark.parametrize("heads", [(), (2,)], ids=str)
def test_a_block_forms_the_matrix_on_the_way(heads, rng):
    weights = list(ParameterVector("w", 3))
    step = LocalStep(tuple((Rotation("Y", q, 2 * w), Rotation("X", q, w)) for q, w in enumerate(weights[:2])))
    start = rng.normal(size=(4, 6))
    block = TrigonometricMatrix([step], weights, start, np.eye(4), from_real=True, last=True, real=False).double()
    phases, data, theta = AngleMap(ANGLES["affine"], X).double(), draw(rng, 4, 2), draw(rng, *heads, 3)
    signs = torch.from_numpy(rng.normal(size=(4, 2)))
    product = partial(phase_product, angles=phases, signs=signs)
    torch.testing.assert_close(product(data, source=theta, block=block), product(data, source=block(theta)))
    assert torch.autograd.gradcheck(lambda x, w: product(x, source=w, block=block), (data, theta))
    assert torch.autograd.gradgradcheck(lambda x, w: product(x, source=w, block=block), (data, theta))


def test_only_what_is_wanted_gets_a_gradient(rng):
    phases, data, matrix = AngleMap(X, X).double(), draw(rng, 3, 2), draw(rng, 4, 2)
    signs = torch.ones(2, 1, dtype=torch.float64)
    phase_product(data.detach(), phases, matrix, signs).sum().backward()
    assert data.grad is None and matrix.grad is not None
    phase_product(data, phases, matrix.detach(), signs).sum().backward()
    assert data.grad is not None


def test_float32_data_get_float32_gradients(rng):
    phases, data, matrix = AngleMap(X, X), draw(rng, 3, 2).detach().float().requires_grad_(), draw(rng, 4, 2).float()
    values = phase_product(data, phases, matrix.detach(), torch.ones(2, 1))
    values.sum().backward()
    assert values.dtype == data.grad.dtype == torch.float32
    assert values.is_contiguous()


@pytest.mark.parametrize("heads", [(), (3,)], ids=str)
def test_real_and_imaginary_parts_apart(heads, rng):
    phases, data, matrix = AngleMap(ANGLES["affine"], X).double(), draw(rng, 4, 2), draw(rng, *heads, 6, 5)
    signs = torch.from_numpy(rng.normal(size=(5, 2)))
    apart = partial(phase_product, angles=phases, signs=signs, split=True)
    expected = phase_product(data, phases, side_by_side(matrix), signs)
    torch.testing.assert_close(apart(data, source=matrix), expected, rtol=0, atol=1e-12)
    assert torch.autograd.gradcheck(lambda x, a: apart(x, source=a), (data, matrix))
    assert torch.autograd.gradgradcheck(lambda x, a: apart(x, source=a), (data, matrix))
