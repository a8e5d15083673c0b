r"""Unary circuits exactly: rotations of RBS as matrices of n × n, without the 2ⁿ amplitudes of a state."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from qiskit_qattn.errors import CircuitError
from qiskit_qattn.library.attention_circuit import AttentionCircuit
from qiskit_qattn.library.unary import Layers, butterfly, pyramid, rbs_ansatz
from qiskit_qattn.simulation.amplitude import unit_vectors
from qiskit_qattn.simulation.constants import ConstantModule
from qiskit_qattn.simulation.dense import Fused
from qiskit_qattn.simulation.precision import without_autocast
from qiskit_qattn.simulation.products import quadratic_forms
from qiskit_qattn.simulation.statevector import StatevectorProgram

Sparse = list[dict[int, int]]  # for each row of a matrix the places of its entries, by column
_SPARSE_LEVELS = 2


class OrthogonalProgram(StatevectorProgram):
    r"""Expectations of layers of RBS on a unary-encoded vector, an orthogonal matrix V of the unit vector.

    .. math:: |\psi\rangle = \frac{1}{\sqrt 2} \Big( |0 \dots 0\rangle + \sum_i (V \hat x)_i |e_i\rangle \Big), \qquad
              \langle X_j \rangle = (V \hat x)_j

    Other Pauli strings are quadratic forms of the n + 1 amplitudes.

    Args:
        circuit: An attention circuit of :func:`~qiskit_qattn.library.unary.unary_encoding` and
            :func:`~qiskit_qattn.library.unary.pyramid_ansatz` or
            :func:`~qiskit_qattn.library.unary.butterfly_ansatz`.

    Raises:
        CircuitError: For another ansatz.
    """

    def __init__(self, circuit: AttentionCircuit) -> None:
        ConstantModule.__init__(self)
        self.num_qubits = self.num_inputs = n = circuit.num_qubits
        self.num_weights, self.num_outputs = len(circuit.weight_params), len(circuit.observables)
        self.rotations = Rotations(n, rbs_layers(circuit, (pyramid, butterfly)))
        self.unitaries = self.effective = None
        labels = list(circuit.labels)
        single = ["I" * (n - 1 - j) + "X" + "I" * j for j in range(n)]
        self.linear = labels == single[: len(labels)]
        forms = np.eye(n)[: len(labels)] if self.linear else np.stack([_restricted(label) for label in labels])
        self.add_constant("signs", forms)  # the outputs' rows of V, or the forms, (M, n + 1, n + 1)

    def forward(
        self, inputs: Tensor, weights: Tensor, fused: Fused | None = None, signs: Tensor | None = None
    ) -> Tensor:
        """Return expectations, shape ``(..., B, M)``.

        Args:
            inputs: Vectors of any norm, shape ``(..., B, n)``.
            weights: Angles in radians, shape ``(..., P)``; leading axes broadcast with the inputs'.
            fused: What :meth:`fused` gave for these weights, if it was called already.
            signs: What :meth:`scaled_signs` gave, to scale each expectation.

        Raises:
            EncodingError: For NaN or infinity.
        """
        self.leave_meta(weights)
        with without_autocast(inputs.device):
            (matrix,) = fused or self.fused(weights)
            turned = unit_vectors(inputs).to(matrix.dtype) @ matrix  # (..., B, n)
            values = turned[..., : self.num_outputs] if self.linear else quadratic_forms(_state(turned), self.signs)
            return values if signs is None else values * signs

    def states(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """Return the amplitudes of the state without a 1 and of :math:`e_0` to :math:`e_{n-1}`, ``(..., B, n + 1)``."""
        (matrix,) = self.fused(weights)
        return _state(unit_vectors(inputs).to(matrix.dtype) @ matrix)

    def fused(self, weights: Tensor) -> Fused:
        """Return the transpose of V, shape ``(..., n, n)``."""
        self.leave_meta(weights)
        with without_autocast(weights.device):
            return (self.rotations(weights).to(self.signs.dtype),)

    def scaled_signs(self, scale: Tensor) -> Tensor:
        """Return what makes a call give expectations times ``scale``, of shape ``(..., M)``."""
        return scale.unsqueeze(-2)

    def summary(self) -> str:
        """Return in a phrase what a call computes."""
        return f"{self.num_qubits} qubits, an orthogonal matrix of {self.num_weights} rotations"


class Rotations(ConstantModule):
    r"""The product of all RBS as one matrix: layers of disjoint rotations, multiplied in a binary tree.

    A layer has two entries per row at most and the product of four layers few, so the first two levels of the tree are
    sums over paths: at 32 qubits a quarter of the multiplications of full matrices are left.

    Args:
        size: n.
        layers: The pairs of qubits of each layer.
    """

    def __init__(self, size: int, layers: Layers) -> None:
        super().__init__()
        self.size = size
        count = sum(map(len, layers))
        leaves = 2**_SPARSE_LEVELS * 2 ** max(0, math.ceil(math.log2(max(1, len(layers) / 2**_SPARSE_LEVELS))))
        numbers = iter(range(count))
        one = 3 * count  # entries of a layer are cosines, sines, their negatives, or 1
        matrices = []
        for layer in [*layers, *[[]] * (leaves - len(layers))]:
            matrix: Sparse = [{row: one} for row in range(size)]
            for (i, j), gate in zip(layer, numbers, strict=False):
                matrix[i], matrix[j] = {i: gate, j: gate + count}, {i: gate + 2 * count, j: gate}
            matrices.append(matrix)
        zero = one + 1
        for level in range(_SPARSE_LEVELS):
            paths: list[list[tuple[int, int]]] = []
            matrices = [_product(a, b, paths) for a, b in zip(matrices[0::2], matrices[1::2], strict=True)]
            most = max(map(len, paths))
            filled = [[*terms, *[(zero, zero)] * (most - len(terms))] for terms in paths]
            self.add_constant(f"paths_{level}", np.array(filled).transpose(2, 1, 0))  # (2, most, entries)
            zero = len(paths)
        self.depth = len(matrices)
        places = [
            (depth * size + row) * size + column
            for depth, matrix in enumerate(matrices)
            for row, entries in enumerate(matrix)
            for column in entries
        ]
        self.add_constant("places", np.array(places))
        self.add_constant("zeros", np.zeros((self.depth * size * size, 1)), double=True)

    places: Tensor
    zeros: Tensor

    def forward(self, weights: Tensor) -> Tensor:
        """Return the transposed matrices, shape ``(..., n, n)``, of angles ``(..., P)``."""
        batch = math.prod(weights.shape[:-1])
        angles = weights.to(self.zeros.dtype).reshape(batch, weights.shape[-1]).mT  # (P, B)
        sin = angles.sin()
        entries = torch.cat([angles.cos(), sin, -sin, angles.new_ones(1, batch)])
        for level in range(_SPARSE_LEVELS):
            entries = torch.cat([entries, torch.zeros_like(entries[:1])])
            terms = [entries[left] * entries[right] for left, right in getattr(self, f"paths_{level}").unbind(1)]
            entries = sum(terms[1:], terms[0])
        product = self.zeros.expand(-1, batch).index_copy(0, self.places, entries).mT
        product = product.reshape(*weights.shape[:-1], self.depth, self.size, self.size)
        while product.shape[-3] > 1:
            product = product[..., 0::2, :, :] @ product[..., 1::2, :, :]
        return product.squeeze(-3)


def _product(left: Sparse, right: Sparse, paths: list[list[tuple[int, int]]]) -> Sparse:
    """Return the places of a product's entries in ``paths``, to which each entry's products of two are appended."""
    found: Sparse = []
    for row in left:
        entries: dict[int, int] = {}
        for middle, a in row.items():
            for column, b in right[middle].items():
                if column not in entries:
                    entries[column] = len(paths)
                    paths.append([])
                paths[entries[column]].append((a, b))
        found.append(entries)
    return found


def unary_angles(x: Tensor) -> Tensor:
    r"""Return the angles with which the unary encoding loads :math:`\hat x = x / \lVert x \rVert`.

    .. math:: a_0 = \pi / 2, \qquad a_k = \mathrm{atan2}\big(\lVert (x_k, \dots, x_{n-1}) \rVert, x_{k-1}\big), \qquad
              a_{n-1} = \mathrm{atan2}(x_{n-1}, x_{n-2})

    Differentiable; where both arguments vanish the angle is 0 and so is its gradient. For n = 1, :math:`a_0` is π/2
    times the sign.

    Args:
        x: Real vectors, shape ``(..., n)``; zero is loaded as :math:`e_0`.

    Returns:
        Angles in radians, shape ``(..., n)``, in the order of ``unary_encoding(n).params``.

    Raises:
        EncodingError: For NaN or infinity.
    """
    unit = unit_vectors(x)
    if x.shape[-1] == 1:
        return unit * (math.pi / 2)
    squares = unit[..., 1:-1].square() if x.shape[-1] > 2 else unit[..., :0]
    tails = torch.cat([squares, unit[..., -1:].square()], -1).flip(-1).cumsum(-1).flip(-1)  # (..., n - 1)
    empty = tails == 0  # neither the root nor atan2 has a gradient at 0
    norms = torch.where(empty, 0.0, torch.where(empty, 1.0, tails).sqrt())
    norms = torch.cat([norms[..., :-1], unit[..., -1:]], -1)
    none = (norms == 0) & (unit[..., :-1] == 0)
    angles = torch.where(none, 0.0, torch.atan2(norms, torch.where(none, 1.0, unit[..., :-1])))
    return torch.cat([torch.full_like(unit[..., :1], math.pi / 2), angles], -1)


class UnaryAngles(nn.Module):
    """:func:`unary_angles` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        """Return angles, shape ``(..., n)``, of vectors of that shape."""
        return unary_angles(x)


