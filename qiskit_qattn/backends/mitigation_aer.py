"""Aer with mitigated values, by Qiskit Runtime's Estimator in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from qiskit.primitives import DataBin, PubResult
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.primitives.containers.observables_array import ObservablesArray

from qiskit_qattn.backends.ibm.errors import Guard
from qiskit_qattn.backends.ibm.snapshot import on_qubits, used_qubits
from qiskit_qattn.backends.measurement import shots_of
from qiskit_qattn.backends.mitigation import Mitigation
from qiskit_qattn.backends.spec import BackendSpec
from qiskit_qattn.errors import CircuitError, ConfigError, missing_dependency
from qiskit_qattn.simulation.decomposition import device_pubs, preset_pass_manager
from qiskit_qattn.simulation.estimator import LocalEstimator

_ONE_QUBIT_GATES = ("rz", "sx", "x")
_TWO_QUBIT_GATES = ("cx", "cz", "ecr")


class MitigatedAerEstimator(LocalEstimator):
    """A ``BaseEstimatorV2`` over Aer, by Qiskit Runtime's Estimator in this process, which mitigates on devices.

    The Estimator measures each circuit in twirled bases. It writes the rotations before a measurement, and where gates
    are twirled all one-qubit gates, in ``rz`` and ``sx``, which carry the noise model's errors.

    Args:
        simulator: Returns an ``AerSimulator`` of some of the device's qubits, with their noise.
        mitigation: What is mitigated.
        default_precision: Precision where a run gives none.
        seed: Seed of twirls and samples. Successive runs continue one stream of random numbers.

    Raises:
        MissingDependencyError: Without qiskit-ibm-runtime 0.50 or later.
        CircuitError: (from a job) for parameter values that are not finite, or a circuit that measures.
        BackendError: (from a job) for a precision of 0, or if Runtime or Aer fails.
    """

    def __init__(
        self,
        simulator: Callable[[tuple[int, ...]], Any],
        mitigation: Mitigation,
        *,
        default_precision: float,
        seed: int | None = None,
    ) -> None:
        try:
            from qiskit_ibm_runtime.executor_estimator import Estimator
        except ImportError as error:
            raise missing_dependency("qiskit-ibm-runtime>=0.50", "ibm") from error
        super().__init__(default_precision=default_precision, seed=seed)
        self.mitigation, self._estimator, self._simulator = mitigation, Estimator, simulator
        self._simulators: dict[tuple[int, ...], Any] = {}

    def _evaluate(self, pubs: list[EstimatorPub]) -> list[PubResult]:
        ready = [_in_paulis(pub) for pub in device_pubs(pubs)]
        results: dict[int, PubResult] = {}
        for (qubits, precision), places in by_qubits(ready).items():
            part = [on_qubits(ready[place], qubits) for place in places]
            results |= zip(places, self._run_part(part, qubits, precision), strict=True)
        return [results[place] for place in range(len(pubs))]

    def _run_part(self, pubs: list[EstimatorPub], qubits: tuple[int, ...], precision: float) -> list[PubResult]:
        """Run PUBs on the same qubits and with one precision, which share a calibration."""
        if qubits not in self._simulators:
            self._simulators[qubits] = self._simulator(qubits)
        options = self.mitigation.resilience()
        options["simulator"] = {"seed_simulator": int(self._rng.integers(1, 2**31))}
        estimator = self._estimator(mode=self._simulators[qubits], options=options)
        found = Guard()("simulating a mitigated job", lambda: estimator.run(pubs, precision=precision).result())
        shots = self.mitigation.shots(shots_of(precision))
        about = {"target_precision": precision, "shots": shots, "mitigated": True, "mitigation": str(self.mitigation)}
        return [
            PubResult(
                DataBin(evs=item.data.evs, stds=item.data.stds, shape=pub.shape),
                metadata=about | {"circuit_metadata": pub.circuit.metadata},
            )
            for pub, item in zip(pubs, found, strict=True)
        ]


def by_qubits(pubs: Sequence[EstimatorPub]) -> dict[tuple[tuple[int, ...], float], list[int]]:
    """Return which PUBs are on which qubits, with which precision: Runtime measures all qubits of a job."""
    groups: dict[tuple[tuple[int, ...], float], list[int]] = {}
    for place, pub in enumerate(pubs):
        groups.setdefault((tuple(sorted(used_qubits(pub))), pub.precision or 0.0), []).append(place)
    return groups


def runtime_gates(spec: BackendSpec, model: Any, *, sampled: bool) -> Any:
    """Return a pass manager to gates that Runtime twirls, for a noise model that has errors of them.

    Raises:
        ConfigError: For exact values, or a noise model with errors of gates on one qubit, or on two, but none of those
            that Runtime takes: they would be left out.
    """
    if not sampled:
        raise ConfigError(
            f"{str(spec)!r} mitigates samples: give shots, or take density_matrix?noise=…&mitigation=…, which is exact."
        )
    found = [(name, error) for name, errors in model._local_quantum_errors.items() for error in errors.values()]
    found += model._default_quantum_errors.items()
    for size, taken in ((1, ("sx",)), (2, _TWO_QUBIT_GATES)):
        names = {name for name, error in found if error.num_qubits == size} - {"id", "delay", "reset", "measure"}
        if names and names.isdisjoint(taken):
            raise ConfigError(
                f"{str(spec)!r} runs circuits in rz, sx and {', '.join(_TWO_QUBIT_GATES)}, but its noise has errors of "
                f"{', '.join(sorted(names))} only. Take density_matrix?noise=…&mitigation=…."
            )
    two = [name for name in _TWO_QUBIT_GATES if name in model.basis_gates]
    return preset_pass_manager(0, basis_gates=[*_ONE_QUBIT_GATES, *(two or _TWO_QUBIT_GATES[:1])])


def _in_paulis(pub: EstimatorPub) -> EstimatorPub:
    """Return a PUB with projectors in its observables written out, which twirled readout does not take."""
    values = pub.parameter_values.as_array(list(pub.circuit.parameters))
    if not np.isfinite(values).all():
        raise CircuitError(f"Parameter values must be finite, got {values[~np.isfinite(values)][0]}.")
    sparse = pub.observables.sparse_observables_array()
    observables = np.vectorize(lambda each: each.as_paulis(), otypes=[object])(sparse)
    return EstimatorPub(pub.circuit, ObservablesArray(observables), pub.parameter_values, pub.precision)
