"""Samplers that run in this process: their common base, which joins equal circuits, and the torch engines as one."""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from qiskit import QuantumCircuit
from qiskit.primitives import BaseSamplerV2, BitArray, DataBin, PrimitiveJob, PrimitiveResult, SamplerPubResult
from qiskit.primitives.containers.bindings_array import BindingsArray
from qiskit.primitives.containers.sampler_pub import SamplerPub, SamplerPubLike
from qiskit.quantum_info import SparsePauliOp

from qiskit_qattn.errors import CircuitError
from qiskit_qattn.simulation.cutting import Cut, cut, without_final_measurements
from qiskit_qattn.simulation.decomposition import transpiled
from qiskit_qattn.simulation.gates import standard_name
from qiskit_qattn.simulation.statevector import StatevectorProgram

SHOTS = 1024  # where neither a run nor the sampler says, as of Qiskit's own samplers


def coerced(pubs: Iterable[SamplerPubLike], shots: int) -> list[SamplerPub]:
    """Return PUBs with shots; a circuit without classical registers gives Qiskit's warning.

    Warns:
        UserWarning: For a circuit that has no classical register, so that its result is empty.
    """
    found = [SamplerPub.coerce(pub, shots) for pub in pubs]
    if any(not pub.circuit.cregs for pub in found):
        warnings.warn(
            "One of your circuits has no output classical registers and so the result will be empty. Did you mean to "
            "add measurement instructions?",
            UserWarning,
            stacklevel=3,
        )
    return found


def rows_of(pub: SamplerPub) -> np.ndarray:
    """Return a PUB's parameter sets, shape ``(R, P)``, in the order of its circuit's parameters."""
    params = list(pub.circuit.parameters)
    return pub.parameter_values.as_array(params).reshape(math.prod(pub.shape), len(params))


