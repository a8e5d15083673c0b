"""Compiled expectation values are those of the formula, and vectors that do not hold are told."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from qiskit_qattn.simulation import compiled_amplitude, threads
from qiskit_qattn.simulation.compiled_amplitude import CompiledReadout

pytestmark = pytest.mark.skipif(not threads.are_available(), reason="loops run on torch's threads on Linux only")

# Heads, parts, outcomes, of the first basis, values, numbers of a vector.
SHAPES = [(1, 2, 24, 16, 16, 16), (3, 1, 4, 4, 5, 7), (2, 2, 9, 2, 1, 1), (4, 2, 8, 8, 3, 32)]


def readout_of(shape, bias=False):
    heads, parts, outcomes, basis, outputs, inputs = shape
    weights = torch.randn(parts, heads * outcomes, inputs)
    biases = torch.randn(parts, heads * outcomes) if bias else [None] * parts
    return list(zip(weights, biases, strict=True)), torch.randn(heads, outcomes, outputs), basis


def expected(x, parts, signs, basis):
    """Return the values in float64."""
    affine = [torch.nn.functional.linear(x.double(), w.double(), b if b is None else b.double()) for w, b in parts]
    squares = sum(part.square() for part in affine).unflatten(-1, signs.shape[:2])
    return torch.einsum("bhr,hrm->bhm", squares, signs.double()) / squares[..., :basis].sum(-1, keepdim=True)


@torch.no_grad()
@pytest.mark.parametrize("rows", [0, 1, 255, 512, 1001])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_are_those_of_the_formula(shape, bias, rows):
    readout, x = readout_of(shape, bias), torch.randn(rows, shape[-1])
    found, wanted = CompiledReadout.of(*readout)(x), expected(x, *readout)
    assert found.shape == (rows, shape[0], shape[4]) and found.dtype == torch.float32
    if rows:
        scale = 1 + wanted.abs().amax((1, 2), keepdim=True)
        torch.testing.assert_close(found / scale, wanted / scale, rtol=0, atol=2e-5, check_dtype=False)


@torch.no_grad()
@pytest.mark.parametrize("bad", [0.0, torch.nan, torch.inf, 1e-18, 1e16])
@pytest.mark.parametrize("row", [0, 299, 599])
def test_vectors_out_of_range_are_told(row, bad):
    readout, x = CompiledReadout.of(*readout_of(SHAPES[0])), torch.randn(600, 16)
    assert readout(x) is not None
    x[row] = bad
    assert readout(x) is None


@torch.no_grad()
def test_vectors_that_are_apart_in_memory():
    readout, x = readout_of(SHAPES[0]), torch.randn(16, 300).T
    torch.testing.assert_close(CompiledReadout.of(*readout)(x), expected(x, *readout).float(), rtol=0, atol=2e-5)


def test_what_needs_gradients_is_left_to_torch():
    assert CompiledReadout.of(*readout_of(SHAPES[0]))(torch.randn(5, 16, requires_grad=True)) is None


@torch.no_grad()
def test_what_loops_do_not_take():
    parts, signs, basis = readout_of(SHAPES[0])
    assert CompiledReadout.of(parts, signs, basis)(torch.randn(5, 16).double()) is None
    assert CompiledReadout.of([(weight.double(), None) for weight, _ in parts], signs.double(), basis) is None
    assert CompiledReadout.of([(weight.to("meta"), None) for weight, _ in parts], signs, basis) is None
    assert CompiledReadout.of(parts, signs.double(), basis) is None
    wide = 1, 2, 24, 16, 16, compiled_amplitude._NARROW + 1
    assert CompiledReadout.of(*readout_of(wide)) is None


@torch.no_grad()
def test_nothing_is_compiled_where_torch_has_no_such_threads(monkeypatch):
    monkeypatch.setattr(threads, "are_available", lambda: False)
    assert CompiledReadout.of(*readout_of(SHAPES[0])) is None


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 6, 1001])
@pytest.mark.parametrize("count", [2, 3, 7])
def test_any_number_of_threads_gives_the_same(count, rows):
    readout, x, before = readout_of(SHAPES[0]), torch.randn(rows, 16), torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        found = CompiledReadout.of(*readout)(x)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(found, expected(x, *readout).float(), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_vectors_of_another_width_are_left_to_torch():
    assert CompiledReadout.of(*readout_of(SHAPES[0]))(torch.randn(5, 17)) is None


@torch.no_grad()
def test_what_torch_watches_is_left_to_torch():
    readout, x = CompiledReadout.of(*readout_of(SHAPES[0])), torch.randn(5, 16)
    with torch.autograd.forward_ad.dual_level():
        assert readout(x) is None
    with FlopCounterMode(display=False):
        assert readout(x) is None
    assert readout(x) is not None
