"""Starts of circuit weights, and how large the gradients are there.

A *layer* is one repetition of a kind's ansatz, A(θ). The circuit of the catalog is A(θ_R) ⋯ A(θ_1). Blocks that can be
the identity take another one, here called mirrored, in which every second layer is inverted: ⋯ A(θ_2)† A(θ_1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache

import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from torch import Tensor

from qiskit_qattn.backends.registry import get_backend
from qiskit_qattn.library.attention_circuit import AttentionCircuit
from qiskit_qattn.library.catalog import CATALOG, Recipe, attention_circuit

CIRCUITS = ("qisa-v3", "zz", "angle", "qsann", "orthogonal")
STARTS = ("uniform", "small", "mirrored uniform", "mirrored identity")
HEADER = ("circuit", "start", "reps", *(f"{n} qubits" for n in range(2, 11, 2)))
_SPREAD = 0.25  # of angles of data: what a linear map gives at nanoGPT's initialisation
_DRAWS = 512
_AMPLITUDES = 2**22  # at a time


def mirrored(layer: Callable[[int, int], QuantumCircuit]) -> Callable[[int, int], QuantumCircuit]:
    """Return an ansatz whose layers are those of another one, every second inverted, each with angles of its own."""

    def ansatz(num_qubits: int, reps: int) -> QuantumCircuit:
        size = layer(num_qubits, 1).num_parameters
        theta = ParameterVector("θ", reps * size)
        circuit = QuantumCircuit(num_qubits, name="mirrored")
        for rep in range(reps):
            one = layer(num_qubits, 1).assign_parameters(theta[rep * size : (rep + 1) * size])
            circuit.compose(one.inverse() if rep % 2 else one, inplace=True)
        return circuit

    return ansatz


def mirrored_recipe(name: str) -> Recipe:
    """Return the recipe of a circuit of the catalog with its ansatz mirrored."""
    recipe = CATALOG[name]
    return Recipe(recipe.encoding, mirrored(recipe.ansatz), 2, recipe.first, f"{recipe.summary}; mirrored")


def draw(start: str, weights: Tensor, reps: int, generator: torch.Generator | None = None) -> Tensor:
    r"""Return angles, of the shape ``(..., P)`` of ``weights``.

    - ``uniform``: in [−π, π].
    - ``small``: :math:`N(0, \sigma^2)` with :math:`\sigma^2 = 1 / (4 (L + 2))` for L layers, after Zhang et al.,
      arXiv 2203.09376, for observables of one qubit.
    - ``identity``: uniform in the first layer of each block, the same angles in the mirrored one, so that
      :math:`A(\theta)^\dagger A(\theta) = 1`; Grant et al., arXiv 1903.05076.
    """
    if start == "small":
        return torch.empty_like(weights).normal_(0.0, 0.5 / math.sqrt(reps + 2), generator=generator)
    angles = torch.empty_like(weights).uniform_(-math.pi, math.pi, generator=generator)
    if start == "identity":
        blocks = angles.unflatten(-1, (reps // 2, 2, -1))
        angles = blocks[..., :1, :].expand_as(blocks).flatten(-3)
    return angles


@cache
def circuit_of(name: str, num_qubits: int, reps: int, mirror: bool) -> AttentionCircuit:
    """Return a circuit that measures Z on each qubit (X for unary states)."""
    plain = attention_circuit(name, num_qubits, reps=reps)
    if not mirror:
        return plain
    ansatz = mirrored(CATALOG[name].ansatz)(num_qubits, reps)
    return AttentionCircuit(f"{name}-mirrored", plain.encoding, ansatz, plain.labels)


def squared_slopes(circuit: AttentionCircuit, start: str, reps: int, generator: torch.Generator) -> float:
    r"""Return the mean of :math:`(\partial \langle P_m \rangle / \partial \theta_j)^2` over draws of data and weights.

    It is the variance where the mean slope is 0, as for uniform angles. All M observables are estimated at once,
    without bias, by the square of their sum with random signs.
    """
    vectors = circuit.encoding.takes_vectors
    x = torch.randn(_DRAWS, circuit.encoding.num_features, generator=generator, dtype=torch.float64)
    x = x if vectors else _SPREAD * x
    weights = draw(start, torch.empty(_DRAWS, len(circuit.weight_params), dtype=torch.float64), reps, generator)
    make = get_backend("statevector?method=dense").program
    assert make is not None
    program, total = make(circuit).double(), 0.0
    size = max(1, _AMPLITUDES // 4**circuit.num_qubits)
    for rows, angles in zip(x.split(size), weights.split(size), strict=True):
        angles = angles.clone().requires_grad_()
        values = program(rows.unsqueeze(-2), angles).squeeze(-2)  # (S, M)
        signs = 2.0 * torch.randint(2, values.shape, generator=generator) - 1  # (S, M)
        (slopes,) = torch.autograd.grad((values * signs).sum(), angles)  # (S, P)
        total += float(slopes.square().mean(-1).sum()) / values.shape[-1]
    return total / _DRAWS


def table() -> Iterator[tuple[str, ...]]:
    """Yield the rows of :data:`HEADER`: a mean squared slope for each number of qubits."""
    for name in CIRCUITS:
        for reps in (1, 2, 4, 8):
            for start in STARTS:
                mirror = start.startswith("mirrored")
                if mirror and (reps == 1 or name == "orthogonal"):  # whose engine knows pyramids alone
                    continue
                generator = torch.Generator().manual_seed(reps)
                found = [
                    squared_slopes(circuit_of(name, n, reps, mirror), start.split()[-1], reps, generator)
                    for n in range(2, 11, 2)
                ]
                yield name, start, str(reps), *(f"{value:.1e}" for value in found)