def rbs_layers(circuit: AttentionCircuit, layouts: Sequence[Callable[[int], Layers]]) -> Layers:
    """Return the layers of RBS that the ansatz consists of, gate by gate, in the layout of one of some functions.

    Raises:
        CircuitError: For another ansatz.
    """
    n, numbers = circuit.num_qubits, list(range(1, len(circuit.weight_params) + 1))
    given = circuit.ansatz.assign_parameters(dict(zip(circuit.weight_params, numbers, strict=True)))
    for layout in layouts:
        layers = layout(n)
        reps, rest = divmod(len(numbers), sum(map(len, layers)) or 1)
        if not rest and given == rbs_ansatz(layout.__name__, n, layers, reps).assign_parameters(numbers):
            return layers * reps
    allowed = " or ".join(f"{layout.__name__}_ansatz" for layout in layouts)
    raise CircuitError(
        f"The exact engine runs {circuit.encoding.kind} encodings with {allowed} only; the ansatz of {circuit.name!r}, "
        f"{circuit.ansatz.name!r}, is another circuit."
    )


def _state(unary: Tensor) -> Tensor:
    return torch.cat([torch.ones_like(unary[..., :1]), unary], -1) * 0.5**0.5  # (..., n + 1)


def _restricted(label: str) -> np.ndarray:
    """Return the real part of a Pauli string between the states without a 1 and with a single 1, by qubit."""
    n = len(label)
    letters = label[::-1]  # of qubits 0 to n − 1
    flips = [qubit for qubit, letter in enumerate(letters) if letter in "XY"]
    form = np.zeros((n + 1, n + 1))
    if not flips:
        signs = [1.0, *(-1.0 if letter == "Z" else 1.0 for letter in letters)]
        return np.diag(signs)
    if len(flips) > 2 or sum(letter == "Y" for letter in letters) % 2:
        return form
    ends = (0, flips[0] + 1) if len(flips) == 1 else (flips[0] + 1, flips[1] + 1)
    form[ends] = form[ends[::-1]] = 1.0
    return form
