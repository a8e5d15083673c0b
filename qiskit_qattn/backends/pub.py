"""Circuits on any Estimator: one job of broadcast PUBs forward and one backward, shared by any number of programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from qiskit import QuantumCircuit
from qiskit.primitives import BaseEstimatorV2
from qiskit.primitives.containers.observables_array import ObservablesArray
from qiskit.quantum_info.operators.base_operator import BaseOperator
from torch import Tensor, nn

from qiskit_qattn.backends.gradients import DifferenceRule, ParameterShift, Simulated
from qiskit_qattn.backends.jobs.request import SOURCE, source_of, source_of_rows
from qiskit_qattn.backends.joint import Call, JointProgram, not_compiled
from qiskit_qattn.backends.pub_jobs import Found, Jobs, Part, array_of, differentiable
from qiskit_qattn.backends.registry import Backend
from qiskit_qattn.backends.tiling import TILES, Tile, Tiling
from qiskit_qattn.backends.unroll import unroll
from qiskit_qattn.backends.values import Answer, bounds, check_values, evs_of
from qiskit_qattn.forks import cached_property
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
        "precision": backend.precision_for(circuit),
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
        answer: What the estimator said besides the values of the last call.
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
        self.answer, self.tiles = Answer(), Counter[Tile]()
        if tiling is not None:
            tiling.places(self.circuit)  # raises for a circuit that cannot be transpiled

    @property
    def job_key(self) -> tuple[int, float, bool]:
        """The estimator, the precision and whether rows are evaluated side by side."""
        return id(self.estimator), self.precision, self.tiling is not None

    @staticmethod
    @not_compiled
    def together(calls: Sequence[Call]) -> list[Tensor]:
        """Return expectations, each of shape ``(..., B, M)``; calls as for :class:`StatevectorProgram`."""
        return values_of([Evaluation(calls)])[0]

    def part(self, inputs: Tensor, weights: Tensor) -> tuple[Part, Tensor]:
        """Return this program's part in a job, and the angles α, shape ``(N, K)``."""
        lead = torch.broadcast_shapes(inputs.shape[:-1], (*weights.shape[:-1], 1))
        both = torch.cat([inputs.expand(*lead, -1), weights.unsqueeze(-2).expand(*lead, -1)], -1)
        self.angles.leave_meta(both)
        every = transforms()  # inside them requires_grad is not visible
        wanted = self.of_inputs & (every or inputs.requires_grad) | self.of_weights & (every or weights.requires_grad)
        tolerance = min(_ROUNDING * torch.finfo(inputs.dtype).eps, _LARGEST) if self.dedupe else None
        source = None
        if self.source is not None and not every:
            source = source_of_rows(self.source, array_of(both), tolerance)
        return Part(self, wanted, tolerance, source), self.angles(both).flatten(0, -2)

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

    def values(self, results: Sequence[Any], count: int, where: str, mitigated: bool) -> Found:
        """Return expectations, shape ``(N, M)``, from the results of the PUBs of N rows of angles, as checked."""
        size = self._size(count)
        parts = [np.zeros((0, self.observables.size))]
        for start, result in zip(range(0, count, size), results, strict=True):
            parts.append(evs_of(result, (self.observables.size, min(size, count - start)), where).T)
            self.tiles.update(map(tuple, (result.metadata.get(TILES, ()) if self.tiling is not None else ())))
        table = np.concatenate(parts)
        self.outside += check_values(table, self.bounds, self.precision, where, mitigated=mitigated)
        return table, Answer.of(results, self.observables.size, count)


class SimulatedGradient(PubProgram):
    """Values from an estimator with the gradients of another program, which cost no circuit.

    Args:
        circuit, observables, options: As for :class:`PubProgram`.
        exact: Gives the gradients: a differentiable program of the same inputs and weights.
    """

    def __init__(
        self, circuit: QuantumCircuit, observables: Sequence[BaseOperator], *, exact: nn.Module, **options: Any
    ) -> None:
        super().__init__(circuit, observables, **options)
        self.exact = exact

    def part(self, inputs: Tensor, weights: Tensor) -> tuple[Part, Tensor]:
        """Return this program's part in a job, without a derivative, and the angles α, shape ``(N, K)``."""
        return super().part(inputs.detach(), weights.detach())

    def differentiable(self, values: Tensor, inputs: Tensor, weights: Tensor) -> Tensor:
        """Return ``values`` with the gradient of the other program."""
        return with_gradient_of(self.exact(inputs, weights), values) if torch.is_grad_enabled() else values


class Evaluation:
    """Calls of programs, whose jobs can be sent before they are waited for.

    Args:
        calls: Programs, with inputs and weights.

    Attributes:
        calls: As given.
        parts: Each program's part in a job; with its values, once they were measured.
        angles: The angles of each, shape ``(N, K)``.
    """

    def __init__(self, calls: Sequence[Call]) -> None:
        self.calls = calls
        pairs = [cast(PubProgram, program).part(*pair) for program, *pair in calls]
        self.parts, self.angles = [part for part, _ in pairs], [angles for _, angles in pairs]

    @cached_property
    def jobs(self) -> Jobs:
        """What is sent."""
        rows = [part.rows(angles)[0] for part, angles in zip(self.parts, self.angles, strict=True)]
        return Jobs([part.program for part in self.parts], rows, [part.source for part in self.parts])

    def measure(self) -> None:
        """Wait for the values.

        Raises:
            BackendError: If the estimator fails.
        """
        tables = self.jobs.tables()
        self.parts = [
            replace(part, table=table, answer=answer) for part, (table, answer) in zip(self.parts, tables, strict=True)
        ]

    @property
    def answers(self) -> list[Answer]:
        """What the estimators said of each call's rows besides their values, once they were measured."""
        return [part.answer.rows(part.rows(angles)[1]) for part, angles in zip(self.parts, self.angles, strict=True)]


def values_of(evaluations: Sequence[Evaluation]) -> list[list[Tensor]]:
    """Return the expectations of each call, shape ``(..., B, M)``; those that were not measured yet are now.

    Their backward pass sends a job to each estimator, and then waits.
    """
    parts = [part for each in evaluations for part in each.parts]
    angles = [angles for each in evaluations for angles in each.angles]
    found = iter(differentiable(parts, angles))  # each (N, M)
    return [[_values(call, next(found)) for call in each.calls] for each in evaluations]


def _values(call: Call, table: Tensor) -> Tensor:
    """Return a call's expectations, shape ``(..., B, M)``, from those of its rows, shape ``(N, M)``."""
    program, inputs, weights = call
    lead = torch.broadcast_shapes(inputs.shape[:-1], (*weights.shape[:-1], 1))
    values = table.reshape(*lead, table.shape[-1]).to(inputs)
    return cast(PubProgram, program).differentiable(values, inputs, weights)
