"""Measures of a model's heads: their definitions, for every kind, without touching the model."""

import math

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.quantum_info import Statevector

from qiskit_qattn.evaluation.circuit_measures import circuit_measures, gradient_variance, head_measures
from qiskit_qattn.evaluation.state_measures import BINS, meyer_wallach, participation_ratio
from qiskit_qattn.evaluation.text_metrics import spaced_windows
from qiskit_qattn.library.attention_circuit import AttentionCircuit
from qiskit_qattn.library.catalog import attention_circuit
from qiskit_qattn.library.encodings import Encoding
from qiskit_qattn.nn.config import GPTConfig
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.nn.heads import QuantumHead
from qiskit_qattn.nn.kinds import HEAD_KINDS

MEASURES = ("gradient_variance", "meyer_wallach", "expressibility", "expressibility_random_weights")


def small_gpt(heads, **options):
    shape = {"vocab_size": 11, "block_size": 8, "n_layer": 1, "n_head": 2, "n_embd": 8, "num_qubits": 3}
    return GPT(GPTConfig(heads=heads, **{**shape, **options}))


@pytest.fixture
def tokens():
    return torch.randint(11, (500,))


def by_hand(draw_ansatz, labels, num_qubits=1):
    """A circuit that encodes nothing, with an ansatz drawn by hand."""
    data, ansatz = ParameterVector("x", 1), QuantumCircuit(num_qubits)
    encoding = QuantumCircuit(num_qubits)
    encoding.rz(data[0], 0)  # of |0⟩: no effect
    draw_ansatz(ansatz)
    return AttentionCircuit("by hand", Encoding("angle", encoding, tuple(data), 1), ansatz, labels)


@pytest.mark.parametrize("kind", HEAD_KINDS)
def test_every_kind_has_a_dimension_and_those_with_a_circuit_the_rest(kind, tokens):
    found = circuit_measures(small_gpt(f"{kind}:2"), tokens)
    assert 1 <= found["effective_dimension"] <= 4
    if HEAD_KINDS[kind].circuit is None:
        assert all(found[name] is None for name in MEASURES)
        return
    assert 0 < found["gradient_variance"] < 1
    assert 0 < found["meyer_wallach"] < 1
    for name in MEASURES[2:]:
        assert 0 < found[name] < 7 * math.log(BINS)


@pytest.mark.parametrize("heads", ["qisa:1,zz:1", "qsann:2", "qisa-v1:2", "classical:2"])
def test_any_models_heads_are_measured_as_a_gpts_are(heads, tokens):
    torch.manual_seed(3)
    model = small_gpt(heads, n_layer=2)
    torch.manual_seed(4)
    start = small_gpt(heads, n_layer=2)
    x, _ = spaced_windows(tokens, 8, 16)
    expected = circuit_measures(model, tokens, seed=4)
    found = head_measures(start, model, lambda each: each.eval()(x), seed=4)
    for name in MEASURES:
        assert found[name] == pytest.approx(expected[name])


def test_heads_of_any_shape_are_measured_wherever_they_are_called():
    torch.manual_seed(1)
    circuit = attention_circuit("angle", num_qubits=2)
    x = torch.rand(3, 5, circuit.encoding.num_features)  # a batch of sequences
    one, many, unused = QuantumHead(circuit), QuantumHead(circuit, (2, 3)), QuantumHead(circuit)
    model = torch.nn.ModuleDict({"one": one, "many": many, "unused": unused})

    def run(each):
        each["one"](x)
        each["many"](x[0])
        each["unused"](x=x)  # by keyword: not seen

    found = head_measures(model, model, run)
    flat = head_measures(one, one, lambda each: each(x.flatten(0, 1)))
    alone = head_measures(many, many, lambda each: each(x[0].expand(2, 3, -1, -1)))
    assert all(0 < found[name] < 20 for name in MEASURES)
    whole = head_measures(one, one, lambda each: each(x))
    assert whole == pytest.approx(flat)
    assert found["meyer_wallach"] == pytest.approx((whole["meyer_wallach"] + 6 * alone["meyer_wallach"]) / 7)


def test_layers_are_listed_by_kind_and_averaged_over_heads(tokens):
    model = small_gpt("qisa:1,classical:3", n_layer=2, n_head=4, n_embd=16)
    found = circuit_measures(model, tokens)
    rows = found["layers"]
    assert [(row["layer"], row["kind"], row["heads"]) for row in rows] == [
        (0, "qisa-v3", 1),
        (0, "classical", 3),
        (1, "qisa-v3", 1),
        (1, "classical", 3),
    ]
    heads = sum(row["heads"] * row["effective_dimension"] for row in rows) / 8
    assert found["effective_dimension"] == pytest.approx(heads)
    quantum = [row["meyer_wallach"] for row in rows if row["kind"] == "qisa-v3"]
    assert found["meyer_wallach"] == pytest.approx(sum(quantum) / 2)


