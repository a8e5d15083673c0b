"""Keys drawn by measuring circuits: states, frequencies, masked outcomes, and moves between backends."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from qiskit.quantum_info import Statevector
from torch import Tensor

import qiskit_qattn as qa
from qiskit_qattn.errors import ConfigError
from qiskit_qattn.nn.amplitude_sampling import AmplitudeSampler, key_circuit, walsh_hadamard
from qiskit_qattn.nn.draws import dense_weights
from qiskit_qattn.nn.sampling import SampledMean, Scheme
from qiskit_qattn.simulation.amplitude import amplitude_angles

NOISY = "density_matrix?noise=depolarizing&p1=0.01&p2=0.05"


@pytest.fixture
def p() -> Tensor:
    """Return the weights of causal rows of six keys."""
    logits = torch.randn(2, 2, 6, 6).masked_fill(~torch.ones(6, 6, dtype=torch.bool).tril(), -torch.inf)
    return logits.softmax(-1)


def test_outcomes_have_the_probabilities_of_attention(rng: np.random.Generator) -> None:
    weights = rng.dirichlet([0.5] * 8)
    weights[[2, 5]] = 0
    weights /= weights.sum()
    circuit = key_circuit(3)
    angles = amplitude_angles(torch.from_numpy(np.sqrt(weights)))
    bound = circuit.circuit.assign_parameters(dict(zip(circuit.input_params, angles.tolist(), strict=True)))
    np.testing.assert_allclose(Statevector(bound).probabilities(), weights, atol=1e-12)


def test_frequencies_are_read_off_products_of_z(rng: np.random.Generator) -> None:
    f = rng.dirichlet([1] * 8)
    signs = np.array([[(-1) ** (i & j).bit_count() for j in range(8)] for i in range(8)])
    found = walsh_hadamard(torch.from_numpy(signs @ f)) / 8
    np.testing.assert_allclose(found, f, atol=1e-12)


@pytest.mark.parametrize(
    "backend", ["statevector?shots=2000&seed=1", "aer?shots=2000&seed=1", "braket:local?shots=2000"]
)
def test_frequencies_of_shots_are_within_their_noise(backend: str, p: Tensor) -> None:
    sampler = AmplitudeSampler(3)
    rows = p[:1, :1] if backend.startswith("braket") else p
    with qa.to_backend(sampler, backend):
        draw = sampler.draw(rows)
        assert sampler.moved and sampler.shots == 2000 and sampler.rows == rows[..., 0].numel() and not sampler.empty
        assert sampler.discarded / sampler.rows < 1e-5  # without noise no outcome is on a masked key
    counts = draw.weights * 2000
    torch.testing.assert_close(counts, counts.round(), rtol=0, atol=0.01)
    assert not draw.weights[rows == 0].any()
    spread = (rows * (1 - rows) / 2000).sqrt()
    assert ((draw.weights - rows).abs() <= 5 * spread + 1e-6).all()


def test_outcomes_on_masked_keys_are_counted_and_not_used(p: Tensor) -> None:
    sampler = AmplitudeSampler(3)
    qa.to_backend(sampler, NOISY)
    draw = sampler.draw(p)
    assert not draw.weights[p == 0].any()
    torch.testing.assert_close(draw.weights.sum(-1), torch.ones(2, 2, 6))
    assert sampler.rows == 24 and 0.02 < sampler.discarded / 24 < 0.5
    once = sampler.discarded
    sampler.draw(p)
    assert sampler.discarded == pytest.approx(2 * once)


def test_a_row_that_sees_no_key_is_not_counted(p: Tensor) -> None:
    p[0, 0, 3] = 0
    sampler = AmplitudeSampler(3)
    with qa.to_backend(sampler, "statevector?shots=16&seed=1"):
        draw = sampler.draw(p)
        assert sampler.rows == 23 and not draw.weights[0, 0, 3].any()


def test_mixing_and_gradients_are_those_of_the_frequencies(p: Tensor) -> None:
    module = SampledMean(Scheme.parse("amplitude?qubits=3&gradient=score"))
    v = torch.randn(2, 2, 6, 4, requires_grad=True)
    logits = p.log().requires_grad_()
    taken: list[Tensor] = []
    module.watch = lambda draw, *_: taken.append(dense_weights(draw.indices, draw.weights, 6))
    with qa.to_backend(module, "statevector?shots=64&seed=5"):
        y = module(logits.softmax(-1), v)
        torch.testing.assert_close(y, taken[0] @ v)
        y.sum().backward()
    assert v.grad is not None and logits.grad is not None
    torch.testing.assert_close(v.grad, taken[0].sum(-2)[..., None].expand_as(v))
    assert logits.grad.nan_to_num().abs().sum() > 0
    module.watch = None
    assert torch.equal(module.eval()(p, v), SampledMean(Scheme.parse("naive")).eval()(p, v))  # back on the exact engine


def test_a_model_moves_with_its_sampling() -> None:
    config = qa.GPTConfig(
        n_layer=2, n_embd=16, n_head=2, num_qubits=2, block_size=8, heads="classical:2", sampling="amplitude?qubits=3"
    )
    model, tokens = qa.GPT(config).eval(), torch.randint(65, (1, 8))
    before = model(tokens)[0]
    assert float(qa.leakage(model)) == 0
    with model.to_backend("aer?shots=32&seed=2 -> statevector"):
        assert not torch.equal(model(tokens)[0], before)
        assert model.audit()["calls"] == {"aer?seed=2&shots=32": 2}
        cost = qa.estimate(model, tokens, "aer?shots=32")
        assert cost.total.circuits <= 2 * 2 * 8 and cost.total.shots == 32 * cost.total.circuits
        assert qa.inference(model)(tokens)[0].shape == before.shape
    assert torch.equal(model(tokens)[0], before)


def test_too_many_keys_and_bad_options_are_told(p: Tensor) -> None:
    sampler = AmplitudeSampler(2)
    with pytest.raises(ConfigError, match=r"A row has 6 keys, but 2 qubits have 4 outcomes: use amplitude\?qubits=3\."):
        sampler.draw(p)
    with pytest.raises(ConfigError, match="Sampling option qubits is for amplitude, but the strategy of"):
        Scheme.parse("naive?qubits=3")
    with pytest.raises(ConfigError, match="qubits must be an integer of at least 1 and at most 12"):
        Scheme.parse("amplitude?qubits=40")


def test_the_estimated_variance_is_of_the_outcomes_that_are_left(p: Tensor) -> None:
    """Rows lose outcomes to keys that they do not see: fewer samples, and with none of them no variance."""
    module, v = SampledMean(Scheme.parse("amplitude?qubits=3")).eval(), torch.randn(2, 2, 6, 4)
    taken: list[tuple[Tensor, Tensor | None]] = []
    module.watch = lambda draw, p, v, y: taken.append((draw.weights, module.estimated_variance(draw, p, v)))
    with qa.to_backend(module, "density_matrix?noise=depolarizing&p1=0.2&p2=0.5&shots=4&seed=3"):
        module(p, v)
    weights, told = taken[0]
    assert told is not None
    nothing = weights.sum(-1) == 0
    assert nothing.any() and told[nothing].isnan().all()
    spread = (weights @ v.square().sum(-1, keepdim=True))[..., 0] - (weights @ v).square().sum(-1)
    three = ((weights * 3 - 1).abs() < 1e-3).any(-1)  # thirds: three of the four outcomes are left
    assert three.any()
    torch.testing.assert_close(told[three], (spread / 2)[three], rtol=1e-3, atol=1e-5)


def test_a_control_variate_is_not_for_measured_frequencies() -> None:
    with pytest.raises(ConfigError, match=r"control is not for amplitude, but 'amplitude\?control=4' has it"):
        Scheme.parse("amplitude?control=4")
