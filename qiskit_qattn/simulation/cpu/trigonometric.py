"""The matrix of a trigonometric block and its gradient as compiled loops over the entries that can be nonzero.

A rotation about a Pauli string has one entry per row besides the diagonal, so products of four rotations are mostly
zero. Measured on eight heads of five qubits, forward and backward: 0.6 ms, against 2.0 by loops over all entries.
"""

from __future__ import annotations

import math

import numpy as np

from qiskit_qattn.simulation.cpu import compile_loops
from qiskit_qattn.simulation.trigonometric import TrigonometricMatrix

Array = np.ndarray


def form_matrix(block: TrigonometricMatrix, columns: Array) -> tuple[Array, tuple[Array, ...]]:
    """Return the matrices of a block, float64 ``(L, F, G)``, and what :func:`matrix_gradient` needs.

    Args:
        block: The block.
        columns: What its ``phases.columns`` gives for the weights, shape ``(L, P)``.
    """
    trace = form(columns, *block.phases.arrays, *block.arrays)
    return trace[0][:, -block.shapes[-1][1] :].swapaxes(-1, -2), trace


def matrix_gradient(block: TrigonometricMatrix, grad: Array, trace: tuple[Array, ...]) -> Array:
    """Return the gradient of the columns, float64 ``(L, P)``, from that of the matrices."""
    return form_gradient(grad, block.phases.arrays[0], *block.arrays, *trace)


@compile_loops
def form(
    columns: Array, turns: Array, offset: Array, constants: Array, entries: Array, layout: Array
) -> tuple[Array, Array, Array]:
    """Return the products of the first 1, 2, … sums of a block, and what else :func:`form_gradient` needs.

    Products are transposed and one below the other, ``(L, Σ G, F)``: the last G rows are the block's matrix. Then come
    the phases, ``(L, T)``, and the entries of the sums, ``(L, E)``. All is float64.

    Args:
        columns: The weights, float32 or float64, shape ``(L, P)``.
        turns: What takes them to the phases of all groups, shape ``(P, T)``.
        offset: What is added there, shape ``(T,)``.
        constants: The groups' matrices A and B, without what is zero in all of a group, one after the other, flat.
        entries: Row and column of these entries, shape ``(E, 2)``.
        layout: For each group, how many matrices there are, their entries, rows and columns, shape ``(groups, 4)``.
    """
    heads, height = len(columns), layout[0, 2]
    phases, factors = np.empty((heads, len(offset))), np.zeros((heads, len(entries)))
    products = np.zeros((heads, layout[:, 3].sum(), height))
    for head in range(heads):
        for t in range(len(offset)):
            phase = offset[t]
            for p in range(columns.shape[1]):
                phase += columns[head, p] * turns[p, t]
            phases[head, t] = phase
        wave = constant = begin = before = done = 0
        for group in range(len(layout)):
            count = layout[group, 1]
            factor = factors[head, begin : begin + count]
            for _ in range(layout[group, 0]):
                cosine, term = math.cos(phases[head, wave]), constants[constant : constant + count]
                for e in range(count):
                    factor[e] += cosine * term[e]
                wave, constant = wave + 1, constant + count
            for e in range(count):
                row, column, entry = entries[begin + e, 0], entries[begin + e, 1], factor[e]
                if group == 0:
                    products[head, column, row] = entry
                else:
                    given, into = products[head, before + row], products[head, done + column]
                    for i in range(height):
                        into[i] += entry * given[i]
            before, begin, done = done, begin + count, done + layout[group, 3]
    return products, phases, factors


@compile_loops
def form_gradient(
    grad: Array,
    turns: Array,
    constants: Array,
    entries: Array,
    layout: Array,
    products: Array,
    phases: Array,
    factors: Array,
) -> Array:
    """Return the gradient of the columns, float64 ``(L, P)``, for that of the matrices, ``(L, F, G)``.

    The rest is of :func:`form`, for as many heads, or for one that all gradients are of.
    """
    heads, height, width = grad.shape
    of_columns, of_factor = np.zeros((heads, len(turns))), np.empty(layout[:, 1].max())
    widest = max(layout[:, 2].max(), width)
    of_product, of_previous = np.empty((widest, height)), np.empty((widest, height))
    for head in range(heads):
        own = head % len(products)
        begin, wave, constant = len(entries), phases.shape[1], len(constants)
        before = products.shape[1] - width
        for j in range(width):
            for i in range(height):
                of_product[j, i] = grad[head, i, j]
        for group in range(len(layout) - 1, -1, -1):
            terms, count, rows = layout[group, 0], layout[group, 1], layout[group, 2]
            begin, wave, constant = begin - count, wave - terms, constant - terms * count
            if group > 0:
                before -= rows
                of_previous[:rows] = 0
            for e in range(count):
                row, column = entries[begin + e, 0], entries[begin + e, 1]
                if group == 0:
                    of_factor[e] = of_product[column, row]
                else:
                    given, slope, into = products[own, before + row], of_product[column], of_previous[row]
                    entry, total = factors[own, begin + e], 0.0
                    for i in range(height):
                        total += given[i] * slope[i]
                        into[i] += entry * slope[i]
                    of_factor[e] = total
            of_product, of_previous = of_previous, of_product
            for t in range(terms):
                total, first = 0.0, constant + t * count
                for e in range(count):
                    total += of_factor[e] * constants[first + e]
                total *= -math.sin(phases[own, wave + t])
                for p in range(len(turns)):
                    of_columns[head, p] += turns[p, wave + t] * total
    return of_columns
