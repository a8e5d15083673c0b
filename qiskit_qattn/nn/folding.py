"""Inference: what is linear before a circuit's measurement becomes part of the attention's input projection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qiskit_qattn.nn.heads import FusedHead
from qiskit_qattn.nn.repeats import Repeats
from qiskit_qattn.simulation.amplitude import LARGEST, SMALLEST, within_range
from qiskit_qattn.simulation.compiled_readout import read_out
from qiskit_qattn.simulation.jit import shares_memory

FEW_ROWS = 64  # up to here a CPU takes one compiled loop: torch's calls cost more than the work in them
_ALIGNED = 16  # numbers, 64 bytes of float32
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
    """What the folded projections of one pass share: norms to look at, and memory.

    Torch gives the first rows of every tensor to one core and the last to another. New memory may have been written
    last by the other one, which is slow where the two share no cache. So what is done with in its layer lies in the
    same memory in all layers, its middle in the same place whatever its width: a pass of the ``qisa`` preset takes 0.83
    to 0.9 of the time on such cores, and the same on others.

    Args:
        count: Of how many tokens at once queries and keys are done with when their layer is, neither a cache nor
            autograd keeping them; None for no such.
        repeats: Which tokens are equal in the first layer, which is a folded one.

    Attributes:
        norms: The least and the greatest squared norm of what each layer encoded. Values are worth nothing where those
            are not within range, but are returned all the same, for whoever began the pass to look once, at its end.
    """

    def __init__(self, count: int | None = None, repeats: Repeats | None = None) -> None:
        self.norms: list[Tensor] = []
        self._count, self._repeats = count, repeats
        self._widest = 0
        self._views: dict[int, Tensor] = {}

    def take_repeats(self) -> Repeats | None:
        """Return which tokens are equal, to the first layer; attention then tells them apart by what precedes them."""
        repeats, self._repeats = self._repeats, None
        return repeats

    def note(self, squared_norms: Tensor) -> None:
        """Keep what to look at of a layer's squared norms, while they are in the cache."""
        if squared_norms.numel():
            self.norms += torch.aminmax(squared_norms)

    def holds(self) -> bool:
        """Tell whether all values of the pass do."""
        return not self.norms or within_range(torch.stack(self.norms))

    def memory(self, rows: Tensor, width: int, widest: int) -> Tensor | None:
        """Return where to write ``width`` numbers for each of ``rows``, over what was there, or None for anywhere.

        Args:
            rows: The tokens of this pass, shape ``(B * T, d)``.
            width: At most ``widest``.
            widest: The most that this layer asks for.
        """
        count = len(rows)
        if count != self._count:
            return None
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
        parts: Weights ``(d, ·)`` and biases ``(·,)``, or None, of queries and keys, then of each kind, with what
            :meth:`Readout.side_by_side` gave for a quantum kind; that has weights of real parts, then of imaginary
            ones, each a product of its own, so that every pass after it runs over contiguous memory.
        widest: How many numbers a row the widest product has that is done with in its layer.
        head_size: Of the values.
    """

    parts: list[tuple[Affine, tuple[Tensor, Tensor] | None]]
    widest: int
    head_size: int

    @classmethod
    def of(cls, maps: list[Affine], readouts: Mapping[int, Readout], head_size: int) -> FoldedProjection:
        """Lay weights out as products of many rows take them: narrow ones the other way round can be slow."""
        turned = [[(weight.T.contiguous(), bias) for weight, bias in affine] for affine in maps]
        passing = [maps[0][0], *(part for position in readouts for part in maps[position][1:])]
        parts = [
            (affine, readouts[position].side_by_side() if position in readouts else None)
            for position, affine in enumerate(turned)
        ]
        return cls(parts, max(len(weight) for weight, _ in passing), head_size)

    def __call__(self, x: Tensor, shared: FoldedPass | None = None) -> Projected | None:
        """Return queries and keys, and the values of all heads.

        None where a vector is zero, not finite or extreme, which takes more care than is had here.

        Args:
            x: Tokens, shape ``(B, T, d)``.
            shared: The pass of a model this is part of; then norms are for that to look at.
        """
        repeats = None if shared is None else shared.take_repeats()
        projected = self._project(x if repeats is None else repeats.once(x), shared)
        if shared is None or repeats is None or projected is None:
            return projected
        queries_and_keys, values = projected
        memory = shared.memory(x.flatten(0, -2), queries_and_keys.shape[-1], self.widest)
        return repeats.spread(queries_and_keys, memory), repeats.spread(values)

    def _project(self, x: Tensor, shared: FoldedPass | None) -> Projected | None:
        rows, lead, kinds = x.flatten(0, -2), x.shape[:-1], []

        def passing(weight: Tensor, bias: Tensor | None) -> Tensor:
            """Return a product that is done with in this layer."""
            out = None if shared is None else shared.memory(rows, weight.shape[1], self.widest)
            return _affine(rows, weight, bias, out)

        ([queries_and_keys], _), *parts = self.parts
        for (first, *imaginary), readout in parts:
            output = _affine(rows, *first)
            if readout is None:
                kinds.append(output.view(*lead, output.shape[-1] // self.head_size, self.head_size))
                continue
            outcomes = output.square_()
            for other in imaginary:
                part = passing(*other)
                outcomes.addcmul_(part, part)
                del part  # what comes next takes its memory, which is in the cache: 3 % of the projection, as below
            signs, ones = readout
            squared_norms = torch.mm(outcomes, ones)  # (B * T, H)
            values, count = torch.mm(outcomes, signs), squared_norms.shape[-1]
            del output, outcomes
            values = values.view(*lead, count, values.shape[-1] // count)
            kinds.append(values.div_(squared_norms.view(*lead, count, 1)))
            if shared is not None:
                shared.note(squared_norms)
            elif not within_range(squared_norms):
                return None
        product = passing(*queries_and_keys)  # last, as attention takes them first
        return product.view(*lead, product.shape[-1]), torch.cat(kinds, -2) if len(kinds) > 1 else kinds[0]


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
    if torch.is_autocast_enabled(weight.device.type) or torch.compiler.is_compiling():
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


def _affine(rows: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor | None = None) -> Tensor:
    return torch.mm(rows, weight, out=out) if bias is None else torch.addmm(bias, rows, weight, out=out)


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