def test_the_dimension_is_that_of_the_values_attention_uses(tokens):
    model = small_gpt("classical:2")
    found = circuit_measures(model, tokens)
    x = tokens[: 62 * 8].view(62, 8)[torch.arange(16) * 62 // 16]
    with torch.no_grad():
        embedded = model.wte(x) + model.wpe(torch.arange(8))
        v = model.blocks[0].attn.c_attn(model.blocks[0].ln_1(embedded))[..., -8:]  # (W, T, 2 * h)
    heads = v.flatten(0, 1).unflatten(-1, (2, 4)).transpose(0, 1)
    assert found["effective_dimension"] == pytest.approx(participation_ratio(heads).mean().item(), rel=1e-5)


def test_entanglement_is_that_of_the_trained_circuits_states(tokens):
    model = small_gpt("angle:2", num_qubits=2)
    head = model.quantum_heads()[0][2]
    with torch.no_grad():
        head.weight.zero_()  # the ring of two CX gates is all that is left
    inputs = []
    handle = head.register_forward_hook(lambda module, args, output: inputs.append(args[0].detach().double()))
    windows = tokens[: 62 * 8].view(62, 8)[torch.arange(16) * 62 // 16]
    model(windows)
    handle.remove()
    states = []
    for angles in inputs[0].flatten(0, 2).tolist():
        values = dict(zip(head.circuit.input_params, angles, strict=True))
        values |= dict.fromkeys(head.circuit.weight_params, 0.0)
        states.append(torch.from_numpy(Statevector(head.circuit.circuit.assign_parameters(values)).data))
    expected = meyer_wallach(torch.stack(states)).mean().item()
    assert circuit_measures(model, tokens)["meyer_wallach"] == pytest.approx(expected, rel=1e-5)


def test_only_the_linear_map_decides_how_amplitude_encoded_data_is_spread(tokens):
    model = small_gpt("qisa:2")
    before = circuit_measures(model, tokens)
    with torch.no_grad():
        model.quantum_heads()[0][2].weight.uniform_(-1, 1)
    after = circuit_measures(model, tokens)
    assert after["expressibility"] == pytest.approx(before["expressibility"], rel=1e-6)
    assert after["meyer_wallach"] != before["meyer_wallach"]


def test_measures_are_reproducible_and_leave_model_and_generators_alone(tokens):
    model = small_gpt("qisa:1,classical:1").train()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    with model.to_backend("statevector?shots=10&seed=1"):
        first = circuit_measures(model, tokens, seed=3)
        assert model.head_backends()[0]["backend"].startswith("statevector?seed")
    assert torch.equal(state, torch.get_rng_state())
    assert model.training and all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert circuit_measures(model, tokens, seed=3) == first
    assert circuit_measures(model, tokens, seed=4) != first


def test_the_variance_of_one_rotations_gradient_is_one_half():
    theta = ParameterVector("θ", 1)
    circuit = by_hand(lambda ansatz: ansatz.ry(theta[0], 0), ("Z",))  # ⟨Z⟩ = cos θ, so Var[sin θ] = 1/2
    found = gradient_variance(circuit, torch.zeros(20_000, 1), torch.Generator().manual_seed(0))
    assert found == pytest.approx(0.5, abs=0.01)


def test_the_variance_is_a_mean_over_observables_and_weights():
    theta = ParameterVector("θ", 2)

    def draw(ansatz):
        ansatz.ry(theta[0], 0)
        ansatz.rz(theta[1], 0)  # ⟨Z⟩ = cos θ₀ and ⟨X⟩ = sin θ₀ cos θ₁

    circuit = by_hand(draw, ("Z", "X"))
    found = gradient_variance(circuit, torch.zeros(40_000, 1), torch.Generator().manual_seed(0))
    assert found == pytest.approx((1 / 2 + 0 + 1 / 4 + 1 / 4) / 4, abs=0.01)


def test_the_variance_falls_with_the_number_of_qubits(rng):
    found = []
    for num_qubits in (2, 4, 6):
        circuit = attention_circuit("qisa", num_qubits, reps=num_qubits)
        inputs = torch.from_numpy(rng.normal(size=(400, 2**num_qubits)))
        found.append(gradient_variance(circuit, inputs, torch.Generator().manual_seed(0)))
    assert found[1] < 0.5 * found[0] and found[2] < 0.5 * found[1]


def test_the_gradients_are_those_of_the_parameter_shift_rule(rng):
    circuit = attention_circuit("zz", 2)
    draws, generator = 3, torch.Generator().manual_seed(5)
    inputs = torch.from_numpy(rng.uniform(-1, 1, (draws, 2)))
    found = gradient_variance(circuit, inputs, torch.Generator().manual_seed(5))
    count, outputs = len(circuit.weight_params), len(circuit.labels)
    weights = math.pi * (2 * torch.rand(draws, count, generator=generator, dtype=torch.float64) - 1)
    signs = 2 * torch.randint(2, (draws, outputs), generator=generator) - 1

    def values(row, weight):
        named = dict(
            zip([*circuit.input_params, *circuit.weight_params], [*inputs[row].tolist(), *weight], strict=True)
        )
        state = Statevector(circuit.circuit.assign_parameters(named))
        return np.array([state.expectation_value(op).real for op in circuit.observables])

    squares = []
    for row in range(draws):
        for j in range(count):
            shift = np.eye(count)[j] * math.pi / 2
            slope = (values(row, weights[row].numpy() + shift) - values(row, weights[row].numpy() - shift)) / 2
            squares.append(float(slope @ signs[row].numpy()) ** 2)
    assert found == pytest.approx(np.mean(squares) / outputs, rel=1e-9)


def test_a_circuit_too_large_for_states_is_measured_in_its_space(tokens):
    config = GPTConfig(vocab_size=11, block_size=4, n_layer=1, n_head=1, n_embd=24, heads="orthogonal:1")
    found = circuit_measures(GPT(config), tokens)
    assert 0 < found["meyer_wallach"] < 1 and 0 < found["expressibility"] < 24 * math.log(BINS)
