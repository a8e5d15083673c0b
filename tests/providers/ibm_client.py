"""A small job, sent with the real client."""

from __future__ import annotations

from typing import Any

from qiskit import QuantumCircuit, transpile
from qiskit.circuit import Parameter
from qiskit.quantum_info import SparsePauliOp
from qiskit_ibm_runtime import RuntimeJobV2
from qiskit_ibm_runtime.executor_estimator import Estimator
from qiskit_ibm_runtime.fake_provider import FakeManilaV2

SHOTS = 1024
Pub = tuple[Any, ...]


def small_pub() -> Pub:
    """Return three observables of a circuit with two bindings, for the fake Manila."""
    angle = Parameter("angle")
    circuit = QuantumCircuit(2)
    circuit.ry(angle, 0)
    circuit.cx(0, 1)
    isa = transpile(circuit, FakeManilaV2(), optimization_level=1, seed_transpiler=1)
    return isa, [[SparsePauliOp(pauli).apply_layout(isa.layout)] for pauli in ("ZZ", "XX", "ZI")], [[0.3], [0.9]]


def submit(mode: Any, pub: Pub, tag: str = "key", **options: Any) -> RuntimeJobV2:
    """Run a PUB in a job of its own, without mitigation unless the options say so."""
    settings = {"resilience_level": 0, "default_shots": SHOTS, "environment": {"job_tags": [tag]}}
    return Estimator(mode=mode, options=settings | options).run([pub])
