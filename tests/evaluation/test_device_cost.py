"""What one call or training step of any model would send, against what it does send."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from qiskit_qattn import GPT, ConfigError, GPTConfig, QuantumHead, attention_circuit, estimate, get_backend, to_backend
from qiskit_qattn.backends.counting import CountingEstimator
from qiskit_qattn.backends.jobs.device import Cost
from qiskit_qattn.backends.registry import Backend


class Model(nn.Module):
    """Two heads of someone's own model, behind a layer with running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.heads = nn.ModuleList(QuantumHead(attention_circuit(name, 2)) for name in ("qisa-v3", "zz"))
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:  # (B, 4)
        values = self.heads[0](self.norm(x))[:, :2]
        return self.heads[1](self.drop(scale * values)[:, :2])


def square(y: Tensor) -> Tensor:
    return y.square().sum()


def sent(model: nn.Module, backend: Backend, run: Callable[[], object]) -> Cost:
    """Return what a run sends to a backend that answers."""
    counting = CountingEstimator(getattr(backend.estimator, "device", None), estimator=backend.estimator)
    with to_backend(model, replace(backend, estimator=counting, program=None, differentiable=False)):
        run()
    return counting.total


@pytest.mark.parametrize("text", ["aer?shots=100&seed=1", "ibm:fake_manila?shots=100&seed=1", "statevector"])
def test_a_call_and_a_step_are_estimated_as_they_are_sent(text: str):
    model, x = Model().eval(), torch.rand(3, 4)
    backend = get_backend(text)
    with torch.no_grad():
        assert estimate(model, x, text).total == sent(model, backend, lambda: model(x))
    step = estimate(model, {"x": x, "scale": 2.0}, text, loss=square)
    assert step.total == sent(model, backend, lambda: square(model(x, 2.0)).backward())
    assert step.total.jobs == 4 and step.first == estimate(model, (x, 2.0), backend).first
    assert (step.total.seconds > 0) == text.startswith("ibm")


def test_the_model_is_left_as_it_was():
    model, x = Model(), torch.rand(3, 4)
    square(model(x)).backward()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    random = torch.get_rng_state()
    estimate(model, x, "aer?shots=10", loss=square)
    assert model.training and torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(map(torch.equal, [parameter.grad for parameter in model.parameters()], gradients))
    x = torch.rand(3, 4, requires_grad=True)
    inside = 2 * x
    assert estimate(model, x, "aer?shots=10", loss=square).total.circuits > 0
    estimate(model, inside, "aer?shots=10", loss=square)
    assert x.grad is None
    inside.sum().backward()  # the caller's graph is still there
    with pytest.raises(ZeroDivisionError):
        estimate(model, x, "aer?shots=10", loss=lambda y: 1 / 0)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(head.place.name == "statevector" for head in model.heads)


def test_a_gpt_and_a_chain_are_estimated_by_the_same_function():
    config = GPTConfig(vocab_size=11, block_size=6, n_layer=2, n_head=2, n_embd=8, heads="qisa:1,zz:1", num_qubits=2)
    model, idx = GPT(config), torch.randint(0, 11, (2, 5))
    found = estimate(model, idx, "aer?shots=100 -> statevector")
    assert found == estimate(model, (idx,), "aer?shots=100") and found.total.jobs == 2
    trained = estimate(model, (idx, idx), "aer?shots=100", loss=lambda output: output[1])
    assert trained.total.jobs == 4 and trained.total.circuits > 10 * found.total.circuits


def test_what_cannot_be_estimated_is_refused():
    with pytest.raises(ConfigError, match="Linear holds no circuit"):
        estimate(nn.Linear(2, 2), torch.rand(1, 2), "aer")
    with pytest.raises(ConfigError, match="shots"):
        estimate(Model(), torch.rand(1, 4), "aer?shots=none")
