"""Mitigation by a backend string: what is read, what is refused, and what it removes."""

import numpy as np
import pytest
import torch

import qiskit_qattn as qa
from qiskit_qattn import QuantumHead, attention_circuit, get_backend
from qiskit_qattn.backends.mitigation import Mitigation, mitigation_option, twirled_shots
from qiskit_qattn.backends.pub import attention_program
from qiskit_qattn.backends.spec import BackendSpec
from qiskit_qattn.errors import ConfigError, UnknownNameError


def option(text, **known):
    return mitigation_option(BackendSpec.parse(f"aer?{text}"), **known)


def test_what_a_string_asks_for():
    assert option("shots=10") is None
    assert option("mitigation=trex") == Mitigation(methods=("trex",))
    both = option("mitigation=zne,trex&zne_factors=1,5&zne_fit=richardson", twirls=True)
    assert both == Mitigation(methods=("trex", "zne"), factors=(1, 5), fit="richardson", twirling=True)
    assert str(both) == "trex and zne (richardson, at noise factors 1, 5), gates twirled"
    assert (both.runs, both.circuits(10)) == ((1, 5), 21)
    assert (option("mitigation=trex").runs, option("mitigation=trex").circuits(10)) == ((1,), 11)
    assert not option("mitigation=zne&twirling=off", twirls=True).twirling


@pytest.mark.parametrize(
    ("text", "kind", "match"),
    [
        ("mitigation=tres", UnknownNameError, "Did you mean 'trex'"),
        ("mitigation=trex,", UnknownNameError, "Known: debias, pec, trex, zne"),
        ("mitigation=pec", ConfigError, "not possible on aer: it can do trex and zne. pec is for .* ibm:<device>"),
        ("mitigation=trex,trex", ConfigError, "each method once"),
        ("mitigation=trex&zne_factors=1,3", ConfigError, "zne_factors is for mitigation=zne"),
        ("zne_fit=linear", ConfigError, "zne_fit is for mitigation=zne"),
        ("mitigation=zne&zne_fit=cubic", UnknownNameError, "Known: exponential, linear, richardson"),
        ("mitigation=zne&zne_factors=1,2", ConfigError, "odd numbers from 1 to 25"),
        ("mitigation=zne&zne_factors=-1,1", ConfigError, "odd numbers from 1 to 25"),
        ("mitigation=zne&zne_factors=1,1.5", ConfigError, "odd numbers from 1 to 25"),
        ("mitigation=zne&zne_factors=3,1", ConfigError, "each larger than the last"),
        ("mitigation=zne&zne_factors=3", ConfigError, "2 to 8 numbers"),
        ("mitigation=zne&zne_factors=1,3,5,7,9,11,13,15,17", ConfigError, "2 to 8 numbers"),
    ],
)
def test_what_is_refused(text, kind, match):
    with pytest.raises(kind, match=match):
        option(text)


@pytest.mark.parametrize("fit", ["linear", "richardson"])
def test_extrapolation_is_exact_for_a_line_and_richardson_for_any_parabola(fit, rng):
    weights = Mitigation(methods=("zne",), factors=(1, 3, 7), fit=fit).weights
    start, slope, curve = rng.normal(size=3)
    at = np.array([1.0, 3.0, 7.0])
    assert weights @ (start + slope * at) == pytest.approx(start)
    bent = weights @ (start + slope * at + curve * at**2)
    assert bool(abs(bent - start) < 1e-12) == (fit == "richardson")


def test_shots_are_rounded_up_to_equal_twirls():
    assert [twirled_shots(shots) for shots in (1, 64, 65, 1000, 4096)] == [64, 64, 128, 1024, 4096]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("statevector?mitigation=trex", "nothing to mitigate"),
        ("aer?shots=100&mitigation=trex", "no noise to mitigate"),
        ("aer?noise=depolarizing&p1=0.01&p2=0.01&shots=100&mitigation=trex", "no readout error"),
        ("aer?noise=readout&readout=0.1&shots=100&mitigation=zne", "no errors of two-qubit gates"),
        ("aer?noise=readout&readout=0.1&mitigation=trex", "give shots"),
        ("density_matrix?noise=readout&readout=0.5&mitigation=trex", "bits at random"),
        ("aer?noise=readout&readout=0.1&shots=100&twirling=on", "twirling is for mitigation"),
    ],
)
def test_where_there_is_nothing_to_mitigate(text, match):
    pytest.importorskip("qiskit_aer")
    with pytest.raises(ConfigError, match=match):
        get_backend(text)


def test_trex_on_aer_removes_readout_error():
    """Readout error alone, so that all of it goes; the seed makes the samples the same each time."""
    pytest.importorskip("qiskit_aer")
    pytest.importorskip("qiskit_ibm_runtime")
    head = QuantumHead(attention_circuit("qisa", 3)).double()
    x = torch.randn(2, head.num_features, dtype=torch.float64)
    exact = head(x).detach()
    text = "aer?noise=readout&readout=0.1&shots=8192&seed=3"
    raw, trex = (head.to_backend(text + more)(x).detach() for more in ("", "&mitigation=trex"))
    again = head.to_backend(f"{text}&mitigation=trex")(x).detach()
    assert torch.equal(trex, again)
    assert (trex - exact).abs().max() < 0.3 * (raw - exact).abs().max()


DEVICES = ["fake_manila", "fake_lima", "fake_quito"]


