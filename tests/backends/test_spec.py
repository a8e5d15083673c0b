"""Backend strings, and chains of them."""

import string

import pytest

from qiskit_qattn import get_backend, list_backends
from qiskit_qattn.backends.spec import BackendChain, BackendSpec, parse_chain
from qiskit_qattn.errors import ConfigError, UnknownNameError


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("statevector", "statevector"),
        (" Statevector ", "statevector"),
        ("statevector?shots=1024&seed=7", "statevector?seed=7&shots=1024"),
        ("density_matrix?noise=depolarizing&p1=0.001&p2=0.01", "density_matrix?noise=depolarizing&p1=0.001&p2=0.01"),
        ("density_matrix?noise=fake_manila", "density_matrix?noise=fake_manila"),
        ("aer", "aer"),
        ("aer?", "aer"),
        ("aer:density_matrix", "aer:density_matrix"),
        ("aer:matrix_product_state?max_bond=8", "aer:matrix_product_state?max_bond=8"),
        ("aer?noise=/data/my%20model.json", "aer?noise=/data/my%20model.json"),
        ("ibm:ibm_fez", "ibm:ibm_fez"),
        ("ibm:least_busy?shots=4096&mode=batch", "ibm:least_busy?mode=batch&shots=4096"),
        (
            "ibm:fake_torino?mode=session&shots=4096&resilience=0&max_time=25m&budget=60s",
            "ibm:fake_torino?budget=60s&max_time=25m&mode=session&resilience=0&shots=4096",
        ),
        ("braket:local", "braket:local"),
        ("braket:sv1?s3=bucket/folder&budget=5usd", "braket:sv1?budget=5usd&s3=bucket/folder"),
        (
            "braket:arn:aws:braket:us-east-1::device/qpu/ionq/Forte-1?shots=100",
            "braket:arn:aws:braket:us-east-1::device/qpu/ionq/Forte-1?shots=100",
        ),
    ],
)
def test_normal_form_is_stable(text, normal):
    assert str(BackendSpec.parse(text)) == normal
    assert str(BackendSpec.parse(normal)) == normal
    assert BackendSpec.parse(normal) == BackendSpec.parse(text)


@pytest.mark.parametrize(
    ("values", "normal"),
    [
        (["1e-3", "0.001", "+0.0010", "1.0E-3"], "0.001"),
        (["1000", "01000", "1e3", "1000.0"], "1000"),
        (["0", "-0", "0.0"], "0"),
        (["3e-20"], "3e-20"),
        (["nan"], "nan"),
        (["1_000"], "1_000"),
        (["60s"], "60s"),
        (["9" * 30], "9" * 30),
    ],
)
def test_numbers_are_written_one_way(values, normal):
    assert {str(BackendSpec.parse(f"aer?p1={value}")) for value in values} == {f"aer?p1={normal}"}


def test_any_value_comes_back(rng):
    letters = string.printable + "äθ→&=?%#+>"
    for _ in range(500):
        options = {
            "".join(rng.choice(list(string.ascii_lowercase), rng.integers(1, 6))): "x"
            + "".join(rng.choice(list(letters), rng.integers(0, 12)))
            for _ in range(rng.integers(0, 4))
        }
        spec = BackendSpec("aer", "x/y:z" if rng.random() < 0.5 else None, dict(sorted(options.items())))
        assert BackendSpec.parse(str(spec)) == spec
        chain = BackendChain((spec, spec), "classical")
        assert parse_chain(str(chain)) == chain


@pytest.mark.parametrize(
    ("text", "normal", "end"),
    [
        ("statevector", "statevector", "raise"),
        ("aer->statevector", "aer -> statevector", "raise"),
        ("aer  ->  statevector -> raise", "aer -> statevector", "raise"),
        (
            "ibm:ibm_fez?shots=10&mode=job -> aer?noise=fake_torino -> statevector -> Classical",
            "ibm:ibm_fez?mode=job&shots=10 -> aer?noise=fake_torino -> statevector -> classical",
            "classical",
        ),
    ],
)
def test_chains(text, normal, end):
    chain = parse_chain(text)
    assert (str(chain), chain.end) == (normal, end)
    assert parse_chain(normal) == chain


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty link"),
        ("aer -> ", "empty link"),
        ("-> aer", "empty link"),
        ("aer -> -> classical", "empty link"),
        ("classical", "'classical' .* is no backend; it can only end a chain"),
        ("aer -> classical -> statevector", "it can only end a chain, as in statevector -> classical"),
        ("raise -> classical", "'raise' .* is no backend"),
        ("aer -> a b", "'a b' is no backend string"),
    ],
)
def test_chains_that_cannot_be(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_chain(text)


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
        ("statevector?shoots=3", UnknownNameError, "Did you mean 'shots'.*Known: dedupe, gradient, .*seed, shots"),
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
