"""Backend strings."""

import pytest

from qiskit_qattn import get_backend, list_backends
from qiskit_qattn.backends.spec import BackendSpec
from qiskit_qattn.errors import ConfigError, UnknownNameError


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("statevector", "statevector"),
        (" Statevector ", "statevector"),
        ("statevector?shots=10&seed=7", "statevector?seed=7&shots=10"),
        ("ibm:ibm_fez?shots=4096&mode=session", "ibm:ibm_fez?mode=session&shots=4096"),
        ("braket:arn:aws:braket:::device/qpu/x/y", "braket:arn:aws:braket:::device/qpu/x/y"),
        ("aer?noise=fake_manila", "aer?noise=fake_manila"),
        ("aer?", "aer"),
    ],
)
def test_normal_form_is_stable(text, normal):
    assert str(BackendSpec.parse(text)) == normal
    assert str(BackendSpec.parse(normal)) == normal
    assert BackendSpec.parse(normal) == BackendSpec.parse(text)


@pytest.mark.parametrize(
    "text", ["", "?shots=1", "a b", "aer?shots", "aer?shots=", "aer?=3", "aer?shots=1&shots=2", ":x"]
)
def test_malformed_strings_are_errors(text):
    with pytest.raises(ConfigError):
        BackendSpec.parse(text)


def test_statevector_is_registered_and_exact():
    assert "statevector" in list_backends()
    backend = get_backend("statevector")
    assert (backend.precision, backend.shots, backend.differentiable) == (0.0, None, True)


def test_shots_set_the_precision():
    backend = get_backend("statevector?shots=400&seed=1")
    assert backend.precision == pytest.approx(0.05)
    assert (backend.shots, backend.differentiable) == (400, False)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("statevctor", UnknownNameError, "Did you mean 'statevector'"),
        ("statevector?shoots=3", UnknownNameError, "Did you mean 'shots'.*Known: gradient, .*seed, shots"),
        ("statevector?shots=0", ConfigError, "at least 1 .*, got '0'"),
        ("statevector?shots=2147483648", ConfigError, "at most 2147483647, got '2147483648'"),
        ("statevector?seed=" + "9" * 5000, ConfigError, "at most 2147483647"),
        ("statevector?shots=many", ConfigError, "must be an integer"),
        ("statevector:gpu", ConfigError, "takes no target"),
    ],
)
def test_errors_say_what_is_allowed(text, error, message):
    with pytest.raises(error, match=message):
        get_backend(text)
