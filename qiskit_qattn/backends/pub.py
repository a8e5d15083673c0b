"""Circuits on any Estimator: one job of broadcast PUBs forward and one backward, shared by any number of programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

import numpy as np
import torch
from qiskit import QuantumCircuit
from qiskit.primitives import BaseEstimatorV2
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.primitives.containers.observables_array import ObservablesArray
from qiskit.quantum_info.operators.base_operator import BaseOperator
from torch import Tensor, nn

from qiskit_qattn.backends.gradients import DifferenceRule, ParameterShift, Simulated, VectorJacobian, unique_rows
from qiskit_qattn.backends.jobs.request import SOURCE, source_of, source_of_rows
from qiskit_qattn.backends.joint import Call, JointProgram
from qiskit_qattn.backends.registry import Backend
from qiskit_qattn.backends.tiling import TILES, Tile, Tiling
from qiskit_qattn.backends.unroll import unroll
from qiskit_qattn.backends.values import bounds, check_values, evs_of, results_of
from qiskit_qattn.errors import BackendError
from qiskit_qattn.library.attention_circuit import AttentionCircuit
from qiskit_qattn.simulation.angles import AngleMap
from qiskit_qattn.simulation.derivatives import transforms, with_gradient_of
from qiskit_qattn.simulation.statevector import StatevectorProgram

# Rounding makes a token's angles depend on its position in the batch: by at most these rounding errors, and radians.
_ROUNDING, _LARGEST = 64, 1e-5


def attention_program(circuit: AttentionCircuit, backend: Backend) -> PubProgram:
    """Return the program that evaluates an attention circuit on a backend's estimator, by the backend's gradient rule.

    It takes the encoding's angles, for amplitude encoding as for others.
    """
    tiling = backend.tiling if backend.tiling is not None and backend.tiling.has_several(circuit.num_qubits) else None
    isa, observables = circuit.transpiled(backend) if tiling is None else (circuit.circuit, list(circuit.observables))
    params: dict[str, Any] = {"input_params": circuit.input_params, "weight_params": circuit.weight_params}
    options = params | {
        "estimator": backend.estimator,
        "precision": backend.precision,
        "max_pub_size": backend.max_pub_size,
        "dedupe": backend.dedupe,
        "tiling": tiling,
    }
    if backend.pass_manager is not None and hasattr(backend.estimator, "ledger"):
        options["source"] = source_of(circuit)
    if isinstance(backend.gradient, Simulated):
        exact = StatevectorProgram(circuit.circuit, circuit.observables, **params)
        return SimulatedGradient(isa, observables, exact=exact, **options)
    return PubProgram(isa, observables, gradient=backend.gradient, **options)


class PubProgram(JointProgram):
    r"""Expectations of a circuit through a primitive, differentiable by a rule that runs circuits.

    Every gate with a parameter gets a separate angle α, a differentiable function of inputs and weights. The
    rule differentiates with respect to α, and only where a gradient is asked for: the angles of frozen weights, or of
    inputs that need no gradient, cost no circuit. Rows of angles that are equal up to rounding are evaluated once and
    share their samples, unless ``dedupe`` is off. Programs on the same estimator share jobs.

    Args:
        circuit: A circuit that the estimator accepts (transpiled where that is needed).
        observables: Operators on its qubits.
        input_params: Parameters that carry data, in the order of the input's last axis.
        weight_params: Trainable parameters, in the order of the weights' last axis.
        estimator: Any ``BaseEstimatorV2``.
        precision: Target standard error; 0 asks for exact values.
        gradient: Which circuits the backward pass runs; the parameter-shift rule by default.
        max_pub_size: Largest number of parameter sets in one PUB, or None for no limit. More make several PUBs.
        dedupe: Whether equal rows are evaluated once.
        source: What the circuit was transpiled from, as :func:`source_of` tells it, or None where that does not matter.
        tiling: Where rows are evaluated side by side, for a circuit that is not transpiled; None for one at a time.

    Attributes:
        outside: How many mitigated values lay outside their observables' bounds.
        tiles: How many rows were evaluated on which qubits of a device, where they were evaluated side by side.

    Raises:
        CircuitError: For a parametric gate without a shift rule or a definition that leads to one.
    """

    def __init__(
        self,
        circuit: QuantumCircuit,
        observables: Sequence[BaseOperator],
        *,
        input_params: Sequence[Any],
        weight_params: Sequence[Any],
        estimator: BaseEstimatorV2,
        precision: float,
        gradient: DifferenceRule | None = None,
        max_pub_size: int | None = None,
        dedupe: bool = True,
        source: str | None = None,
        tiling: Tiling | None = None,
    ) -> None:
        super().__init__()
        self.circuit, self.params, expressions = unroll(circuit)
        self.angles = AngleMap(expressions, [*input_params, *weight_params])
        self.of_inputs, self.of_weights = (
            np.array([not angle.parameters.isdisjoint(params) for angle in expressions], dtype=bool)
            for params in (input_params, weight_params)
        )
        self.observables = ObservablesArray.coerce(list(observables)).reshape(-1, 1)  # a column against the bindings
        self.estimator, self.precision, self.max_pub_size = estimator, precision, max_pub_size
        self.bounds, self.outside = bounds(self.observables).ravel(), 0  # (M,)
        self.gradient = ParameterShift() if gradient is None else gradient
        self.dedupe, self.source, self.tiling = dedupe, source, tiling
        self.tiles: Counter[Tile] = Counter()
        if tiling is not None:
            tiling.places(self.circuit)  # raises for a circuit that cannot be transpiled

    @property
    def job_key(self) -> tuple[int, float, bool]:
        """The estimator, the precision and whether rows are evaluated side by side."""
        return id(self.estimator), self.precision, self.tiling is not None

    @staticmethod
    @torch.compiler.disable  # a job is no part of a graph
    def together(calls: Sequence[Call]) -> list[Tensor]:
        """Return expectations, each of shape ``(..., B, M)``; calls as for :class:`StatevectorProgram`."""
        parts, angles = zip(*(cast(PubProgram, program).part(*pair) for program, *pair in calls), strict=True)
        found = _Expectations.apply(parts, *angles)  # each (N, M)
        tables = (values.reshape(*part.lead, values.shape[-1]) for part, values in zip(parts, found, strict=True))
        return [
            part.program.differentiable(table.to(inputs), inputs, weights)
            for part, table, (_, inputs, weights) in zip(parts, tables, calls, strict=True)
        ]

    def part(self, inputs: Tensor, weights: Tensor) -> tuple[_Part, Tensor]:
        """Return this program's part in a job, and the angles α, shape ``(N, K)``."""
        lead = torch.broadcast_shapes(inputs.shape[:-1], (*weights.shape[:-1], 1))
        both = torch.cat([inputs.expand(*lead, -1), weights.unsqueeze(-2).expand(*lead, -1)], -1)
        self.angles.leave_meta(both)
        every = transforms()  # inside them requires_grad is not visible
        wanted = self.of_inputs & (every or inputs.requires_grad) | self.of_weights & (every or weights.requires_grad)
        tolerance = min(_ROUNDING * torch.finfo(inputs.dtype).eps, _LARGEST) if self.dedupe else None
        source = None
        if self.source is not None and not every:
            source = source_of_rows(self.source, _array(both), tolerance)
        return _Part(self, lead, wanted, tolerance, source), self.angles(both).flatten(0, -2)

    def differentiable(self, values: Tensor, inputs: Tensor, weights: Tensor) -> Tensor:
        """Return ``values``, whose gradient goes to inputs and weights."""
        return values  # through the angles

    def pubs(self, angles: np.ndarray, source: str | None = None) -> list[tuple]:
        """Return the PUBs that evaluate angles of shape ``(N, K)``, which say what they are of if that is known."""
        size = self._size(len(angles))
        parts = [angles[start : start + size] for start in range(0, len(angles), size)]
        params, circuit = tuple(self.params), self.circuit
        if source is not None and self.tiling is None:
            circuit = circuit.copy()
            circuit.metadata = {**(circuit.metadata or {}), SOURCE: source}
        return [(circuit, self.observables, *([{params: part}] if params else [])) for part in parts]

    def _size(self, count: int) -> int:
        """Return how many of ``count`` rows go into one PUB; a circuit without parameters needs one PUB per row."""
        return (self.max_pub_size or max(1, count)) if self.params else 1

    def values(self, results: Sequence[Any], count: int, where: str, mitigated: bool) -> np.ndarray:
        """Return expectations, shape ``(N, M)``, from the results of the PUBs of N rows of angles.

        Raises:
            BackendError: For values of another shape, or that no state gives.
        """
        size = self._size(count)
        parts = [np.zeros((0, self.observables.size))]
        for start, result in zip(range(0, count, size), results, strict=True):
            parts.append(evs_of(result, (self.observables.size, min(size, count - start)), where).T)
            self.tiles.update(map(tuple, (result.metadata.get(TILES, ()) if self.tiling is not None else ())))
        table = np.concatenate(parts)
        self.outside += check_values(table, self.bounds, self.precision, where, mitigated=mitigated)
        return table


