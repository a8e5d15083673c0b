"""Inference: what is linear before a circuit's measurement becomes part of the attention's input projection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from qiskit_qattn.nn.heads import FusedHead
from qiskit_qattn.simulation.amplitude import within_range

FEW_ROWS = 256  # below, a call costs more than the work in it
_ALIGNED = 16  # numbers, 64 bytes of float32
Affine = list[tuple[Tensor, Tensor | None]]  # weights and biases


@dataclass(frozen=True)
class Readout:
    """From the squared amplitudes of one quantum kind's heads, side by side, to their values.

    Attributes:
        signs: S times gains of all heads on the diagonal, shape ``(H * R, H * M)``.
        ones: What sums the first basis of each head, which gives the squared norm of its vector, ``(H * R, H)``.
    """

    signs: Tensor
    ones: Tensor


class FoldedPass:
    """What the folded projections of one pass share: norms to look at, and memory.

    Torch gives the first rows of every tensor to one core and the last to another. New memory may have been written
    last by the other one, which is slow where the two share no cache. So what is done with in its layer lies in the
    same memory in all layers, its middle in the same place whatever its width: a pass of the ``qisa`` preset takes 0.83
    to 0.9 of the time on such cores, and the same on others.

    Args:
        reuses_memory: Whether queries and keys are done with when their layer is: neither a cache nor autograd keeps
            them.

    Attributes:
        norms: The squared norms of what was encoded. Values are worth nothing where those are not within range, but
            are returned all the same, for whoever began the pass to look once, at its end.
    """

    def __init__(self, reuses_memory: bool = False) -> None:
        self.norms: list[Tensor] = []
        self._reuses_memory = reuses_memory
        self._widest = 0
        self._views: dict[int, Tensor] = {}

    def holds(self) -> bool:
        """Tell whether all values do; there must be some."""
        return within_range(torch.cat([squared.flatten() for squared in self.norms]))

    def memory(self, rows: Tensor, width: int, widest: int) -> Tensor | None:
        """Return where to write ``width`` numbers for each of ``rows``, over what was there, or None for anywhere.

        Args:
            rows: The tokens of this pass, shape ``(B * T, d)``.
            width: At most ``widest``.
            widest: The most that this layer asks for.
        """
        if not self._reuses_memory:
            return None
        count = len(rows)
        if widest > self._widest:
            self._widest, self._views = widest, {widest: rows.new_empty(count, widest)}
        if width not in self._views:
            start = count * (self._widest - width) // 2 // _ALIGNED * _ALIGNED
            self._views[width] = self._views[self._widest].view(-1)[start : start + count * width].view(count, width)
        return self._views[width]


@dataclass(frozen=True)
class FoldedProjection:
    r"""One linear map from tokens to queries, keys and the amplitudes of amplitude-encoded heads.

    Encoding :math:`W x` and applying the unitary U is linear up to a norm, :math:`A x` with :math:`A = U W`, so

    .. math:: \langle P_m \rangle = \sum_i S_{im} |A x|_i^2 \Big/ \sum_i |A x|_i^2

    Attributes:
        parts: Weights ``(d, ·)`` and biases ``(·,)``, or None, of queries and keys, then of each kind, with the readout
            of a quantum kind; that has weights of real parts, then of imaginary ones, each a product of its own, so
            that every pass after it runs over contiguous memory.
        widest: How many numbers a row the widest product has that is done with in its layer.
    """

    parts: list[tuple[Affine, Readout | None]]
    widest: int

    @classmethod
    def of(cls, maps: list[Affine], readouts: Mapping[int, Readout]) -> FoldedProjection:
        """Lay weights out as products of many rows take them: narrow ones the other way round can be slow."""
        turned = [[(weight.T.contiguous(), bias) for weight, bias in affine] for affine in maps]
        passing = [maps[0][0], *(part for position in readouts for part in maps[position][1:])]
        parts = [(affine, readouts.get(position)) for position, affine in enumerate(turned)]
        return cls(parts, max(len(weight) for weight, _ in passing))

    def __call__(self, x: Tensor, shared: FoldedPass | None = None) -> list[Tensor] | None:
        """Return queries and keys, then each kind's features, or values ``(B, T, H, M)`` where the kind is quantum.

        None where a vector is zero, not finite or extreme, which takes more care than is had here.

        Args:
            x: Tokens, shape ``(B, T, d)``.
            shared: The pass of a model this is part of; then norms are for that to look at.
        """
        rows, lead, outputs = x.flatten(0, -2), x.shape[:-1], []

        def passing(weight: Tensor, bias: Tensor | None) -> Tensor:
            """Return a product that is done with in this layer."""
            out = None if shared is None else shared.memory(rows, weight.shape[1], self.widest)
            return _affine(rows, weight, bias, out)

        ([queries_and_keys], _), *kinds = self.parts
        for (first, *imaginary), readout in kinds:
            output = _affine(rows, *first)
            if readout is None:
                outputs.append(output.view(*lead, output.shape[-1]))
                continue
            outcomes = output.square_()
            for other in imaginary:
                part = passing(*other)
                outcomes.addcmul_(part, part)
                del part  # what comes next takes its memory, which is in the cache: 3 % of the projection, as below
            squared_norms = torch.mm(outcomes, readout.ones)  # (B * T, H)
            values, count = torch.mm(outcomes, readout.signs), squared_norms.shape[-1]
            del output, outcomes
            values = values.view(*lead, count, values.shape[-1] // count)
            outputs.append(values.div_(squared_norms.view(*lead, count, 1)))
            if not _may_hold(squared_norms, shared):
                return None
        product = passing(*queries_and_keys)  # last, as attention takes them first
        return [product.view(*lead, product.shape[-1]), *outputs]


@dataclass(frozen=True)
class SmallProjection:
    """The same for few rows, where a call costs more than the work in it: one product, and one square of all parts.

    Attributes:
        weight, bias: Of all maps, shapes ``(·, d)`` and ``(·,)``, or None.
        sizes: How many outputs belong to queries and keys, then to each kind.
        readouts: For each quantum kind, by position, signs and ones of each head side by side, for real parts and once
            more for imaginary ones, shape ``(H * R or 2 * H * R, H * (M + 1))``, and H.
    """

    weight: Tensor
    bias: Tensor | None
    sizes: list[int]
    readouts: Mapping[int, tuple[Tensor, int]]

    @classmethod
    def of(cls, maps: list[Affine], readouts: Mapping[int, Readout]) -> SmallProjection:
        """Join the parts."""
        flat = [part for parts in maps for part in parts]
        biases = [bias for _, bias in flat if bias is not None]
        joined = {}
        for position, readout in readouts.items():
            count = readout.ones.shape[-1]
            columns = torch.cat([readout.signs.unflatten(-1, (count, -1)), readout.ones.unsqueeze(-1)], -1)
            joined[position] = columns.flatten(-2).repeat(len(maps[position]), 1), count
        return cls(
            torch.cat([weight for weight, _ in flat]),
            torch.cat(biases) if biases else None,
            [sum(len(weight) for weight, _ in parts) for parts in maps],
            joined,
        )

    def __call__(self, x: Tensor, shared: FoldedPass | None = None) -> list[Tensor] | None:
        """Return what :class:`FoldedProjection` returns."""
        outputs = list(F.linear(x, self.weight, self.bias).split_with_sizes(self.sizes, -1))
        for position, (signs, count) in self.readouts.items():
            sums = outputs[position].square() @ signs
            sums = sums.view(*x.shape[:-1], count, sums.shape[-1] // count)  # (B, T, H, M + 1)
            values, squared_norms = sums.split_with_sizes((sums.shape[-1] - 1, 1), -1)
            outputs[position] = values.div_(squared_norms)
            if not _may_hold(squared_norms, shared):
                return None
        return outputs


@dataclass(frozen=True)
class FusedLayer:
    """What of one layer's attention does not depend on data.

    Attributes:
        heads: What :func:`~qiskit_qattn.nn.heads.fuse_heads` gave, by kind.
        projection: The folded projection, where there is one.
        projects_out: Whether its values went through the layer's output map already.
        whole: Whether it does all that the layer's quantum heads and controls do.
    """

    heads: Mapping[str, FusedHead] = field(default_factory=dict)
    projection: FoldedProjection | SmallProjection | None = None
    projects_out: bool = False
    whole: bool = False


def fold(
    weight: Tensor, bias: Tensor | None, sizes: Sequence[int], heads: Mapping[int, FusedHead], rows: int
) -> FoldedProjection | SmallProjection | None:
    """Fold the matrices of amplitude-encoded heads into the projection that feeds them, where that saves work.

    Args:
        weight: The projection, shape ``(sum(sizes), d)``.
        bias: Shape ``(sum(sizes),)``, or None.
        sizes: How many outputs belong to queries and keys, then to each kind.
        heads: What the circuits of the quantum kinds were fused to, by position in ``sizes``; without gradients.
        rows: How many tokens will be projected at once.
    """
    if not heads or torch.is_autocast_enabled(weight.device.type) or torch.compiler.is_compiling():
        return None
    biases = [None] * len(sizes) if bias is None else list(bias.split(list(sizes)))
    maps = [[part] for part in zip(weight.split(list(sizes)), biases, strict=True)]
    width, readouts = weight.shape[1], {}
    for position, head in heads.items():
        matrix, signs = head.matrices[0], head.signs
        assert signs is not None
        if matrix.dtype != weight.dtype:
            return None
        count, size, outputs = matrix.shape  # H, 2**n, R or 2 * R
        if rows > FEW_ROWS and not _saves_work(width, size, outputs):
            return None
        outcomes = signs.shape[-2]
        [(encoding, shift)] = maps[position]
        amplitudes = _amplitudes(matrix, encoding, outcomes)
        shifts = [None] * len(amplitudes) if shift is None else _amplitudes(matrix, shift[:, None], outcomes).unbind(0)
        maps[position] = [(a, None if s is None else s[:, 0]) for a, s in zip(amplitudes, shifts, strict=True)]
        diagonal = signs[0] if count == 1 else torch.block_diag(*signs)
        readouts[position] = Readout(diagonal, _first_basis(count, outcomes, size, signs.dtype, signs.device))
    return (SmallProjection if rows <= FEW_ROWS else FoldedProjection).of(maps, readouts)


def _may_hold(squared_norms: Tensor, shared: FoldedPass | None) -> bool:
    """Tell whether values may hold by the norms they were divided by, or leave those for the end of the pass."""
    if shared is None:
        return within_range(squared_norms)
    shared.norms.append(squared_norms)
    return True


def _affine(rows: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor | None = None) -> Tensor:
    return torch.mm(rows, weight, out=out) if bias is None else torch.addmm(bias, rows, weight, out=out)


@lru_cache(maxsize=64)
def _first_basis(count: int, outcomes: int, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return ones where an outcome is of the first basis of a head, ``(H * R, H)``: they sum to its ‖x‖²."""
    first = torch.zeros(outcomes, 1, dtype=dtype, device=device)
    first[:size] = 1
    return torch.block_diag(*[first] * count)


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
