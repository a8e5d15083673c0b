"""The density_matrix backend and its noise options."""

import numpy as np
import pytest
import torch

from qiskit_qattn import GPT, GPTConfig, QuantumHead, TorchConnector, attention_circuit, get_backend
from qiskit_qattn.errors import ConfigError, UnknownNameError
from qiskit_qattn.simulation.density_matrix import DensityMatrixProgram

aer_noise = pytest.importorskip("qiskit_aer.noise")
NOISES = [
    "density_matrix",
    "density_matrix?noise=depolarizing&p1=0.001&p2=0.01",
    "density_matrix?noise=amplitude_damping&gamma=0.02",
    "density_matrix?noise=phase_damping&gamma=0.02&readout=0.03",
    "density_matrix?noise=thermal&t1=100&t2=80",
    "density_matrix?noise=readout&readout=0.03",
]


@pytest.mark.parametrize("text", NOISES)
def test_heads_train_under_every_noise(text):
    head = QuantumHead(attention_circuit("qisa", 2), (2,))
    x = torch.randn(2, 5, 4, requires_grad=True)
    exact = head(x).detach()
    head.to_backend(text)
    assert head.backend.differentiable
    values = head(x)
    values.square().sum().backward()
    assert x.grad.isfinite().all() and head.weight.grad.abs().max() > 0
    difference = (values - exact).abs().max()
    assert difference < 1e-5 if text == "density_matrix" else 1e-4 < difference < 1.5


def test_more_noise_means_smaller_values():
    head = QuantumHead(attention_circuit("qisa", 3))
    x = torch.randn(64, 8)
    sizes = []
    for p in (0, 0.01, 0.1, 0.5):
        sizes.append(head.to_backend(f"density_matrix?noise=depolarizing&p1={p}&p2={p}")(x).abs().mean().item())
    assert sizes == sorted(sizes, reverse=True)


def test_a_model_trains_and_generates_under_noise():
    config = GPTConfig(vocab_size=11, block_size=8, n_layer=1, n_head=2, n_embd=8, num_qubits=2, heads="qisa:1,zz:1")
    model = GPT(config).to_backend("density_matrix?noise=depolarizing&p1=0.01&p2=0.02")
    idx = torch.randint(0, 11, (4, 8))
    model(idx, idx)[1].backward()
    assert all(p.grad is not None for p in model.circuit_parameters())
    assert model.generate(idx[:, :2], 5, seed=1).shape == (4, 7)
    assert {row["backend"] for row in model.head_backends()} == {"density_matrix?noise=depolarizing&p1=0.01&p2=0.02"}


def test_a_connector_on_the_noisy_estimator_runs_on_the_noisy_engine():
    circuit = attention_circuit("zz", 2)
    layer = TorchConnector(circuit.qnn("density_matrix?noise=depolarizing&p1=0.01&p2=0.05"))
    assert isinstance(layer._program, DensityMatrixProgram)
    x = torch.rand(3, 2, requires_grad=True)
    layer(x).sum().backward()
    values = layer.neural_network.forward(x.detach().numpy(), layer.weight.detach().numpy())
    np.testing.assert_allclose(layer(x).detach(), values, atol=1e-5)


def test_a_fake_device():
    pytest.importorskip("qiskit_ibm_runtime")
    head = QuantumHead(attention_circuit("qisa", 2)).double()
    x = torch.randn(4, 4, dtype=torch.float64)
    exact = head(x)
    noisy = head.to_backend("density_matrix?noise=fake_manila")(x)
    without_readout = head.to_backend("density_matrix?noise=fake_manila&readout=off")(x)
    assert 1e-3 < (noisy - exact).abs().max() < 1.0
    assert (without_readout - exact).abs().mean() < (noisy - exact).abs().mean()
    with pytest.raises(UnknownNameError, match="Did you mean 'fake_manila'"):
        get_backend("density_matrix?noise=fake_manilla")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("density_matrix?noise=depolarising&p1=0&p2=0", UnknownNameError, "Did you mean 'depolarizing'"),
        ("density_matrix?noise=depolarizing&p1=0.1", ConfigError, "needs p2"),
        ("density_matrix?noise=depolarizing&p1=2&p2=0", ConfigError, "between 0 and 1, got 2"),
        ("density_matrix?noise=depolarizing&p1=x&p2=0", ConfigError, "must be a number"),
        ("density_matrix?noise=thermal&t1=10&t2=30", ConfigError, "t2 must lie between 0.001 and 20"),
        ("density_matrix?noise=readout", ConfigError, "noise=readout needs readout: probability"),
        ("density_matrix?noise=readout&readout=0.7.1", ConfigError, "readout must be a number"),
        ("density_matrix?p1=0.1", ConfigError, "p1 has no effect with no noise; it is for noise=depolarizing"),
        ("density_matrix?readout=0.1", ConfigError, "readout has no effect with no noise; it is for every noise"),
        ("density_matrix?noise=thermal&t1=9&t2=9&gamma=0", ConfigError, "for noise=amplitude_damping, noise=phase"),
        ("density_matrix?noise=fake_manila&p1=0", ConfigError, "p1 has no effect with noise=fake_manila"),
        ("density_matrix?noise=fake_manila&readout=0.1", ConfigError, "only readout=off"),
        ("density_matrix?p=1", UnknownNameError, "option of backend 'density_matrix': 'p'"),
        ("density_matrix:x", ConfigError, "takes no target"),
    ],
)
def test_errors_say_what_is_allowed(text, error, message):
    with pytest.raises(error, match=message):
        get_backend(text)
