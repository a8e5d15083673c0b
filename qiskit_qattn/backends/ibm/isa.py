"""Circuits in the gates and layout of a device, transpiled once and cached on disk."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import qiskit
from qiskit import QuantumCircuit, qpy

from qiskit_qattn.backends.folders import cache_folder, read_entry, write_entry
from qiskit_qattn.backends.ibm.errors import Guard
from qiskit_qattn.backends.ibm.snapshot import part_of
from qiskit_qattn.backends.jobs.circuit_text import circuit_text, plain_names, plain_parameters, with_parameters
from qiskit_qattn.errors import BackendError, CircuitError
from qiskit_qattn.simulation.decomposition import preset_pass_manager, transpiled

_SEED = 0
_FORMAT = 2  # of the entries


class ISAPassManager:
    """Transpiles circuits for a device; a circuit that was transpiled for it before is read from disk.

    The key is the circuit, the device, the optimization level and Qiskit's version. Calibrated error rates are not part
    of it, so that a circuit stays the same from day to day and a run that is resumed tomorrow finds the jobs it sent
    today. A device that loses a qubit or gate has another key.

    Args:
        device: A Qiskit ``BackendV2``.
        optimization: Qiskit's optimization level, 0 to 3.
        folder: Where the entries are; by default in ``$QATTN_CACHE_DIR``, or else the user's cache folder.
        call: The boundary to IBM's client, which may ask the service for the device's properties at any time.
        qubits: The qubits that circuits use, numbered from 0 in this order; None for all of the device.
    """

    def __init__(
        self,
        device: Any,
        optimization: int,
        folder: Path | None = None,
        *,
        call: Guard | None = None,
        qubits: Sequence[int] | None = None,
    ) -> None:
        self.device, self.optimization, self._call = device, optimization, call or Guard()
        self.folder = cache_folder("ibm") / "isa" if folder is None else folder
        target = self._call("reading a device's gates", lambda: device.target)
        self._part = None if qubits is None else part_of(target, qubits)
        target = self._part or target
        places = sorted(
            f"{name}{qubits}"
            for name in target.operation_names
            for qubits in target.qargs_for_operation_name(name) or [None]
        )
        parts = (_FORMAT, qiskit.__version__, optimization, device.name, target.num_qubits, *places)
        self._device_key = "\n".join(map(str, parts))

    def run(self, circuit: QuantumCircuit) -> QuantumCircuit:
        """Return the circuit in the device's gates and layout, with the same parameters.

        Raises:
            BackendError: For a circuit with more qubits than the device, or if the service does not answer.
            CircuitError: If it cannot be transpiled, or would need an RZZ gate with a parameter, whose angle the
                device limits.
        """
        return self._call(f"transpiling for {self.device.name}", self._run, circuit)

    def _run(self, circuit: QuantumCircuit) -> QuantumCircuit:
        if circuit.num_qubits > self.device.num_qubits:
            raise BackendError(
                f"The circuit has {circuit.num_qubits} qubits and {self.device.name} has {self.device.num_qubits}; "
                f"choose a larger device, or a head with fewer qubits."
            )
        entry = self._entry(circuit)
        stored = None if entry is None else read_entry(entry)
        if stored is None:
            stored = _dump(self._transpile(plain_parameters(circuit)))  # QPY needs plain parameters
            if entry is not None:
                write_entry(entry, stored)
        # Read back the first time too, so that every run uses the same circuit.
        return _load(stored, circuit.parameters)

    def _transpile(self, circuit: QuantumCircuit) -> QuantumCircuit:
        if self._part is None:
            manager = preset_pass_manager(self.optimization, backend=self.device, seed_transpiler=_SEED)
        else:
            manager = preset_pass_manager(self.optimization, target=self._part, seed_transpiler=_SEED)
        isa = transpiled(manager, circuit)
        if any(item.operation.name == "rzz" and item.operation.is_parameterized() for item in isa.data):
            raise CircuitError(
                f"On {self.device.name} this circuit has RZZ gates with parameters, which the device takes between 0 "
                f"and π/2 only. Leave fractional=on out."
            )
        return isa

    def _entry(self, circuit: QuantumCircuit) -> Path | None:
        """Return the file of a circuit's entry, or None for a circuit without a text to identify it."""
        try:
            text = circuit_text(circuit)
        except CircuitError:
            return None
        names = [parameter.name for parameter in circuit.parameters]
        key = "\n".join([self._device_key, text, *names])
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()}.qpy"


def two_qubit_depth(circuit: QuantumCircuit) -> int:
    """Return the number of layers of gates on two or more qubits; what decides how noisy a circuit is."""
    return circuit.depth(lambda item: item.operation.num_qubits > 1 and not item.operation._directive)


def _dump(circuit: QuantumCircuit) -> bytes:
    stream = io.BytesIO()
    qpy.dump(circuit, stream)
    return stream.getvalue()


def _load(content: bytes, parameters: Sequence[Any]) -> QuantumCircuit:
    """Return a stored circuit with these parameters in place of its plain ones, of which transpiling may lose some."""
    circuit = qpy.load(io.BytesIO(content))[0]
    plain = plain_names(len(parameters))
    ours = dict(zip(plain, parameters, strict=True))
    return with_parameters(circuit, [ours[parameter.name] for parameter in circuit.parameters])