@pytest.mark.parametrize("device", [DEVICES[0], *(pytest.param(name, marks=pytest.mark.more) for name in DEVICES[1:])])
def test_the_noisy_engine_mitigates_and_stays_differentiable(device):
    """``trex`` leaves what the engine gives without readout error, and ``zne`` less than that."""
    pytest.importorskip("qiskit_ibm_runtime")
    circuit = attention_circuit("angle", 4)
    head = QuantumHead(circuit).double()
    x = torch.randn(8, head.num_features, dtype=torch.float64, requires_grad=True)
    exact = head(x).detach()
    text = f"density_matrix?noise={device}"
    found = {
        more: head.to_backend(text + more)(x).detach()
        for more in ("", "&readout=off", "&mitigation=trex", "&mitigation=zne", "&mitigation=trex,zne")
    }
    error = {more: (values - exact).abs().max() for more, values in found.items()}
    torch.testing.assert_close(found["&mitigation=trex"], found["&readout=off"])
    assert error["&mitigation=trex,zne"] < error["&mitigation=trex"] < error[""]
    assert error["&mitigation=zne"] < error[""]
    backend = head.to_backend(f"{text}&mitigation=trex,zne").backend
    assert (backend.differentiable, str(backend.mitigation)) == (
        True,
        "trex and zne (linear, at noise factors 1, 3, 5)",
    )


@pytest.mark.more
@pytest.mark.parametrize("name", ["qisa", "angle"])
@pytest.mark.parametrize("device", DEVICES)
def test_trex_on_aer_removes_most_of_what_readout_error_adds(device, name):
    """At least 70 % of the root-mean-square error that the noisy engine does not have without readout error."""
    pytest.importorskip("qiskit_ibm_runtime")
    circuit = attention_circuit(name, 4)
    x = torch.randn(6, len(circuit.input_params), dtype=torch.float64)
    weights = 6 * torch.rand(len(circuit.weight_params), dtype=torch.float64)

    def error(text):
        backend = get_backend(text)
        program = attention_program(circuit, backend) if backend.program is None else backend.program(circuit).double()
        return (program(x, weights) - exact).square().mean().sqrt()

    exact = get_backend("density_matrix").program(circuit).double()(x, weights)
    raw, without = (error(f"density_matrix?noise={device}{more}") for more in ("", "&readout=off"))
    trex = error(f"aer?noise={device}&shots=100000&seed=1&mitigation=trex")
    assert raw - trex > 0.7 * (raw - without)


def test_gradients_of_mitigated_values():
    pytest.importorskip("qiskit_mitigation")
    text = "density_matrix?noise=depolarizing&p1=0.01&p2=0.03&readout=0.04&mitigation=trex,zne&zne_fit=richardson"
    head = QuantumHead(attention_circuit("angle", 2)).double().to_backend(text)
    x = torch.randn(2, head.num_features, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(head, x)
    head(x).sum().backward()
    assert head.weight.grad.abs().max() > 0


def test_the_estimator_of_the_mitigated_engine_gives_the_programs_values():
    pytest.importorskip("qiskit_mitigation")
    backend = get_backend("density_matrix?noise=depolarizing&p1=0.01&p2=0.03&readout=0.04&mitigation=trex,zne")
    circuit = attention_circuit("qisa", 2)
    x, weights = torch.randn(3, len(circuit.input_params)).double(), torch.rand(len(circuit.weight_params)).double()
    values = backend.program(circuit).double()(x, weights)
    order = [*circuit.input_params, *circuit.weight_params]
    bindings = {tuple(order): torch.cat([x, weights.expand(3, -1)], -1).numpy()}
    observables = [[each] for each in circuit.observables]
    evs = backend.estimator.run([(circuit.circuit, observables, bindings)]).result()[0].data.evs
    np.testing.assert_allclose(evs.T, values.numpy(), atol=1e-12)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("shots=100&mitigation=trex", "leave shots and precision out, or take aer"),
        ("mitigation=zne&zne_fit=exponential", "it can do linear and richardson"),
        ("mitigation=trex&readout=off", "no readout error"),
        ("mitigation=pec", "it can do trex and zne"),
        ("mitigation=zne&twirling=on", "option of backend 'density_matrix': 'twirling'"),
    ],
)
def test_what_the_noisy_engine_refuses(text, match):
    pytest.importorskip("qiskit_ibm_runtime")
    with pytest.raises(ConfigError, match=match):
        get_backend(f"density_matrix?noise=fake_manila&{text}")


def test_what_mitigation_costs_is_estimated_and_told():
    pytest.importorskip("qiskit_ibm_runtime")
    torch.manual_seed(0)
    config = qa.GPTConfig(vocab_size=5, block_size=4, n_layer=1, n_head=1, n_embd=4, heads="qisa:1", num_qubits=2)
    model, prompt = qa.GPT(config), torch.tensor([[1, 2, 3]])
    text = "aer?noise=depolarizing&p1=0.001&p2=0.01&readout=0.02&shots=1000"
    raw, both = (qa.estimate(model, prompt, text + more).total for more in ("", "&mitigation=trex,zne"))
    assert (both.circuits, both.shots) == (3 * raw.circuits + 1, 1024 * (3 * raw.circuits + 1))
    with model.to_backend(f"{text}&mitigation=trex,zne&seed=1"):
        model(prompt)
        [row] = model.head_backends()
    assert row["mitigation"] == (
        "trex and zne (linear, at noise factors 1, 3, 5): 3 circuits in place of each and a calibration circuit in "
        "each job"
    )
