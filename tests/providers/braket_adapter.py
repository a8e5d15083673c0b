"""What the tests of Braket devices share: how to reach the service on the loopback, and what is right."""

from __future__ import annotations

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.quantum_info import SparsePauliOp

from qiskit_qattn.backends.braket.device import BraketDevice
from qiskit_qattn.backends.braket.provider import PROVIDER, aws_device
from qiskit_qattn.backends.registry import precision_of
from qiskit_qattn.backends.spec import BackendSpec
from qiskit_qattn.simulation.estimator import TorchEstimator

from .aws_devices import QPU

SHOTS = 400
PRECISION = precision_of(SHOTS)
OPERATORS = [[SparsePauliOp(["ZZ", "IX"], [0.5, 1.0])], [SparsePauliOp("YI")]]  # three bases, of which X and Y are one


def eight_circuits(rng):
    """Return a PUB of eight circuits: two bases of four rows."""
    x = ParameterVector("x", 2)
    circuit = QuantumCircuit(2)
    circuit.ry(x[0], 0)
    circuit.crx(x[1], 0, 1)
    return EstimatorPub.coerce((circuit, OPERATORS, rng.normal(size=(4, 2))), PRECISION)


def device_of(target=QPU, **options):
    return BraketDevice(aws_device(target), s3=("results", "here"), **options)


def backend_of(text):
    return PROVIDER.build(BackendSpec.parse(text))


def assert_right(values, pub):
    found = (pub.circuit, pub.observables, pub.parameter_values)
    expected = TorchEstimator().run([found]).result()[0].data.evs
    assert values.evs.shape == values.stds.shape == expected.shape
    assert (np.abs(values.evs - expected) <= 5 * np.maximum(values.stds, 1 / SHOTS)).all()


def created(server):
    return server.calls.count("CreateQuantumTask"), len(server.tasks)
