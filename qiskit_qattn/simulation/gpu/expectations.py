r"""Expectations :math:`|f A|^{\odot 2} S` as an operator of torch, with Triton's kernels in both directions.

A custom operator: ``torch.compile`` records one call and runs the same kernels, CUDA graphs capture them, and Triton's
interpreter can run them on a CPU, which ``torch.library.triton_op`` does not allow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from qiskit_qattn.simulation.amplitude import unit_vectors
from qiskit_qattn.simulation.derivatives import partial_gradients, transforms
from qiskit_qattn.simulation.gpu import kernels
from qiskit_qattn.simulation.products import gradient_of, side_by_side, squared_product

LAUNCH = {"num_warps": 4, "num_stages": 1}  # compiled for sm_80 and sm_90, more of either spills registers
_ROWS, _COLUMNS = 64, 16  # of a tile
_PROGRAMS = 4  # per multiprocessor, for the gradient of A


@torch.library.custom_op("qiskit_qattn::expectations", mutates_args=())
def expectations(
    data: Tensor,
    matrix: Tensor,
    signs: Tensor,
    turns: Tensor | None,
    offset: Tensor | None,
    split: bool,
) -> Tensor:
    r"""Return :math:`|f A|^{\odot 2} S`, shape ``(..., B, M)``, in float32.

    Features f are the unit vectors :math:`x / \lVert x \rVert`, the first one for x = 0, or with ``turns`` the cosines
    and sines of phases :math:`x C + b`. NaN and infinity give NaN.

    Args:
        data: x, shape ``(..., B, K)``, in any real dtype and with any strides.
        matrix: A, shape ``(..., F, R)``, or ``(..., F, 2 * R)`` with all real parts, then all imaginary.
        signs: S, shape ``(..., R, M)``, without gradients.
        turns: C, shape ``(K, F / 2)``, contiguous; without gradients.
        offset: b, shape ``(F / 2,)``, contiguous; without gradients.
        split: Whether cosines give real and sines imaginary parts, with A of shape ``(..., F, R)``.
    """
    call = _Call(data, matrix, signs, turns, offset, split)
    values = signs.new_empty(*call.lead, data.shape[-2], signs.shape[-1])
    if values.numel():
        call.run(kernels.values, (call.programs,), (_flat(values, call.lead),))
    return values


@torch.library.custom_op("qiskit_qattn::expectations_backward", mutates_args=())
def expectations_backward(
    grad: Tensor,
    data: Tensor,
    matrix: Tensor,
    signs: Tensor,
    turns: Tensor | None,
    offset: Tensor | None,
    split: bool,
    of_data: bool,
    of_matrix: bool,
) -> list[Tensor]:
    """Return those gradients of the data and of A that are wanted, with the leading axes of the values."""
    call, found = _Call(data, matrix, signs, turns, offset, split), []
    given = _flat(grad, call.lead)
    if of_data:
        gradient = _gradient_like(data, call.lead)
        if gradient.numel():
            call.run(kernels.of_data, (call.programs,), (given, _flat(gradient, call.lead)))
        found.append(gradient)
    if of_matrix:  # partial sums in a fixed order, so that results repeat
        share, shares = call.shares(_PROGRAMS * _multiprocessors(data.device))
        sums = matrix.new_empty(shares, *call.lead, *matrix.shape[-2:])
        if sums.numel():
            call.run(kernels.of_matrix, (call.heads * call.tiles, shares), (given, sums.flatten(0, -3)), share=share)
        found.append(sums.sum(0))
    return found


@expectations.register_fake
def _(
    data: Tensor,
    matrix: Tensor,
    signs: Tensor,
    turns: Tensor | None,
    offset: Tensor | None,
    split: bool,
) -> Tensor:
    return signs.new_empty(*_lead(data, matrix, signs), data.shape[-2], signs.shape[-1])


@expectations_backward.register_fake
def _(
    grad: Tensor,
    data: Tensor,
    matrix: Tensor,
    signs: Tensor,
    turns: Tensor | None,
    offset: Tensor | None,
    split: bool,
    of_data: bool,
    of_matrix: bool,
) -> list[Tensor]:
    lead = grad.shape[:-2]
    found = [_gradient_like(data, lead)] if of_data else []
    return [*found, matrix.new_empty(*lead, *matrix.shape[-2:])] if of_matrix else found


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.split = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    data, matrix, signs, turns, offset = ctx.saved_tensors
    needed = ctx.needs_input_grad[:2]
    if torch.is_grad_enabled() or transforms() or not torch._C._has_storage(grad):
        values = partial(in_torch, signs=signs, turns=turns, offset=offset, split=ctx.split)
        return *partial_gradients(values, (data, matrix), needed, grad), None, None, None, None
    found = iter(expectations_backward(grad, data, matrix, signs, turns, offset, ctx.split, *needed))
    of_data, of_matrix = (next(found) if need else None for need in needed)
    return gradient_of(data, of_data), gradient_of(matrix, of_matrix), None, None, None, None


expectations.register_autograd(_backward, setup_context=_save)


def in_torch(
    data: Tensor, matrix: Tensor, *, signs: Tensor, turns: Tensor | None, offset: Tensor | None, split: bool
) -> Tensor:
    """Return :func:`expectations` in torch's own operations: for second derivatives."""
    if turns is None:
        features = unit_vectors(data.to(signs.dtype))
    else:
        phases = data.to(turns.dtype) @ turns  # (..., B, U)
        phases = phases if offset is None else phases + offset
        features = torch.cat([torch.cos(phases), torch.sin(phases)], -1).to(signs.dtype)
    return squared_product(features, side_by_side(matrix) if split else matrix, signs)


