"""Jobs of programs on estimators: their values, and vector–Jacobian products by the programs' gradient rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from qiskit.primitives import BaseEstimatorV2
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from torch import Tensor

from qiskit_qattn.backends.gradients import DifferenceRule, VectorJacobian, unique_rows
from qiskit_qattn.backends.jobs.request import Request
from qiskit_qattn.backends.tiling import Tiling
from qiskit_qattn.backends.values import Answer, results_of
from qiskit_qattn.errors import BackendError
from qiskit_qattn.simulation.derivatives import transforms

Found = tuple[np.ndarray, Answer]


class Measured(Protocol):
    """What a job needs to know of a program whose angles it evaluates."""

    estimator: BaseEstimatorV2
    precision: float
    gradient: DifferenceRule
    tiling: Tiling | None
    answer: Answer

    @property
    def job_key(self) -> tuple[int, float, bool]:
        """The same for programs that share jobs."""

    def pubs(self, angles: np.ndarray, source: str | None = None) -> list[tuple]:
        """Return the PUBs that evaluate angles, shape ``(N, K)``."""

    def values(self, results: Sequence[Any], count: int, where: str, mitigated: bool) -> Found:
        """Return expectations, shape ``(N, M)``, from the results of the PUBs of N rows of angles."""


class _Job:
    """What programs with the same ``job_key`` ask of their estimator."""

    def __init__(
        self, programs: Sequence[Measured], angles: Sequence[np.ndarray], sources: Sequence[str | None]
    ) -> None:
        self._programs, self._angles = programs, angles
        self._pubs = [
            program.pubs(rows, source) for program, rows, source in zip(programs, angles, sources, strict=True)
        ]
        self._estimator, self._precision = programs[0].estimator, programs[0].precision
        self.pubs: list[Any] = [pub for some in self._pubs for pub in some]
        self._tiled = None
        if (tiling := programs[0].tiling) is not None:
            told = [source for source, some in zip(sources, self._pubs, strict=True) for _ in some]
            self._tiled = tiling.tiled([EstimatorPub.coerce(pub, self._precision) for pub in self.pubs], told)
            self.pubs = self._tiled.pubs
        self._sent: Any = None

    def held(self, *, cached: bool = True) -> bool:
        estimator: Any = self._estimator
        if not (hasattr(estimator, "ledger") and self.pubs):
            return False
        device = estimator.device
        request = Request.of(self.pubs, self._precision, device.name, device.settings)
        try:
            return estimator.ledger.answers(request.key, cached=cached and estimator.cache)
        except BackendError:
            return not cached

    def send(self) -> None:
        if self._sent is None and self.pubs:
            self._sent = self._estimator.run(self.pubs, precision=self._precision)

    def tables(self) -> list[Found]:
        found = self._sent.result() if self.pubs else ()
        where = type(self._estimator).__name__
        results, where, mitigated = results_of(found, len(self.pubs), self._precision, where)
        if self._tiled is not None:
            results = iter(self._tiled.split(list(results)))
        return [
            program.values(list(islice(results, len(some))), len(rows), where, mitigated)
            for program, some, rows in zip(self._programs, self._pubs, self._angles, strict=True)
        ]


class Jobs:
    """What programs ask of their estimators: one job per estimator and precision, all sent before one is waited for.

    Args:
        programs: The programs.
        angles: The angles of each program, shapes ``(N, K)``.
        sources: What each evaluates, the same on every device, or None.
    """

    def __init__(
        self,
        programs: Sequence[Measured],
        angles: Sequence[np.ndarray],
        sources: Sequence[str | None] | None = None,
    ) -> None:
        self._members: dict[tuple[int, float, bool], list[int]] = {}
        for i, program in enumerate(programs):
            self._members.setdefault(program.job_key, []).append(i)
        every = sources or [None] * len(angles)
        self._jobs = [
            _Job([programs[i] for i in some], [angles[i] for i in some], [every[i] for i in some])
            for some in self._members.values()
        ]

    def held(self, *, cached: bool = True) -> bool:
        """Return whether a ledger has any of them: on its way or, with ``cached``, with a result.

        Where the ledger does not say, a job may be on its way.
        """
        return any(job.held(cached=cached) for job in self._jobs)

    @property
    def pubs(self) -> list[Any]:
        """The PUBs of all of them, as they are sent."""
        return [pub for job in self._jobs for pub in job.pubs]

    def send(self) -> None:
        """Send those that were not sent."""
        for job in self._jobs:
            job.send()

    def tables(self) -> list[Found]:
        """Return expectations, each of shape ``(N, M)``, and what was said of them, waiting for the jobs.

        Raises:
            BackendError: For other numbers of values than were asked for, or values that no state gives.
        """
        self.send()
        found: dict[int, Found] = {}
        for job, some in zip(self._jobs, self._members.values(), strict=True):
            found |= zip(some, job.tables(), strict=True)
        return [found[i] for i in range(len(found))]


def array_of(tensor: Tensor) -> np.ndarray:
    """Return a tensor's numbers in double precision."""
    return tensor.detach().cpu().double().numpy()


