"""Simulators and devices give what Qiskit says of the circuit that they are sent: values and derivatives by PUBs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import reject
from qiskit import QuantumCircuit
from qiskit.quantum_info import DensityMatrix, SparsePauliOp

from qiskit_qattn import get_backend
from qiskit_qattn.backends.pub import PubProgram
from qiskit_qattn.backends.registry import Backend
from qiskit_qattn.errors import CircuitError
from qiskit_qattn.simulation.decomposition import device_circuit, transpiled
from qiskit_qattn.simulation.evolution import ProductFormulaWarning

from .checks import along, assert_close, direction_of, gradient, point_of
from .circuits import Example
from .reference import Reference, compute_reference, reference
from .runs import run_examples

pytest.importorskip("qiskit_aer")
COUNT = 20
EXACT = [
    "aer",
    "aer:density_matrix",
    "aer:matrix_product_state",
    "statevector?method=mps",
    "braket:local",
    "braket:local_dm",
]
NOISE = "noise=depolarizing&p1=0.02&p2=0.05"
pytestmark = [
    pytest.mark.more,
    pytest.mark.filterwarnings("ignore::qiskit_qattn.simulation.evolution.ProductFormulaWarning"),
]


def backend_of(text: str) -> Backend:
    """Return a backend, or skip the test without its extra."""
    modules = {"braket": "qiskit_braket_provider", "ibm": "qiskit_ibm_runtime"}
    if (module := modules.get(text.split(":")[0])) is not None:
        pytest.importorskip(module)
    return get_backend(text)


def as_sent(backend: Backend, example: Example) -> Example:
    """Return an example with the circuit as it is sent, and observables on its qubits."""
    if reference(example) is None:
        reject()
    with _refusals():
        if backend.pass_manager is None:
            circuit = device_circuit(example.circuit)
        else:
            circuit = transpiled(backend.pass_manager, example.circuit)
    operators = [SparsePauliOp(operator) for operator in example.observables]
    if circuit.layout is not None:
        operators = [operator.apply_layout(circuit.layout) for operator in operators]
    return Example(
        example.code,
        circuit,
        operators,
        example.input_params,
        example.weight_params,
        example.inputs,
        example.weights,
    )


def expected_of(example: Example, sent: Example) -> Reference:
    """Return what Qiskit says of the circuit as sent, which is what it says of the example itself.

    A product formula is no exponential, and is compared with itself only.
    """
    itself, expected = reference(example), compute_reference(sent)
    if itself is None or expected is None:
        reject()
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        device_circuit(example.circuit)
    if not any(issubclass(warning.category, ProductFormulaWarning) for warning in found):
        np.testing.assert_allclose(expected.values, itself.values, atol=1e-7)
    return expected


def program_of(backend: Backend, sent: Example) -> PubProgram:
    """Return the program that sends a circuit."""
    with _refusals():
        return PubProgram(
            sent.circuit,
            sent.observables,
            input_params=sent.input_params,
            weight_params=sent.weight_params,
            estimator=backend.estimator,
            precision=backend.precision,
        )


@contextmanager
def _refusals() -> Iterator[None]:
    """Reject an example that is refused: exponentials of matrices and fractional powers while they have parameters.

    Amazon Braket has no delay, and Qiskit's pass managers for IBM's devices want one to be scheduled.
    """
    try:
        yield
    except CircuitError as error:
        if not any(word in str(error) for word in ("hamiltonian", "whole numbers", '("delay", 1)', "is not scheduled")):
            raise
        reject()


@pytest.mark.parametrize("text", EXACT)
def test_exact_devices(text: str) -> None:
    backend = backend_of(text)

    def check(example: Example) -> None:
        sent = as_sent(backend, example)
        expected = expected_of(example, sent)
        program = program_of(backend, sent)
        x, w = point_of(expected)
        with _refusals():
            values = program(x, w)  # (2, M)
        np.testing.assert_allclose(values.detach(), expected.values, atol=1e-6)
        slope = along(gradient(values[0] @ torch.from_numpy(expected.cotangent), x, w), *direction_of(expected))
        assert_close("parameter shift", slope, expected.first, 1e-5 + 2 * expected.first_error)

    run_examples(check, None, 4, COUNT)


@pytest.mark.parametrize("text", [f"aer?{NOISE}", f"density_matrix?{NOISE}"])
def test_noisy_simulators(text: str) -> None:
    from qiskit_qattn.backends.noise import build_noise
    from qiskit_qattn.backends.spec import BackendSpec

    backend, noise = backend_of(text), build_noise(BackendSpec.parse(text))
    sender = backend_of(f"aer?{NOISE}")  # for the circuit in the noise's gates; the noisy engine transpiles by itself

    def check(example: Example) -> None:
        sent = as_sent(sender, example)
        params = [*example.input_params, *example.weight_params]
        point = np.concatenate([example.inputs, example.weights])
        expected = noisy_values(sent, dict(zip(params, point, strict=True)), noise.model)
        one = sent if backend.pass_manager is not None else example
        operators = [[SparsePauliOp(operator)] for operator in one.observables]
        pub = (one.circuit, operators, *([{tuple(params): point}] if params else []))
        found = backend.estimator.run([pub], precision=0.0).result()[0].data.evs.ravel()
        np.testing.assert_allclose(found, expected, atol=1e-6)

    run_examples(check, None, 3, COUNT)


def noisy_values(sent: Example, point: dict[Any, float], model: Any) -> list[float]:
    """Return expectations with the error of each gate after it, by Qiskit's ``DensityMatrix``."""
    circuit: QuantumCircuit = sent.circuit.assign_parameters(point)
    state = DensityMatrix.from_label("0" * circuit.num_qubits)
    for item in circuit.data:
        qubits = [circuit.find_bit(qubit).index for qubit in item.qubits]
        state = state.evolve(item.operation, qubits) if item.operation.name != "barrier" else state
        error = model._default_quantum_errors.get(item.operation.name)
        if error is not None:
            state = state.evolve(error.to_quantumchannel(), qubits)
    return [state.expectation_value(operator).real for operator in sent.observables]


def test_a_device_of_ibm_in_local_mode() -> None:
    backend = backend_of("ibm:fake_manila?noise=off&resilience=0&seed=1&shots=2048&optimization=1")

    def check(example: Example) -> None:
        sent = as_sent(backend, example)
        expected = expected_of(example, sent)
        x, w = point_of(expected)
        with torch.no_grad():
            values = program_of(backend, sent)(x[:1], w)  # (1, M)
        bound = [6 * backend.precision * np.abs(operator.coeffs).sum() for operator in sent.observables]
        assert (np.abs(values[0].numpy() - expected.values[0]) <= bound).all()

    run_examples(check, None, 4, COUNT)