class _Call:
    """The sizes and arguments that the kernels of one call share."""

    def __init__(
        self, data: Tensor, matrix: Tensor, signs: Tensor, turns: Tensor | None, offset: Tensor | None, split: bool
    ) -> None:
        self.lead = _lead(data, matrix, signs)
        self.heads, rows = math.prod(self.lead), data.shape[-2]
        phases = () if turns is None else (turns,) if offset is None else (turns, offset)
        self.sizes = _sizes(
            data.shape[-1], matrix.shape[-2:], signs.shape[-2:], min(rows, _ROWS), len(phases), split, data.device
        )
        self.rows, self.blocks = rows, math.ceil(rows / self.sizes["BB"])
        self.tiles = math.ceil(signs.shape[-2] / self.sizes["BR"])
        self.programs = self.blocks * self.heads
        self.tensors = [_flat(tensor, self.lead) for tensor in (data, matrix, signs)]
        self.phases = turns, offset

    def shares(self, programs: int) -> tuple[int, int]:
        """Return how many rows a program sums for the gradient of A, given how many there should be, and the shares."""
        share = self.sizes["BB"] * max(1, math.ceil(self.blocks * self.heads * self.tiles / programs))
        return share, math.ceil(self.rows / share)

    def run(self, kernel: Any, grid: tuple[int, ...], tensors: tuple[Tensor, ...], **options: int) -> None:
        """Start a kernel on the data's device."""
        strides = [tensor.stride() for tensor in (*self.tensors, *tensors)]
        with torch.cuda.device_of(self.tensors[0]):
            kernel[grid](*self.tensors, *self.phases, *tensors, self.rows, *strides, **options, **self.sizes, **LAUNCH)


@lru_cache(maxsize=256)
def _sizes(
    inputs: int, matrix: Sequence[int], signs: Sequence[int], rows: int, phases: int, split: bool, device: torch.device
) -> dict[str, Any]:
    """Return the constants for which a kernel is compiled; of the phases, C or C and b may be given."""
    return {
        "K": inputs,
        "F": matrix[0],
        "R": signs[0],
        "M": signs[1],
        "PHASES": phases > 0,
        "SHIFTED": phases > 1,
        "PARTS": "split" if split else "real" if matrix[1] == signs[0] else "complex",
        "PRECISION": _precision(device),
        **tile(matrix[0], signs[1], rows),
    }


def tile(features: int, outputs: int, rows: int) -> dict[str, int]:
    """Return how many rows, features, columns of A and outputs a program holds; products take at least 16 of each."""
    least = {"BB": min(rows, _ROWS), "BF": features, "BR": _COLUMNS, "BM": outputs}
    return {name: max(16, 1 << (size - 1).bit_length()) for name, size in least.items()}


def _lead(data: Tensor, matrix: Tensor, signs: Tensor) -> tuple[int, ...]:
    """Return the leading axes of the values."""
    if signs.ndim == 2 and data.shape[:-2] == matrix.shape[:-2]:  # the function takes 10 µs
        return tuple(data.shape[:-2])
    return tuple(torch.broadcast_shapes(data.shape[:-2], matrix.shape[:-2], signs.shape[:-2]))


def _flat(tensor: Tensor, lead: tuple[int, ...]) -> Tensor:
    """Return a tensor with one leading axis, a view wherever its strides allow one."""
    if tensor.shape[:-2] != lead:
        tensor = tensor.expand(*lead, -1, -1)
    return tensor if len(lead) == 1 else tensor.reshape(math.prod(lead), *tensor.shape[-2:])


def _gradient_like(data: Tensor, lead: Sequence[int]) -> Tensor:
    """Return memory for a gradient of the data, in the data's own order of axes where these are three at most."""
    if len(lead) < 2 and data.shape[:-2] == lead:
        return torch.empty_like(data)
    return data.new_empty(*lead, *data.shape[-2:])


@cache
def _precision(device: torch.device) -> str:
    """Return how products of float32 are computed: as three of TF32 where a GPU has it, which err as little."""
    if device.type != "cuda" or torch.version.hip or torch.cuda.get_device_capability(device) < (8, 0):
        return "ieee"
    return "tf32x3"


@cache
def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