class SimulatedGradient(PubProgram):
    """Values from an estimator with the gradients of another program, which cost no circuit.

    Args:
        circuit: As for :class:`PubProgram`.
        observables: As for :class:`PubProgram`.
        exact: Gives the gradients: a differentiable program of the same inputs and weights.
        options: As for :class:`PubProgram`.
    """

    def __init__(
        self, circuit: QuantumCircuit, observables: Sequence[BaseOperator], *, exact: nn.Module, **options: Any
    ) -> None:
        super().__init__(circuit, observables, **options)
        self.exact = exact

    def part(self, inputs: Tensor, weights: Tensor) -> tuple[_Part, Tensor]:
        """Return this program's part in a job, without a derivative, and the angles α, shape ``(N, K)``."""
        return super().part(inputs.detach(), weights.detach())

    def differentiable(self, values: Tensor, inputs: Tensor, weights: Tensor) -> Tensor:
        """Return ``values`` with the gradient of the other program."""
        return with_gradient_of(self.exact(inputs, weights), values) if torch.is_grad_enabled() else values


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().double().numpy()


def expectations(
    programs: Sequence[PubProgram], angles: Sequence[np.ndarray], sources: Sequence[str | None] | None = None
) -> list[np.ndarray]:
    """Return expectations, each of shape ``(N, M)``, of angles of shapes ``(N, K)``, from one job of the estimator.

    Raises:
        BackendError: For other numbers of values than were asked for, or values that no state gives.
    """
    pubs = [
        program.pubs(rows, source)
        for program, rows, source in zip(programs, angles, sources or [None] * len(angles), strict=True)
    ]
    every = [pub for some in pubs for pub in some]
    first, where = programs[0], type(programs[0].estimator).__name__
    tiled = None
    if first.tiling is not None:
        told = [source for source, some in zip(sources or [None] * len(pubs), pubs, strict=True) for _ in some]
        tiled = first.tiling.tiled([EstimatorPub.coerce(pub, first.precision) for pub in every], told)
        every = tiled.pubs
    found: Any = first.estimator.run(every, precision=first.precision).result() if every else ()
    results, where, mitigated = results_of(found, len(every), first.precision, where)
    if tiled is not None:
        results = iter(tiled.split(list(results)))
    return [
        program.values(list(islice(results, len(some))), len(rows), where, mitigated)
        for program, some, rows in zip(programs, pubs, angles, strict=True)
    ]


