"""Heads that mix positions: Quixer by its definition, on the exact engine and as circuits, and its control."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from qiskit.quantum_info import Operator, Statevector
from torch import nn

import qiskit_qattn as qa
from qiskit_qattn.errors import ConfigError, EncodingError
from qiskit_qattn.evaluation.device_run.record import check_compared
from qiskit_qattn.nn import kinds
from qiskit_qattn.nn.head_kind import HeadShape
from qiskit_qattn.nn.quixer import QuixerMixer, ReflectionMixer


class Running(nn.Module):
    """A user's own mixer: means of all positions so far."""

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()

    def forward(self, features, steps, real=None):
        seen = torch.ones(features.shape[0], features.shape[2]) if real is None else real.to(features)
        sums = (features * seen[:, None, :, None]).cumsum(2) / seen.cumsum(1).clamp_min(1)[:, None, :, None]
        return sums[:, :, -steps:]


SMALL = qa.HeadKind("quixer-small", circuit="quixer", mixer=partial(QuixerMixer, window=2, degree=1))
OWN = qa.HeadKind("running", mixer=Running, num_features=lambda shape: shape.head_size)


@pytest.fixture
def registered():
    """Register the kinds of this file, and take them out again."""
    before = dict(kinds._KINDS)
    yield [qa.register_head(kind).name for kind in (SMALL, OWN)]
    kinds._KINDS.clear()
    kinds._KINDS.update(before)


def mixer(count=2, num_qubits=2, outputs=5, **options):
    circuit = qa.attention_circuit("quixer", num_qubits, num_observables=outputs)
    return QuixerMixer(HeadShape(count, 8, outputs, num_qubits, circuit), **options)


def gpt(heads, **options):
    shape = {"vocab_size": 7, "block_size": 6, "n_layer": 1, "n_head": 2, "n_embd": 8, "num_qubits": 2} | options
    return qa.GPT(qa.GPTConfig(heads=heads, **shape))


def defined(head, features, real=None):
    """Return expectations and probabilities of a head by definition, in float64, from Qiskit's operators."""
    token, (batch, count, steps) = head.circuit, features.shape[:3]
    values = np.zeros((batch, count, steps, len(token.labels)))
    probabilities = np.zeros((batch, count, steps))
    b = head.coefficient.detach().double().numpy() @ [1, 1j]
    for i, h, t in np.ndindex(batch, count, steps):
        seen = [j for j in range(min(t + 1, head.window)) if real is None or real[i, t - j]]
        c = head.polynomial[h].detach().double().numpy()
        rows = features[i, h].detach().double().numpy()
        unitaries = [operator(token.encoding.circuit, token.encoding.params, rows[t - j]) for j in seen]
        m = sum(b[h, j] * u for j, u in zip(seen, unitaries, strict=True)) / np.abs(b[h, seen]).sum()
        state = sum(factor * np.linalg.matrix_power(m, k)[:, 0] for k, factor in enumerate(c))
        weights = head.weight[h].detach().double().numpy()
        state = operator(token.ansatz, token.weight_params, weights) @ state
        norm = np.linalg.norm(state)
        values[i, h, t] = [Statevector(state / norm).expectation_value(each).real for each in token.observables]
        probabilities[i, h, t] = norm**2 / np.abs(c).sum() ** 2
    return values, probabilities


def operator(circuit, params, values):
    return Operator(circuit.assign_parameters(dict(zip(params, values, strict=True)))).data


@pytest.mark.parametrize(("num_qubits", "window", "degree"), [(2, 3, 3), (3, 32, 2), (1, 2, 1)])
def test_values_and_probabilities_are_those_of_the_definition(num_qubits, window, degree):
    head = mixer(3, num_qubits, outputs=min(3, 2 * num_qubits), window=window, degree=degree)
    with torch.no_grad():
        head.polynomial[0] *= -1.0  # of any sign
        head.polynomial[1, 0] *= -1.0
    features = torch.randn(2, 3, 5, head.num_features)
    values, probabilities = defined(head, features)
    found, kept = head.post_selected(features, 5)
    np.testing.assert_allclose(found.detach(), values, atol=1e-6)
    np.testing.assert_allclose(kept.detach(), probabilities, atol=1e-6)
    np.testing.assert_allclose(head(features, 5).detach(), values * head.gain[:, None].detach().numpy(), atol=1e-5)