class MergedPubs:
    """PUBs of the same circuit and shots as one PUB, of shape ``(R,)``, and its results as theirs.

    One without parameters has shape ``()``: primitives differ in what more rows of it mean.

    Args:
        given: The PUBs.
        dedupe: Whether equal rows of parameters are measured once, and so share their samples.

    Attributes:
        pubs: What is run.

    Raises:
        CircuitError: For parameter values that are not finite, on which simulators hang or make outcomes up.
    """

    def __init__(self, given: Sequence[SamplerPub], *, dedupe: bool) -> None:
        self._given, self.pubs = list(given), list[SamplerPub]()
        self._rows: list[list[tuple[int, int]]] = []  # of each given PUB: which PUB has each of its rows, and where
        groups: dict[tuple[int, int], list[int]] = {}
        for index, pub in enumerate(given):
            groups.setdefault((id(pub.circuit), pub.shots), []).append(index)
            self._rows.append([])
        for members in groups.values():
            self._merge(members, dedupe)

    def _merge(self, members: Sequence[int], dedupe: bool) -> None:
        first = self._given[members[0]]
        circuit, shots, order = first.circuit, first.shots, list(first.circuit.parameters)
        sizes = [math.prod(self._given[index].shape) for index in members]
        if not order:
            start, count = len(self.pubs), 1 if dedupe else sum(sizes)
            self.pubs += [SamplerPub(circuit, BindingsArray(), shots)] * (count if sum(sizes) else 0)
            places = [(start, 0) if dedupe else (start + row, 0) for row in range(sum(sizes))]
        else:
            table = np.concatenate([rows_of(self._given[index]) for index in members])  # (R, P)
            if not np.isfinite(table).all():
                raise CircuitError(f"Parameter values must be finite, got {table[~np.isfinite(table)][0]}.")
            where = np.arange(len(table))
            if dedupe and len(table):
                table, where = np.unique(table, axis=0, return_inverse=True)
            places = [(len(self.pubs), int(row)) for row in where.reshape(-1)]
            if len(table):
                self.pubs.append(SamplerPub(circuit, BindingsArray({tuple(order): table}, shape=(len(table),)), shots))
        for index, size in zip(members, sizes, strict=True):
            self._rows[index], places = places[:size], places[size:]

    def split(self, results: Sequence[Any]) -> list[SamplerPubResult]:
        """Return the result of each PUB that was given, with its circuit's metadata and shots."""
        return [self._part(pub, rows, results) for pub, rows in zip(self._given, self._rows, strict=True)]

    def _part(self, pub: SamplerPub, rows: Sequence[tuple[int, int]], results: Sequence[Any]) -> SamplerPubResult:
        registers = {}
        for register in pub.circuit.cregs:
            found = [results[number].data[register.name].array for number, _ in rows]
            some = [array if array.ndim == 2 else array[row] for array, (_, row) in zip(found, rows, strict=True)]
            kept = min((len(each) for each in some), default=pub.shots)  # a device may lose a few samples
            table = np.array([each[:kept] for each in some], dtype=np.uint8)
            shape = (*pub.shape, kept, -(-register.size // 8))
            registers[register.name] = BitArray(table.reshape(shape), register.size)
        about = dict(results[rows[0][0]].metadata) if rows else {}
        about |= {"shots": pub.shots, "circuit_metadata": pub.circuit.metadata}
        return SamplerPubResult(DataBin(**registers, shape=pub.shape), metadata=about)


class LocalSampler(BaseSamplerV2):
    """A ``BaseSamplerV2`` whose jobs run in this process.

    Args:
        default_shots: Samples of each circuit where a run gives none.
        seed: Seed of the sampling. Successive runs continue one stream of random numbers, so noise is never repeated.
        dedupe: Whether equal circuits with equal parameters are sampled once, and so share their samples.
    """

    def __init__(self, *, default_shots: int = SHOTS, seed: int | None = None, dedupe: bool = True) -> None:
        self.default_shots, self.dedupe = default_shots, dedupe
        self._rng = np.random.default_rng(seed)

    def run(self, pubs: Iterable[SamplerPubLike], *, shots: int | None = None) -> PrimitiveJob[Any]:
        """Sample the classical registers of PUBs.

        Args:
            pubs: Circuits, or tuples of one, its parameter values and, optionally, shots.
            shots: Samples of each circuit and set of parameters where a PUB gives none.

        Raises:
            QattnError: (from the job) for PUBs that the sampler cannot run.
        """
        job: PrimitiveJob[Any] = PrimitiveJob(self._run, coerced(pubs, self.default_shots if shots is None else shots))
        job._submit()
        return job

    def _run(self, pubs: list[SamplerPub]) -> PrimitiveResult[SamplerPubResult]:
        merged = MergedPubs(pubs, dedupe=self.dedupe)
        found = [SamplerPubResult(DataBin(**self._sample(pub), shape=pub.shape), metadata={}) for pub in merged.pubs]
        return PrimitiveResult(merged.split(found), metadata={"version": 2})

    @abstractmethod
    def _sample(self, pub: SamplerPub) -> Mapping[str, BitArray]:
        """Return the samples of each classical register of a PUB's circuit."""


def drawn(probabilities: np.ndarray, draws: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """Return outcomes, shape ``(R, shots)``, of numbers drawn uniformly, as numpy's ``choice`` takes them.

    Args:
        probabilities: The probability of each outcome, shape ``(R, 2**n)``.
        draws: Numbers in [0, 1), shape ``(R, shots)``.
    """
    cumulated = np.cumsum(probabilities, 1)
    cumulated /= cumulated[:, -1:]
    return np.stack([row.searchsorted(some, "right") for row, some in zip(cumulated, draws, strict=True)])


def counted(probabilities: np.ndarray, draws: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """Return how often each outcome is drawn, shape ``(R, 2**n)``; arguments as for :func:`drawn`."""
    size = probabilities.shape[1]
    return np.stack([np.bincount(row, minlength=size) for row in drawn(probabilities, draws)])


@dataclass(frozen=True)
class Outcomes:
    """A circuit whose classical bits are measured at its end, as samplers of engines take it.

    Attributes:
        circuit: The circuit without its measurements.
        qubits: The qubits that it acts on or measures, in increasing order.
        bits: For each classical bit the qubit that it has, None for one that is never written.
    """

    circuit: QuantumCircuit
    qubits: tuple[int, ...]
    bits: list[int | None]

    @classmethod
    def of(cls, circuit: QuantumCircuit) -> Outcomes:
        """Return it for a circuit.

        Raises:
            CircuitError: For a measurement that is not final, or anything else that uses classical bits.
        """
        bits = {  # the last measurement of a bit counts
            item.clbits[0]: circuit.find_bit(item.qubits[0]).index
            for item in circuit.data
            if standard_name(item.operation) == "measure"
        }
        plain = without_final_measurements(circuit)
        return cls(plain, cut(plain, bits.values()).qubits, [bits.get(bit) for bit in circuit.clbits])

    @property
    def part(self) -> Cut:
        """The circuit on these qubits."""
        return cut(self.circuit, self.qubits)

    def table(self, samples: np.ndarray) -> np.ndarray:
        """Return the classical bits of samples of the qubits, shape ``(R, shots, len(qubits))``, as such a table."""
        column = {qubit: index for index, qubit in enumerate(self.qubits)}
        found = np.zeros((*samples.shape[:2], len(self.bits)), dtype=bool)
        for bit, qubit in enumerate(self.bits):
            if qubit is not None:
                found[..., bit] = samples[..., column[qubit]]
        return found


def registers_of(circuit: QuantumCircuit, table: np.ndarray, shape: tuple[int, ...]) -> dict[str, BitArray]:
    """Return each classical register of a circuit from a table of its classical bits, shape ``(R, shots, bits)``."""
    found = {}
    for register in circuit.cregs:
        where = [circuit.find_bit(bit).index for bit in register]
        packed = BitArray.from_bool_array(table[..., where], order="little").array
        found[register.name] = BitArray(packed.reshape(*shape, *packed.shape[1:]), len(register))
    return found


class TorchSampler(LocalSampler):
    """A ``BaseSamplerV2`` over a torch engine: outcomes drawn from their exact probabilities, one batch per PUB.

    Args:
        engine: Builds a program from a circuit, as for :class:`~qiskit_qattn.simulation.estimator.TorchEstimator`.
        options: The options of :class:`LocalSampler`.

    Raises:
        CircuitError: (from a job) for circuits the engine cannot simulate, measurements before the end among them.
    """

    def __init__(self, engine: Callable[..., Any] = StatevectorProgram, **options: Any) -> None:
        super().__init__(**options)
        self.engine = engine

    def frequencies(self, probabilities: np.ndarray) -> np.ndarray:
        """Return frequencies of outcomes that are drawn from their probabilities, shape ``(R, 2**n)``."""
        draws = self._rng.random((len(probabilities), self.default_shots))
        return counted(probabilities, draws) / self.default_shots

    def _sample(self, pub: SamplerPub) -> Mapping[str, BitArray]:
        manager = getattr(self.engine, "pass_manager", None)
        circuit = pub.circuit if manager is None else transpiled(manager, pub.circuit)
        found = Outcomes.of(circuit)
        params = list(pub.circuit.parameters)
        values = rows_of(pub)  # (R, P)
        probabilities = self._probabilities(found, params, values)  # (R, 2**n)
        outcomes = drawn(probabilities, self._rng.random((len(values), pub.shots)))  # (R, shots)
        samples = (outcomes[..., None] >> np.arange(len(found.qubits))) & 1  # (R, shots, n)
        return registers_of(circuit, found.table(samples.astype(bool)), pub.shape)

    def _probabilities(self, found: Outcomes, params: Sequence[Any], values: np.ndarray) -> np.ndarray:
        """Return the probabilities of the outcomes of the qubits in use, shape ``(R, 2**n)``."""
        if self.engine is StatevectorProgram:
            circuit, where = found.part.circuit, tuple(range(len(found.qubits)))
        else:  # a noisy engine, which cuts circuits itself: noise belongs to the device's qubits
            circuit, where = found.circuit, found.qubits
        label = ["I"] * circuit.num_qubits
        for qubit in where:
            label[-1 - qubit] = "Z"
        engine: Any = self.engine
        if hasattr(engine, "pass_manager"):  # the circuit is transpiled by now
            engine = replace(engine, pass_manager=None)
        program = engine(circuit, [SparsePauliOp("".join(label))], input_params=params, all_outcomes=True).double()
        with torch.no_grad():
            rows = torch.from_numpy(values)
            return program.probabilities(rows, rows.new_zeros(0)).numpy().reshape(len(values), -1)