@dataclass(frozen=True)
class Part:
    """A program's part in a job.

    Attributes:
        program: The program.
        wanted: Which of its angles need a derivative, shape ``(K,)``.
        tolerance: Differences up to which angles count as equal, or None to evaluate every row separately.
        source: What is evaluated, the same on every device, or None where that does not matter.
        table: The expectations of its distinct rows, shape ``(U, M)``, where they were measured already.
        answer: What the estimator said of them then.
    """

    program: Measured
    wanted: np.ndarray
    tolerance: float | None
    source: str | None
    table: np.ndarray | None = None
    answer: Answer = field(default_factory=Answer)

    def rows(self, angles: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Return the distinct rows of angles, shape ``(N, K)``, and which of them each row is."""
        return unique_rows(array_of(angles), self.tolerance)


def differentiable(parts: Sequence[Part], angles: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the expectations of each part, shape ``(N, M)``, measured unless they were, with gradients to its angles.

    Args:
        parts: Parts in jobs of one or several estimators.
        angles: The angles of each part, shape ``(N, K)``.
    """
    return _Expectations.apply(parts, *angles)


class _Expectations(torch.autograd.Function):
    """Values and vector–Jacobian products with respect to gate angles, of several programs."""

    @staticmethod
    def forward(parts: Sequence[Part], *angles: Tensor) -> tuple[Tensor, ...]:
        rows, which = zip(*(part.rows(each) for part, each in zip(parts, angles, strict=True)), strict=True)
        new = [i for i, part in enumerate(parts) if part.table is None]
        some = Jobs([parts[i].program for i in new], [rows[i] for i in new], [parts[i].source for i in new]).tables()
        measured = dict(zip(new, some, strict=True))
        found = [measured[i] if part.table is None else (part.table, part.answer) for i, part in enumerate(parts)]
        tables = [table for table, _ in found]
        for part, (_, answer), at in zip(parts, found, which, strict=True):
            part.program.answer = answer.rows(at)
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
    def vmap(info: Any, in_dims: tuple[Any, ...], parts: Sequence[Part], *angles: Tensor) -> tuple[Any, Any]:
        return _below_one_another(_Expectations, info.batch_size, in_dims[1:], parts, angles)


class _Products(torch.autograd.Function):
    """Vector–Jacobian products of :class:`_Expectations`."""

    @staticmethod
    def forward(parts: Sequence[Part], *tensors: Tensor) -> tuple[Tensor, ...]:
        angles, grads = tensors[: len(parts)], tensors[len(parts) :]
        products = [
            VectorJacobian(part.program.gradient, array_of(each), array_of(grad), part.wanted, part.tolerance)
            for part, each, grad in zip(parts, angles, grads, strict=True)
        ]
        found = Jobs([part.program for part in parts], [product.angles for product in products]).tables()
        return tuple(
            torch.from_numpy(product.product(table)).to(each)
            for product, (table, _), each in zip(products, found, angles, strict=True)
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
    def vmap(info: Any, in_dims: tuple[Any, ...], parts: Sequence[Part], *tensors: Tensor) -> tuple[Any, Any]:
        return _below_one_another(_Products, info.batch_size, in_dims[1:], parts, tensors)


def _below_one_another(
    function: type[torch.autograd.Function],
    size: int,
    in_dims: Sequence[int | None],
    parts: Sequence[Part],
    tensors: Sequence[Tensor],
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """Return what a function of rows gives for all ``size`` samples of a vmap, as one table, and their axis in it."""
    rows = (
        tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        for tensor, dim in zip(tensors, in_dims, strict=True)
    )
    found = function.apply(parts, *(each.flatten(0, 1) for each in rows))
    return tuple(table.unflatten(0, (size, len(table) // size)) for table in found), (0,) * len(found)
