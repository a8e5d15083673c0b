"""The simulators that come with Amazon Braket's SDK, in this process, and their noise."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from qiskit.primitives import BitArray, DataBin, PrimitiveJob, PubResult
from qiskit.primitives.containers.estimator_pub import EstimatorPub, EstimatorPubLike
from qiskit.primitives.containers.sampler_pub import SamplerPub

from qiskit_qattn.backends.braket.circuits import (
    BraketProgram,
    bits_of,
    in_one_basis,
    outcomes_of,
    program_sets,
    samples_of,
)
from qiskit_qattn.backends.jobs.device import Values
from qiskit_qattn.backends.measurement import shots_of
from qiskit_qattn.backends.mitigation import Mitigation
from qiskit_qattn.backends.noise import NOISE_OPTIONS, ONE_QUBIT_GATES, TWO_QUBIT_GATES, number
from qiskit_qattn.backends.spec import BackendSpec
from qiskit_qattn.backends.tile_parts import joined, parts_of
from qiskit_qattn.backends.tiling import is_tiled
from qiskit_qattn.errors import BackendError, ConfigError, unknown_name
from qiskit_qattn.simulation.estimator import LocalEstimator
from qiskit_qattn.simulation.sampler import LocalSampler

_PROGRAMS = 100  # executables the simulator takes at a time, as devices do
KINDS = ("depolarizing", "amplitude_damping", "phase_damping")
LOCAL_NOISE_OPTIONS = {"noise": f"local_dm: {', '.join(KINDS)}"} | {
    key: NOISE_OPTIONS[key] for key in ("p1", "p2", "gamma")
}
GATES = [*ONE_QUBIT_GATES, *TWO_QUBIT_GATES]


class BraketLocalEstimator(LocalEstimator):
    """Expectations from a Braket local simulator.

    With precision 0 values are exact; with precision ε they come from ⌈1/ε²⌉ samples per measurement basis.

    Args:
        simulator: ``braket_sv`` (state vectors) or ``braket_dm`` (density matrices).
        default_precision: Precision where a run gives none.
        gates: Qiskit's names of the gates to decompose to, or None for all of Braket's.
        noise: Returns a Braket circuit with noise; for density matrices.
        mitigation: How errors are mitigated, or None; of its methods ``zne``.
    """

    def __init__(
        self,
        simulator: str,
        *,
        default_precision: float = 0.0,
        gates: list[str] | None = None,
        noise: Callable[[Any], Any] | None = None,
        mitigation: Mitigation | None = None,
    ) -> None:
        from braket.devices import LocalSimulator

        super().__init__(default_precision=default_precision)
        self._device = LocalSimulator(simulator)
        self.num_qubits = self._device.properties.paradigm.qubitCount
        self._name, self._gates, self._noise, self._mitigation = simulator, gates, noise, mitigation

    def run(self, pubs: Iterable[EstimatorPubLike], *, precision: float | None = None) -> PrimitiveJob[Any]:
        """Evaluate PUBs; see :meth:`LocalEstimator.run`.

        Raises:
            ConfigError: For a negative precision.
            BackendError: For more qubits than the simulator has.
        """
        coerced = [EstimatorPub.coerce(pub) for pub in pubs]
        for pub in coerced:
            self._check(pub)
        return super().run(coerced, precision=precision)

    def outcomes(self, pub: EstimatorPub, shots: int) -> list[np.ndarray]:
        """Return what a PUB of one basis measures, shape ``(shots, n)`` for each of its parameter sets.

        Raises:
            BackendError: For more qubits than the simulator has.
        """
        self._check(pub)
        program = BraketProgram(pub, self._gates)
        with _without_advice():
            return [outcomes_of(entry, program.num_qubits, shots) for entry in self._entries(program, shots)]

    def _check(self, pub: EstimatorPub) -> None:
        if pub.circuit.num_qubits > self.num_qubits:
            raise BackendError(
                f"A circuit has {pub.circuit.num_qubits} qubits, but Braket's local simulator {self._name} takes at "
                f"most {self.num_qubits}."
            )

    def _evaluate(self, pubs: list[EstimatorPub]) -> list[PubResult]:
        return [self._run_parts(pub) if is_tiled(pub) else self._run_pub(pub) for pub in pubs]

    def _run_parts(self, pub: EstimatorPub) -> PubResult:
        parts = parts_of(pub)
        return joined(pub, parts, [self._run_pub(part.pub) for part in parts], {})

    def _run_pub(self, pub: EstimatorPub) -> PubResult:
        metadata: dict[str, Any] = {}
        if self._mitigation is None:
            values = self._values(pub, 1)
        else:
            values = self._mitigation.at_zero([self._values(pub, factor) for factor in self._mitigation.runs])
            metadata = {"mitigated": True, "mitigation": str(self._mitigation)}
        metadata |= {"target_precision": pub.precision, "circuit_metadata": pub.circuit.metadata}
        if pub.precision:
            metadata["shots"] = shots_of(pub.precision)
        return PubResult(DataBin(evs=values.evs, stds=values.stds, shape=pub.shape), metadata=metadata)

    def _values(self, pub: EstimatorPub, factor: int) -> Values:
        """Return a PUB's values at a noise factor."""
        program = BraketProgram(pub, self._gates, fold=factor)
        with _without_advice():
            if not pub.precision:
                return self._exact(program)
            shots = shots_of(pub.precision)
            entries = self._entries(program, shots)
            return program.plan.from_samples(samples_of(entry, program.num_qubits, shots) for entry in entries)

    def _exact(self, program: BraketProgram) -> Values:
        plan = program.plan
        table = np.zeros((len(plan.points), len(plan.terms)))
        self._add_noise(program)
        circuit = program.expectations()
        for row in range(len(plan.points) if plan.terms else 0):
            table[row] = self._device.run(circuit, shots=0, inputs=program.inputs(row)).result().values
        return plan.from_expectations(table)

    def _entries(self, program: BraketProgram, shots: int) -> Iterator[Any]:
        """Yield the result of each basis of a program and each of its rows."""
        self._add_noise(program)
        for some in program_sets([program], _PROGRAMS, shots):
            for part in self._device.run(some).result():
                yield from part

    def _add_noise(self, program: BraketProgram) -> None:
        if self._noise is not None:
            program.circuit = self._noise(program.circuit)


