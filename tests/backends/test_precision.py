"""``precision=``: shots that follow from the observables, whatever the data."""

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.quantum_info import SparsePauliOp, Statevector

import qiskit_qattn as qa
from qiskit_qattn.backends.registry import get_backend, precision_of
from qiskit_qattn.errors import ConfigError

SAMPLING = [
    "statevector?seed=1",
    "density_matrix?seed=1",
    "aer?seed=1",
    "statevector?method=mps&seed=1",
    "ibm:fake_manila?seed=1&resilience=0&noise=off",
    "braket:local",
]


def with_precision(text, precision):
    return f"{text}{'&' if '?' in text else '?'}precision={precision}"


@pytest.mark.parametrize("text", SAMPLING)
@pytest.mark.parametrize("value", ["0", "-0.1", "1.01", "nan", "inf", "1e-9", "much", "1e999"])
def test_values_out_of_range_are_told_in_a_line(text, value):
    with pytest.raises(ConfigError, match=r"option precision is a standard error, a number from .* to 1") as found:
        get_backend(with_precision(text, value))
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("text", SAMPLING)
def test_precision_and_shots_are_an_error(text):
    with pytest.raises(ConfigError, match=r"Shots follow from a precision, but .* has both"):
        get_backend(with_precision(text, "0.1") + "&shots=100")


@pytest.mark.parametrize("text", SAMPLING)
def test_a_backend_says_what_was_asked_for(text):
    backend = get_backend(with_precision(text, "0.04"))
    assert (backend.precision, backend.shots, backend.differentiable) == (0.04, None, False)
    assert backend.precision_for(qa.attention_circuit("angle", 2)) == pytest.approx(0.04)
    assert get_backend(with_precision(text, "0.04") + "&dedupe=off").dedupe is False


def sums():
    """Two observables, of which the second takes 13 shots for one of a Pauli string's, in two bases."""
    angle, weight = Parameter("x"), Parameter("w")
    circuit = QuantumCircuit(2)
    circuit.ry(angle, 0)
    circuit.rx(weight, 1)
    circuit.cx(0, 1)
    observables = [
        SparsePauliOp.from_list([("ZZ", 1.0)]),
        SparsePauliOp.from_list([("ZI", 1.5), ("IZ", -0.5), ("XX", 3.0), ("II", 7.0)]),
    ]
    return qa.AttentionCircuit.from_circuit(circuit, observables, [angle], [weight])


def test_shots_follow_from_the_observables():
    circuit = sums()
    assert circuit.shots(0.1).shots == 1300
    assert get_backend("aer?precision=0.1").precision_for(circuit) == pytest.approx(precision_of(1300))
    assert get_backend("aer?shots=100").precision_for(circuit) == precision_of(100)
    assert get_backend("aer").precision_for(circuit) == 0
    assert circuit.qnn("aer?precision=0.1").default_precision == pytest.approx(precision_of(1300))


@pytest.mark.parametrize(
    ("text", "rows"), [("statevector?seed=1", 2000), ("density_matrix?seed=1", 2000), ("aer?seed=1", 50)]
)
def test_no_observable_has_a_larger_standard_error(text, rows):
    circuit, precision = sums(), 0.1
    head = qa.QuantumHead(circuit).to_backend(with_precision(text, precision) + "&dedupe=off")
    with torch.no_grad():
        head.gain.fill_(1)
        x = torch.full((rows, 1), 0.7)
        found = head(x).numpy()
        bound = circuit.circuit.assign_parameters(
            {circuit.input_params[0]: 0.7, circuit.weight_params[0]: float(head.weight[0])}
        )
    exact = [Statevector(bound).expectation_value(each).real for each in circuit.observables]
    spread = found.std(0)
    assert (spread < precision * (1 + 5 / np.sqrt(2 * len(x)))).all() and spread[1] > precision / 4
    assert (np.abs(found.mean(0) - exact) < 5 * precision / np.sqrt(len(x))).all()


def test_what_is_sent_depends_on_no_token():
    torch.manual_seed(3)
    model = qa.GPT(qa.GPTConfig(11, 8, 1, 2, 8, heads="qisa:1,classical:1", num_qubits=2))
    first = torch.randint(11, (1, 8))
    second = first.clone()
    second[:, 5:] = (second[:, 5:] + 1) % 11
    costs = [qa.estimate(model, tokens, "aer?precision=0.1&dedupe=off").total for tokens in (first, second)]
    assert costs[0] == costs[1] and costs[0].shots == 100 * costs[0].circuits
    values = [model.to_backend("statevector?precision=0.1&seed=5&dedupe=off")(tokens)[0] for tokens in (first, second)]
    assert torch.equal(values[0][:, :5], values[1][:, :5])
    assert not torch.equal(values[0][:, 5:], values[1][:, 5:])