def test_gradients_are_those_of_finite_differences():
    head = mixer(2, outputs=2, window=2, degree=2).double()
    features = torch.randn(1, 2, 3, head.num_features, dtype=torch.float64, requires_grad=True)
    parameters = dict(head.named_parameters())

    def call(x, *given):
        return torch.func.functional_call(head, dict(zip(parameters, given, strict=True)), (x, 3))

    assert torch.autograd.gradcheck(call, (features, *parameters.values()))


@pytest.mark.parametrize("build", [mixer, lambda **options: ReflectionMixer(HeadShape(2, 8, 3, 2), **options)])
def test_outputs_see_their_window_and_no_padding(build):
    head = build(window=3)
    features = torch.randn(2, 2, 7, 8)
    before = head(features, 7)
    edited = features.clone()
    edited[:, :, 3] += 1
    changed = (head(edited, 7) != before).any(-1).all(1).all(0)
    assert changed.tolist() == [False] * 3 + [True] * 3 + [False]
    torch.testing.assert_close(head(features, 2), before[:, :, -2:])  # as with a cache
    real = torch.tensor([[False, False, True, True, True, True, True]]).expand(2, -1)
    padded, other = head(features, 7, real), torch.where(real[:, None, :, None], features, 5.0)
    assert padded.isfinite().all()
    assert torch.equal(head(other, 7, real)[:, :, 2:], padded[:, :, 2:])
    torch.testing.assert_close(padded[:, :, 2:], head(features[:, :, 2:], 5))


def test_padding_inside_a_window_is_left_out_by_definition():
    head = mixer(2, outputs=3, window=4, degree=2)
    features, real = torch.randn(1, 2, 5, head.num_features), torch.tensor([[True, False, True, True, True]])
    values, _ = defined(head, features, real)
    found, _ = head.post_selected(features, 5, real)
    np.testing.assert_allclose(found[:, :, 2:].detach(), values[:, :, 2:], atol=1e-6)


@pytest.mark.parametrize("padded", [False, True])
def test_the_circuit_on_aer_gives_the_values_and_gradients_of_the_exact_engine(padded):
    head = mixer(2, 1, outputs=2, window=2, degree=2).double()
    with torch.no_grad():
        head.polynomial[1, 1] *= -1.0
    features = torch.randn(2, 2, 2, head.num_features, dtype=torch.float64, requires_grad=True)
    real = torch.tensor([[True, True], [False, True]]) if padded else None
    wanted = [features, *head.parameters()]
    results = []
    for backend in ("statevector", "aer"):
        head.to_backend(backend)
        values = head(features, 2, real)[:, :, 1:]
        results.append([values, *torch.autograd.grad(values.square().sum(), wanted)])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-8, rtol=1e-6)


def test_sampled_ratios_are_within_their_shot_noise():
    head, shots = mixer(1, outputs=4, window=3, degree=2), 20_000
    features = torch.randn(1, 1, 4, head.num_features)
    with torch.no_grad():
        values, kept = head.post_selected(features, 4)
        head.to_backend(f"aer?shots={shots}&seed=3")
        found, sampled = head.post_selected(features, 4)
    assert ((sampled - kept).abs() < 5 * (kept / shots).sqrt()).all()
    assert ((found - values).abs() < 5 * 2 / (kept * shots).sqrt()[..., None]).all()  # of a ratio of two values
    assert (found != values).any()


def test_small_windows_run_in_a_gpt_on_a_backend_and_stay_causal(registered):
    model, idx = gpt("quixer-small:1,classical:1", block_size=3), torch.randint(7, (1, 3))
    before = model(idx)[0]
    model.to_backend("aer")
    torch.testing.assert_close(model(idx)[0], before, atol=1e-5, rtol=1e-5)
    assert float(qa.leakage(model, edits=1)) == 0.0
    assert model.head_backends()[1]["backend"] == "aer"
    assert qa.estimate(model, idx, "aer?shots=100").total.circuits > 0
    assert qa.estimate(model, idx, "statevector").total.circuits > 0
    with pytest.raises(ConfigError, match="quixer-small mix several tokens in a circuit"):
        check_compared(model, "aer")


