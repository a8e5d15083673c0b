"""Qiskit Aer's simulators as a Sampler, beside the Estimator of :mod:`qiskit_qattn.backends.aer`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from qiskit.primitives import BitArray
from qiskit.primitives.containers.sampler_pub import SamplerPub

from qiskit_qattn.backends.mps import AER_LOCK, aer_binds, mps_simulator
from qiskit_qattn.backends.noise import noise_on
from qiskit_qattn.errors import BackendError
from qiskit_qattn.simulation.cutting import cut
from qiskit_qattn.simulation.decomposition import device_circuit, preset_pass_manager, transpiled
from qiskit_qattn.simulation.sampler import LocalSampler, registers_of, rows_of


class AerSampler(LocalSampler):
    """A ``BaseSamplerV2`` over an ``AerSimulator``: one Aer run per circuit, for all its parameter sets.

    Circuits may measure before their end and branch on what they measured, as far as Aer's method goes.

    Args:
        simulator: An ``AerSimulator`` without a noise model.
        noise: An Aer ``NoiseModel``, or None.
        options: The options of :class:`LocalSampler`.

    Raises:
        CircuitError: (from a job) for parameter values that are not finite, or a circuit without a form in Aer's gates.
        BackendError: (from a job) if Aer fails.
    """

    def __init__(self, simulator: Any, noise: Any = None, **options: Any) -> None:
        super().__init__(**options)
        self.simulator, self.noise = simulator, noise
        self._noise_on: dict[tuple[int, ...], Any] = {}
        self._decomposition = preset_pass_manager(0, target=simulator.target)
        self._gates = frozenset(simulator.target.operation_names) | {"barrier"}

    def _sample(self, pub: SamplerPub) -> Mapping[str, BitArray]:
        circuit = device_circuit(pub.circuit)
        if not self._gates.issuperset(item.operation.name for item in circuit.data):
            circuit = transpiled(self._decomposition, circuit)
        values = rows_of(pub)  # (R, P)
        part = cut(circuit, (), classical=True)
        if self.noise is not None and part.qubits not in self._noise_on:
            self._noise_on[part.qubits] = noise_on(self.noise, part.qubits)
        columns = dict(zip(pub.circuit.parameters, values.T, strict=True))
        columns = {param: columns[param] for param in part.circuit.parameters}
        circuits, options = [part.circuit], dict[str, Any]()
        if columns and aer_binds(part.circuit):
            options["parameter_binds"] = [{param: column.tolist() for param, column in columns.items()}]
        elif columns:
            rows = zip(*columns.values(), strict=True)
            circuits = [part.circuit.assign_parameters(dict(zip(columns, row, strict=True))) for row in rows]
        elif len(values) > 1:  # a parameter that acts on nothing
            circuits = circuits * len(values)
        with AER_LOCK:
            result = self.simulator.run(
                circuits,
                noise_model=self._noise_on.get(part.qubits),
                shots=pub.shots,
                memory=True,
                seed_simulator=int(self._rng.integers(2**31)),
                **options,
            ).result()
        if not result.success:
            raise BackendError(f"Aer could not run the circuit: {result.status}")
        table = np.stack([_bits(entry.data.to_dict(), pub) for entry in result.results])  # (R, shots, bits)
        return registers_of(pub.circuit, table, pub.shape)


def _bits(data: Mapping[str, Any], pub: SamplerPub) -> np.ndarray:
    """Return the classical bits of the samples in Aer's data, shape ``(shots, bits)``; 0 where none is written."""
    size = pub.circuit.num_clbits
    if "memory" not in data:
        return np.zeros((pub.shots, size), dtype=bool)
    width = -(-size // 8)
    content = b"".join(int(outcome, 16).to_bytes(width, "little") for outcome in data["memory"])
    packed = np.frombuffer(content, dtype=np.uint8).reshape(-1, width)
    return np.unpackbits(packed, axis=1, count=size, bitorder="little").astype(bool)


def mps_sampler(max_bond: int, **options: Any) -> AerSampler:
    """Return a sampler by matrix product states; options as for :class:`LocalSampler`.

    Raises:
        MissingDependencyError: Without Aer.
    """
    return AerSampler(mps_simulator(max_bond), **options)
