"""The simulators that come with Amazon Braket's SDK, in this process."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from qiskit.primitives import DataBin, PrimitiveJob, PubResult
from qiskit.primitives.containers.estimator_pub import EstimatorPub, EstimatorPubLike

from qiskit_qattn.backends.braket.circuits import BraketProgram, program_sets, samples_of
from qiskit_qattn.backends.jobs.device import Values
from qiskit_qattn.backends.measurement import shots_of
from qiskit_qattn.errors import BackendError
from qiskit_qattn.simulation.estimator import LocalEstimator

_PROGRAMS = 100  # executables the simulator takes at a time, as devices do


class BraketLocalEstimator(LocalEstimator):
    """Expectations from a Braket local simulator.

    With precision 0 values are exact; with precision ε they come from ⌈1/ε²⌉ samples a measurement basis.

    Args:
        simulator: ``braket_sv`` (state vectors) or ``braket_dm`` (density matrices).
        default_precision: Precision where a run gives none.
        gates: Qiskit's names of the gates to decompose to, or None for all of Braket's.
        noise: Returns a Braket circuit with noise; for density matrices.
    """

    def __init__(
        self,
        simulator: str,
        *,
        default_precision: float = 0.0,
        gates: list[str] | None = None,
        noise: Callable[[Any], Any] | None = None,
    ) -> None:
        from braket.devices import LocalSimulator

        super().__init__(default_precision=default_precision)
        self._device = LocalSimulator(simulator)
        self._qubits = self._device.properties.paradigm.qubitCount
        self._name, self._gates, self._noise = simulator, gates, noise

    def run(self, pubs: Iterable[EstimatorPubLike], *, precision: float | None = None) -> PrimitiveJob[Any]:
        """Evaluate PUBs; see :meth:`LocalEstimator.run`.

        Raises:
            ConfigError: For a negative precision.
            BackendError: For more qubits than the simulator has.
        """
        coerced = [EstimatorPub.coerce(pub) for pub in pubs]
        for pub in coerced:
            if pub.circuit.num_qubits > self._qubits:
                raise BackendError(
                    f"A circuit has {pub.circuit.num_qubits} qubits, but Braket's local simulator {self._name} takes "
                    f"at most {self._qubits}."
                )
        return super().run(coerced, precision=precision)

    def _evaluate(self, pubs: list[EstimatorPub]) -> list[PubResult]:
        return [self._run_pub(pub) for pub in pubs]

    def _run_pub(self, pub: EstimatorPub) -> PubResult:
        program = BraketProgram(pub, self._gates)
        if self._noise is not None:
            program.circuit = self._noise(program.circuit)
        with _without_advice():
            values = self._sampled(program, shots_of(pub.precision)) if pub.precision else self._exact(program)
        metadata = {"target_precision": pub.precision, "circuit_metadata": pub.circuit.metadata}
        if pub.precision:
            metadata["shots"] = shots_of(pub.precision)
        return PubResult(DataBin(evs=values.evs, stds=values.stds, shape=pub.shape), metadata=metadata)

    def _exact(self, program: BraketProgram) -> Values:
        plan = program.plan
        table = np.zeros((len(plan.points), len(plan.terms)))
        circuit = program.expectations()
        for row in range(len(plan.points) if plan.terms else 0):
            table[row] = self._device.run(circuit, shots=0, inputs=program.inputs(row)).result().values
        return plan.from_expectations(table)

    def _sampled(self, program: BraketProgram, shots: int) -> Values:
        sets = program_sets([program], _PROGRAMS, shots)
        results = (entry for some in sets for part in self._device.run(some).result() for entry in part)
        return program.plan.from_samples(samples_of(entry, program.num_qubits) for entry in results)


@contextmanager
def _without_advice() -> Iterator[None]:
    """Silence the density-matrix simulator's advice to use the other one for circuits without noise."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="You are running a noise-free circuit")
        yield
