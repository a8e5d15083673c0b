"""Estimators that run in this process: their common base, and the torch engines as a Qiskit primitive."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, Protocol, cast

import numpy as np
import torch
from qiskit.primitives import BaseEstimatorV2, DataBin, PrimitiveJob, PrimitiveResult, PubResult
from qiskit.primitives.containers.estimator_pub import EstimatorPub, EstimatorPubLike
from qiskit.quantum_info import SparseObservable, SparsePauliOp
from torch import Tensor, nn

from qiskit_qattn.errors import ConfigError
from qiskit_qattn.simulation.cache import ResultPool, circuit_content
from qiskit_qattn.simulation.constants import constant_bytes
from qiskit_qattn.simulation.cutting import in_use
from qiskit_qattn.simulation.statevector import StatevectorProgram

_OUTCOMES = 2**22  # probabilities that are computed together: 32 MiB, a few times over


class Program(Protocol):
    """What an engine builds from a circuit."""

    bases: tuple[str, ...]
    num_qubits: int
    signs: Tensor

    def __call__(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """Return expectations."""

    def probabilities(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """Return the probabilities of all outcomes in all bases."""

    def double(self) -> Program:
        """Convert to double precision and return itself."""

    def modules(self) -> Iterator[nn.Module]:
        """Yield the program and its parts, whose constants take memory."""


class LocalEstimator(BaseEstimatorV2):
    """A ``BaseEstimatorV2`` whose jobs run in this process.

    Args:
        default_precision: Precision of runs that specify none; 0 for exact values.
        seed: Seed of the sampling. Successive runs continue one stream of random numbers, so noise is never repeated.
    """

    def __init__(self, *, default_precision: float = 0.0, seed: int | None = None) -> None:
        self._default_precision = default_precision
        self._rng = np.random.default_rng(seed)

    @property
    def default_precision(self) -> float:
        """Precision of runs that specify none."""
        return self._default_precision

    def run(self, pubs: Iterable[EstimatorPubLike], *, precision: float | None = None) -> PrimitiveJob[Any]:
        """Evaluate PUBs.

        Args:
            pubs: Tuples of circuit, observables, parameter values and, optionally, precision.
            precision: Precision of the PUBs that specify none.

        Raises:
            ConfigError: For a negative precision.
            QattnError: (from the job) for PUBs that the estimator cannot evaluate.
        """
        default = self._default_precision if precision is None else precision
        if not default >= 0:  # NaN included
            raise ConfigError(f"precision must be 0 (exact) or positive, got {default}.")
        coerced = [EstimatorPub.coerce(pub, default) for pub in pubs]
        job: PrimitiveJob[Any] = PrimitiveJob(self._run, coerced)
        job._submit()
        return job

    def _run(self, pubs: list[EstimatorPub]) -> PrimitiveResult[PubResult]:
        return PrimitiveResult(self._evaluate(pubs), metadata={"version": 2})

    @abstractmethod
    def _evaluate(self, pubs: list[EstimatorPub]) -> list[PubResult]:
        """Return the result of each PUB."""


class TorchEstimator(LocalEstimator):
    r"""A ``BaseEstimatorV2`` over a torch engine: one batched evaluation per PUB.

    With precision 0 values are exact. With precision ε > 0 they are means over :math:`\lceil 1/\varepsilon^2 \rceil`
    samples drawn from the outcome distribution of each measurement basis, as a device would give them.

    Programs are cached between runs, at most 32 and 128 MiB of constants. A circuit edited in place gets a new program.

    Args:
        engine: Builds a program from a circuit: :class:`StatevectorProgram`, the default, or a :class:`NoisyEngine`.
            Programs of another engine are cached if it has a method ``settings`` that returns a hashable key of
            everything they depend on besides their arguments.
        default_precision: Precision of runs that specify none.
        seed: Seed of the sampling. Successive calls continue one stream of random numbers, so noise is never repeated.

    Raises:
        CircuitError: (from a job) for circuits the engine cannot simulate.
    """

    def __init__(
        self,
        engine: Callable[..., Any] = StatevectorProgram,
        *,
        default_precision: float = 0.0,
        seed: int | None = None,
    ) -> None:
        super().__init__(default_precision=default_precision, seed=seed)
        self.engine = engine
        self._programs = ResultPool[Program]()

    def _evaluate(self, pubs: list[EstimatorPub]) -> list[PubResult]:
        contents: dict[int, Hashable | None] = {}
        return [self._run_pub(pub, contents) for pub in pubs]

    def _run_pub(self, pub: EstimatorPub, contents: dict[int, Hashable | None]) -> PubResult:
        terms = [tuple(sorted(observable.items())) for observable in pub.observables.ravel().tolist()]
        unique = list(dict.fromkeys(terms))
        if id(pub.circuit) not in contents:  # PUBs of one run often share a circuit
            contents[id(pub.circuit)] = circuit_content(pub.circuit)
        content, settings = contents[id(pub.circuit)], self._settings()
        key = None if content is None or settings is None else (settings, content, tuple(unique), pub.precision > 0)
        program = None if key is None else self._programs.take(key)
        if program is None:
            circuit, observables = pub.circuit, [operator_of_terms(observable) for observable in unique]
            if self.engine is StatevectorProgram:  # sampled, it would compute the outcomes of idle qubits too
                circuit, observables = in_use(circuit, observables)
            program = self.engine(
                circuit, observables, input_params=list(pub.circuit.parameters), all_outcomes=pub.precision > 0
            ).double()
        result = self._result(pub, program, terms, unique)
        if key is not None:
            self._programs.give(key, program, constant_bytes(cast(nn.Module, program)))
        return result

    def _settings(self) -> Hashable | None:
        """Return what the engine's programs depend on besides their arguments, or None if the engine does not say."""
        if self.engine is StatevectorProgram:
            return StatevectorProgram
        settings = getattr(self.engine, "settings", None)
        return None if settings is None else (type(self.engine), settings())

    def _result(self, pub: EstimatorPub, program: Program, terms: list[Any], unique: list[Any]) -> PubResult:
        """Return a PUB's result; ``unique`` are its distinct observables, in the program's order."""
        params = list(pub.circuit.parameters)
        values = pub.parameter_values.as_array(params)  # (*shape, P)
        flat = torch.from_numpy(values.reshape(int(np.prod(values.shape[:-1])), len(params)))  # (N, P)
        with torch.no_grad():
            if pub.precision == 0:
                table, errors = program(flat, flat.new_zeros(0)).numpy(), None
            else:
                table, errors = self._sample(program, flat, pub.precision)
        rows = np.arange(len(flat)).reshape(values.shape[:-1])
        columns = np.array([unique.index(term) for term in terms], dtype=int).reshape(pub.observables.shape)
        rows, columns = np.broadcast_arrays(rows, columns)
        evs = table[rows, columns]
        stds = np.zeros_like(evs) if errors is None else errors[rows, columns]
        metadata = {"target_precision": pub.precision, "circuit_metadata": pub.circuit.metadata}
        if errors is not None:
            metadata["shots"] = _shots(pub.precision)
        return PubResult(DataBin(evs=evs, stds=stds, shape=pub.shape), metadata=metadata)

    def _sample(self, program: Program, inputs: torch.Tensor, precision: float) -> tuple[Any, Any]:
        """Return sampled means and their standard errors, each of shape ``(N, M)``."""
        shots = _shots(precision)
        bases, size = len(program.bases), 2**program.num_qubits
        signs = program.signs.numpy().reshape(bases, size, -1)
        found = []
        for rows in inputs.split(max(1, _OUTCOMES // (bases * size))):
            probabilities = program.probabilities(rows, inputs.new_zeros(0)).numpy().reshape(-1, bases, size)
            probabilities = probabilities / probabilities.sum(-1, keepdims=True)
            frequencies = self._rng.multinomial(shots, probabilities) / shots  # (N, bases, 2**n)
            means = np.einsum("nbi,bim->nbm", frequencies, signs)
            squares = np.einsum("nbi,bim->nbm", frequencies, signs**2)
            found.append((means.sum(1), np.clip(squares - means**2, 0, None).sum(1) / shots))
        means, variances = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return means, np.sqrt(variances)


def _shots(precision: float) -> int:
    """Return the samples per basis that reach a standard error of at most ``precision`` for a Pauli string."""
    return math.ceil(1 / precision**2)


def operator_of_terms(terms: tuple[tuple[str, float], ...]) -> SparsePauliOp:
    """Return an observable given as pairs of a label, projectors such as ``0`` and ``+`` included, and a factor."""
    return SparsePauliOp.from_sparse_observable(SparseObservable.from_list(list(terms)).as_paulis())