class BraketLocalSampler(LocalSampler):
    """Samples from a Braket local simulator, which takes no seed.

    Args:
        estimator: The estimator, whose simulator and noise it shares.
        options: The options of :class:`LocalSampler`.
    """

    def __init__(self, estimator: BraketLocalEstimator, **options: Any) -> None:
        super().__init__(**options)
        self._estimator = estimator

    def _sample(self, pub: SamplerPub) -> Mapping[str, BitArray]:
        return bits_of(self._estimator.outcomes(in_one_basis(pub), pub.shots), pub).registers


@contextmanager
def _without_advice() -> Iterator[None]:
    """Silence the density-matrix simulator's advice to use the other one for circuits without noise."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="You are running a noise-free circuit")
        yield


def local_noise(spec: BackendSpec) -> Callable[[Any], Any] | None:
    r"""Return what adds noise after each gate of a Braket circuit, or None where none is asked for.

    A depolarizing probability p is that of :math:`\rho \to (1 - p) \rho + p\, 1 / 2^n`; Braket's counts Pauli errors
    other than the identity, :math:`(1 - 4^{-n}) p`.

    Raises:
        UnknownNameError: For another noise.
        ConfigError: For a probability that is missing, malformed or out of range, or that no noise uses.
    """
    name = spec.options.get("noise")
    if name is not None and name not in KINDS:
        raise unknown_name("noise of Braket's local_dm", name, KINDS)
    used = {None: (), "depolarizing": ("p1", "p2")}.get(name, ("gamma",))
    for key in ("p1", "p2", "gamma"):
        if key in spec.options and key not in used:
            raise ConfigError(f"Backend option {key} is not used with noise={name or 'none'}: {NOISE_OPTIONS[key]}.")
    if name is None:
        return None
    from braket.circuits import Noise

    if name == "depolarizing":
        one = Noise.Depolarizing(0.75 * number(spec, "p1", 0, 1))
        two = Noise.TwoQubitDepolarizing(15 / 16 * number(spec, "p2", 0, 1))
    else:
        kind = Noise.AmplitudeDamping if name == "amplitude_damping" else Noise.PhaseDamping
        one = two = kind(number(spec, "gamma", 0, 1))  # on each qubit of a gate
    return lambda circuit: _noisy(circuit, one, two)


def _noisy(circuit: Any, one: Any, two: Any) -> Any:
    """Return a copy of a circuit with noise after its gates, by their numbers of qubits."""
    from braket.circuits import Circuit, Gate, Instruction

    noisy = Circuit()
    for instruction in circuit.instructions:
        noisy.add_instruction(instruction)
        if isinstance(instruction.operator, Gate) and len(instruction.target):
            noise = one if len(instruction.target) == 1 else two
            targets = [list(instruction.target)] if noise.qubit_count > 1 else [[qubit] for qubit in instruction.target]
            for target in targets:
                noisy.add_instruction(Instruction(noise, target))
    return noisy
