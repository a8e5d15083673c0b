"""Inference: what is linear before a circuit's measurement becomes part of the attention's input projection."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qiskit_qattn.nn.heads import FusedHead
from qiskit_qattn.simulation.amplitude import LARGEST, SMALLEST, within_range
from qiskit_qattn.simulation.compiled_amplitude import CompiledReadout
from qiskit_qattn.simulation.compiled_readout import read_out
from qiskit_qattn.simulation.derivatives import torch_must_see
from qiskit_qattn.simulation.jit import shares_memory

FEW_ROWS = 64  # up to here a CPU takes one compiled loop: torch's calls cost more than the work in them
Affine = list[tuple[Tensor, Tensor | None]]  # weights and biases
Projected = tuple[Tensor, Tensor]  # queries and keys (B, T, ·), and the values of all heads (B, T, H, h)


@dataclass(frozen=True)
class Readout:
    """From the amplitudes of one quantum kind's heads to their values.

    Attributes:
        signs: S times gains, shape ``(H, R, M)``.
        basis: How many of the R outcomes are of the first basis: their squares sum to the squared norm of the vector.
    """

    signs: Tensor
    basis: int

    def side_by_side(self) -> tuple[Tensor, Tensor]:
        """Return what takes the squares of all heads to values, ``(H * R, H * M)``, and to norms, ``(H * R, H)``."""
        first = self.signs.new_zeros(self.signs.shape[1], 1)
        first[: self.basis] = 1
        if len(self.signs) == 1:
            return self.signs[0], first
        return torch.block_diag(*self.signs), torch.block_diag(*[first] * len(self.signs))


class FoldedPass:
    """A pass through layers of which each is folded, whose norms are looked at once, at its end.

    Attributes:
        norms: The squared norms of what each layer encoded, where that layer did not look by itself. Values are worth
            nothing where one of those is not within range, but are returned all the same.
    """

    def __init__(self) -> None:
        self.norms: list[Tensor] = []

    def holds(self) -> bool:
        """Tell whether all values of the pass do."""
        return not self.norms or within_range(torch.cat([norms.flatten() for norms in self.norms]))


Values = Callable[[Tensor, FoldedPass | None], Tensor | None]


@dataclass(frozen=True)
class FoldedProjection:
    r"""One linear map from tokens to queries, keys and the amplitudes of amplitude-encoded heads.

    Encoding :math:`W x` and applying the unitary U is linear up to a norm, :math:`A x` with :math:`A = U W`, so

    .. math:: \langle P_m \rangle = \sum_i S_{im} |A x|_i^2 \Big/ \sum_i |A x|_i^2

    Attributes:
        queries_and_keys: Weight ``(d, ·)`` and bias ``(·,)``, or None.
        kinds: For each kind of head what takes rows ``(B * T, d)`` to values ``(B * T, H, h)``.
    """

    queries_and_keys: tuple[Tensor, Tensor | None]
    kinds: list[Values]

    @classmethod
    def of(cls, maps: list[Affine], readouts: Mapping[int, Readout], head_size: int) -> FoldedProjection:
        """Lay weights out as products of many rows take them."""
        kinds = [_values_of(parts, readouts.get(i), head_size) for i, parts in enumerate(maps[1:], 1)]
        return cls(_turned(maps[0])[0], kinds)

    def __call__(self, x: Tensor, shared: FoldedPass | None = None) -> Projected | None:
        """Return queries and keys, and the values of all heads.

        None where a vector is zero, not finite or extreme, which takes more care than is had here.

        Args:
            x: Tokens, shape ``(B, T, d)``.
            shared: The pass of a model this is part of; then norms may be left for that to look at.
        """
        rows, lead, values = x.flatten(0, -2), x.shape[:-1], []
        for kind in self.kinds:
            found = kind(rows, shared)
            if found is None:
                return None
            values.append(found.view(*lead, *found.shape[1:]))
        product = _affine(rows, *self.queries_and_keys)  # last, as attention takes them first
        return product.view(*lead, product.shape[-1]), torch.cat(values, -2) if len(values) > 1 else values[0]


@dataclass(frozen=True)
class SmallProjection:
    """The same for few rows on a CPU, where a call costs more than the work in it: one product and one compiled loop.

    Attributes:
        weight, bias: Of all maps, shapes ``(·, d)`` and ``(·,)``, or None.
        layout, signs: What :func:`~qiskit_qattn.simulation.compiled_readout.read_out` takes.
        sizes: How many numbers of a row are queries and keys, and how many are values.
        head_size: Of the values.
    """

    weight: Tensor
    bias: Tensor | None
    layout: np.ndarray
    signs: np.ndarray
    sizes: tuple[int, int]
    head_size: int

    @classmethod
    def of(cls, maps: list[Affine], readouts: Mapping[int, Readout], head_size: int) -> SmallProjection:
        """Join the parts."""
        flat = [part for parts in maps for part in parts]
        biases = [bias for _, bias in flat if bias is not None]
        layout, signs = [], []
        for position, parts in enumerate(maps):
            readout = readouts.get(position)
            if readout is None:
                layout.append((1, 0, 0, 0, len(parts[0][0])))
            else:
                heads, outcomes, outputs = readout.signs.shape
                layout.append((heads, len(parts), outcomes, readout.basis, outputs))
                signs.append(readout.signs.flatten())
        widths = [heads * outputs for heads, *_, outputs in layout]
        return cls(
            torch.cat([weight for weight, _ in flat]),
            torch.cat(biases) if biases else None,
            np.array(layout),
            torch.cat(signs).numpy(),
            (widths[0], sum(widths[1:])),
            head_size,
        )

    def __call__(self, x: Tensor, shared: FoldedPass | None = None) -> Projected | None:
        """Return what :class:`FoldedProjection` returns; None also with gradients, or where autocast takes over."""
        if torch.is_grad_enabled():
            return None
        product = F.linear(x, self.weight, self.bias)
        if not shares_memory(product):
            return None
        output = product.new_empty(*x.shape[:-1], sum(self.sizes))
        given, out = (tensor.numpy().reshape(-1, tensor.shape[-1]) for tensor in (product, output))
        if not read_out(given, self.layout, self.signs, SMALLEST, LARGEST, out):
            return None
        queries_and_keys, values = output.split_with_sizes(self.sizes, -1)
        return queries_and_keys, values.unflatten(-1, (-1, self.head_size))


@dataclass(frozen=True)
class FusedLayer:
    """What of one layer's attention does not depend on data.

    Attributes:
        heads: What :func:`~qiskit_qattn.nn.heads.fuse_heads` gave, by kind.
        projection: The folded projection, where there is one.
        projects_out: Whether its values went through the layer's output map already; a cache may not keep those.
        whole: Whether nothing else than that, or classical heads, runs in the layer.
    """

    heads: Mapping[str, FusedHead] = field(default_factory=dict)
    projection: FoldedProjection | SmallProjection | None = None
    projects_out: bool = False
    whole: bool = False


def fold(
    weight: Tensor,
    bias: Tensor | None,
    sizes: Sequence[int],
    heads: Mapping[int, FusedHead],
    head_size: int,
    rows: int,
) -> FoldedProjection | SmallProjection | None:
    """Fold the matrices of amplitude-encoded heads into the projection that feeds them, where that saves work.

    Args:
        weight: The projection, shape ``(sum(sizes), d)``.
        bias: Shape ``(sum(sizes),)``, or None.
        sizes: How many outputs belong to queries and keys, then to each kind.
        heads: What the circuits of the quantum kinds were fused to, by position in ``sizes``; without gradients. The
            other kinds' outputs are their values.
        head_size: Of the values.
        rows: How many tokens will be projected at once.
    """
    if torch.is_autocast_enabled(weight.device.type) or torch_must_see():
        return None
    small = rows <= FEW_ROWS and weight.device.type == "cpu"
    biases = [None] * len(sizes) if bias is None else list(bias.split(list(sizes)))
    maps = [[part] for part in zip(weight.split(list(sizes)), biases, strict=True)]
    width, readouts = weight.shape[1], {}
    for position, head in heads.items():
        matrix, signs = head.matrices[0], head.signs
        assert signs is not None
        if matrix.dtype != weight.dtype:
            return None
        size, outputs = matrix.shape[1:]  # 2**n, R or 2 * R
        if rows > FEW_ROWS and not _saves_work(width, size, outputs):
            return None
        outcomes = signs.shape[-2]
        [(encoding, shift)] = maps[position]
        amplitudes = _amplitudes(matrix, encoding, outcomes)
        shifts = [None] * len(amplitudes) if shift is None else _amplitudes(matrix, shift[:, None], outcomes).unbind(0)
        maps[position] = [(a, None if s is None else s[:, 0]) for a, s in zip(amplitudes, shifts, strict=True)]
        readouts[position] = Readout(signs, size)
    return (SmallProjection if small else FoldedProjection).of(maps, readouts, head_size)


def is_plain(module: nn.Module, *kinds: type[nn.Module]) -> bool:
    """Tell whether calling a module does no more than its weights say: it has no hook, nor an adapter in its place."""
    return type(module) in kinds and not (module._forward_hooks or module._forward_pre_hooks)


def _turned(parts: Affine) -> Affine:
    """Return weights as products of many rows take them: narrow ones the other way round can be slow."""
    return [(weight.T.contiguous(), bias) for weight, bias in parts]


def _affine(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.mm(rows, weight) if bias is None else torch.addmm(bias, rows, weight)


def _values_of(parts: Affine, readout: Readout | None, head_size: int) -> Values:
    """Return what computes the values of one kind, a classical one where there is no readout."""
    if readout is None:
        return partial(_project, *_turned(parts)[0], head_size)
    compiled = CompiledReadout.of(parts, readout.signs, readout.basis)
    if compiled is not None:
        return partial(_run, compiled)
    return partial(_measure, _turned(parts), *readout.side_by_side())


def _project(weight: Tensor, bias: Tensor | None, head_size: int, rows: Tensor, shared: FoldedPass | None) -> Tensor:
    return _affine(rows, weight, bias).unflatten(-1, (-1, head_size))


def _run(readout: CompiledReadout, rows: Tensor, shared: FoldedPass | None) -> Tensor | None:
    return readout(rows)


def _measure(parts: Affine, signs: Tensor, ones: Tensor, rows: Tensor, shared: FoldedPass | None) -> Tensor | None:
    """Real and imaginary parts are a product each, so that every pass after it runs over contiguous memory."""
    first, *imaginary = parts
    outcomes = _affine(rows, *first).square_()
    for other in imaginary:
        part = _affine(rows, *other)
        outcomes.addcmul_(part, part)
    squared_norms = torch.mm(outcomes, ones)  # (B * T, H)
    if shared is not None:
        shared.norms.append(squared_norms)
    elif not within_range(squared_norms):
        return None
    return torch.mm(outcomes, signs).unflatten(-1, (ones.shape[1], -1)).div_(squared_norms.unsqueeze(-1))


def _saves_work(width: int, size: int, outputs: int) -> bool:
    """Tell whether a row takes fewer multiplications by A than by W and U one after the other."""
    return width * outputs <= size * (width + outputs)


def _amplitudes(matrix: Tensor, columns: Tensor, outcomes: int) -> Tensor:
    """Return A = U W for all heads side by side: real parts, then imaginary ones, ``(1 or 2, H * R, C)``.

    Args:
        matrix: U, shape ``(H, 2**n, R or 2 * R)``.
        columns: W, shape ``(H * 2**n, C)``.
        outcomes: R.
    """
    products = matrix.mT @ columns.unflatten(0, matrix.shape[:2])  # (H, R or 2 * R, C)
    return products.unflatten(1, (-1, outcomes)).transpose(0, 1).flatten(1, 2)