def test_a_large_window_is_refused_elsewhere_and_the_model_stays_where_it_was():
    model = gpt("quixer:1,qisa:1")
    with pytest.raises(ConfigError, match=r"window of 32 tokens.*18 ancilla qubits on aer.*at most 9"):
        model.to_backend("aer")
    assert {row["backend"] for row in model.head_backends()} == {"statevector"}


@pytest.mark.parametrize("kind", ["quixer", "reflections"])
def test_attention_with_projections_of_its_own_takes_no_mixers(kind):
    with pytest.raises(ConfigError, match=f"{kind} heads mix positions without queries and keys"):
        qa.QuantumMultiheadAttention(8, 2, heads=f"{kind}:1,qisa:1")


def test_wrong_features_and_sizes_are_errors():
    head = mixer()
    with pytest.raises(EncodingError, match="length 8, got 3"):
        head(torch.randn(1, 2, 4, 3), 4)
    with pytest.raises(EncodingError, match="NaN"):
        head(torch.full((1, 2, 4, 8), torch.nan), 4)
    for options in ({"window": 0}, {"degree": 0}):
        with pytest.raises(ConfigError, match="window and degree must be at least 1"):
            mixer(**options)
        with pytest.raises(ConfigError, match="window and degree must be at least 1"):
            ReflectionMixer(HeadShape(2, 8, 3, 2), **options)


def test_the_control_is_the_same_polynomial_of_reflections_by_definition():
    head = ReflectionMixer(HeadShape(2, 8, 3, 2), window=3, degree=3)
    features = torch.randn(2, 2, 5, 8)
    found = head(features, 5).detach().numpy()
    b, c = (each.detach().double().numpy() for each in (head.coefficient, head.polynomial))
    factor, signs = (each.detach().double().numpy() for each in (head.readout.factor, head.readout.coefficient))
    for i, h, t in np.ndindex(2, 2, 5):
        m, total = np.zeros((4, 4)), 0.0
        for j in range(min(t + 1, 3)):
            u, v = features[i, h, t - j].double().numpy().reshape(2, 4)
            reflect = [np.eye(4) - 2 * np.outer(w, w) / (w @ w) for w in (u, v)]
            m, total = m + b[h, j] * reflect[0] @ reflect[1], total + abs(b[h, j])
        state = sum(each * np.linalg.matrix_power(m / total, k)[:, 0] for k, each in enumerate(c[h]))
        state /= np.linalg.norm(state)
        squares = (state @ factor[h]).reshape(3, 2) ** 2
        np.testing.assert_allclose(found[i, h, t], (squares * signs[h]).sum(-1), atol=1e-5)


def test_a_mixer_of_ones_own_is_one_module_and_one_registration(registered):
    model, idx = gpt("running:1,classical:1"), torch.randint(7, (2, 6))
    model(idx, idx)[1].backward()
    assert float(qa.leakage(model)) == 0.0
    assert torch.equal(model.generate(idx, 4, seed=1), model.generate(idx, 4, seed=1, use_cache=False))
    real = torch.tensor([[False] * 2 + [True] * 4, [True] * 6])
    other = torch.where(real, idx, (idx + 1) % 7)
    torch.testing.assert_close(model(other, real=real)[0][real], model(idx, real=real)[0][real])


@pytest.mark.parametrize("kind", ["quixer", "reflections"])
def test_padding_on_the_left_changes_nothing_with_a_cache_either(kind):
    model, idx = gpt(f"{kind}:1,classical:1").eval(), torch.randint(7, (2, 4))
    padded, real = torch.cat([torch.zeros(2, 2, dtype=torch.long), idx], 1), torch.ones(2, 6, dtype=torch.bool)
    real[:, :2] = False
    positions, caches = torch.tensor([[0, 0, 0, 1, 2, 3]]), [qa.KeyValueCache()]
    parts = [
        model(padded[:, a:b], caches=caches, position=a, positions=positions[:, a:b], real=real[:, :b])[0]
        for a, b in ((0, 4), (4, 5), (5, 6))
    ]
    torch.testing.assert_close(torch.cat(parts, 1)[:, 2:], model(idx)[0], atol=1e-5, rtol=1e-5)