@dataclass(frozen=True)
class _Part:
    """A program's part in a job.

    Attributes:
        program: The program.
        lead: The shape ``(..., B)`` of its rows.
        wanted: Which of its angles need a derivative, shape ``(K,)``.
        tolerance: Differences up to which angles count as equal, or None to evaluate every row separately.
        source: What is evaluated, the same on every device, or None where that does not matter.
    """

    program: PubProgram
    lead: torch.Size
    wanted: np.ndarray
    tolerance: float | None
    source: str | None


class _Expectations(torch.autograd.Function):
    """Values and vector–Jacobian products with respect to gate angles, of several programs on one estimator."""

    @staticmethod
    def forward(parts: Sequence[_Part], *angles: Tensor) -> tuple[Tensor, ...]:
        rows, which = zip(
            *(unique_rows(_array(each), part.tolerance) for part, each in zip(parts, angles, strict=True)), strict=True
        )
        tables = expectations([part.program for part in parts], rows, [part.source for part in parts])
        return tuple(
            torch.from_numpy(table[at]).to(each) for table, at, each in zip(tables, which, angles, strict=True)
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.parts, *angles = inputs
        ctx.save_for_backward(*angles)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if not transforms() and not all(map(torch._C._has_storage, grads)):
            raise BackendError(
                "Several gradients of an estimator's values were asked for at once (vectorize=True or "
                "is_grads_batched=True), as tensors that cannot be read. Use vectorize=False or torch.func.jacrev."
            )
        return None, *_Products.apply(ctx.parts, *ctx.saved_tensors, *grads)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> None:
        raise BackendError(
            "Forward-mode derivatives of an estimator's values were asked for; gradient rules that run circuits give "
            "reverse mode only. Use backward, torch.func.grad or jacrev, an exact backend, or gradient=simulated."
        )

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], parts: Sequence[_Part], *angles: Tensor) -> tuple[Any, Any]:
        return _below_one_another(_Expectations, info.batch_size, in_dims[1:], parts, angles)


class _Products(torch.autograd.Function):
    """Vector–Jacobian products of :class:`_Expectations`."""

    @staticmethod
    def forward(parts: Sequence[_Part], *tensors: Tensor) -> tuple[Tensor, ...]:
        angles, grads = tensors[: len(parts)], tensors[len(parts) :]
        products = [
            VectorJacobian(part.program.gradient, _array(each), _array(grad), part.wanted, part.tolerance)
            for part, each, grad in zip(parts, angles, grads, strict=True)
        ]
        tables = expectations([part.program for part in parts], [product.angles for product in products])
        return tuple(
            torch.from_numpy(product.product(table)).to(each)
            for product, table, each in zip(products, tables, angles, strict=True)
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> None:
        raise BackendError(
            "Values of an estimator were differentiated twice; gradient rules that run circuits give first "
            "derivatives only. Use an exact backend such as statevector, or gradient=simulated."
        )

    jvp = backward

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], parts: Sequence[_Part], *tensors: Tensor) -> tuple[Any, Any]:
        return _below_one_another(_Products, info.batch_size, in_dims[1:], parts, tensors)


def _below_one_another(
    function: type[torch.autograd.Function],
    size: int,
    in_dims: Sequence[int | None],
    parts: Sequence[_Part],
    tensors: Sequence[Tensor],
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """Return what a function of rows gives for all ``size`` samples of a vmap, as one table, and their axis in it."""
    rows = (
        tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        for tensor, dim in zip(tensors, in_dims, strict=True)
    )
    found = function.apply(parts, *(each.flatten(0, 1) for each in rows))
    return tuple(table.unflatten(0, (size, len(table) // size)) for table in found), (0,) * len(found)
