"""The quantum natural gradient is an optimizer as torch has them; its steps do not depend on how angles are chosen."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning.neural_networks import EstimatorQNN
from torch import distributed, nn

import qiskit_qattn as qa
from qiskit_qattn.errors import ConfigError
from qiskit_qattn.nn.connector import TorchConnector
from qiskit_qattn.simulation.metric import fubini_study, state_program
from qiskit_qattn.training.natural_gradient import QuantumNaturalGradient


def energy(circuit: QuantumCircuit, weights: ParameterVector, start: np.ndarray) -> TorchConnector:
    """Return ⟨XX + ZI⟩ as a module without inputs, in float64."""
    observable = SparsePauliOp(["XX", "ZI"])
    network = EstimatorQNN(circuit=circuit, observables=observable, input_params=[], weight_params=list(weights))
    model = TorchConnector(network, start).double()
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(start))
    return model


def two_layers(angles: list) -> QuantumCircuit:
    circuit = QuantumCircuit(2)
    for qubit in range(2):
        circuit.ry(angles[qubit], qubit)
    circuit.cx(0, 1)
    for qubit in range(2):
        circuit.rx(angles[2 + qubit], qubit)
    return circuit


def stepped(model: nn.Module, optimizer: torch.optim.Optimizer, *inputs: torch.Tensor) -> None:
    optimizer.zero_grad()
    model(*inputs).sum().backward()
    optimizer.step()


@pytest.mark.parametrize("heads", [(), (2, 3)])
def test_a_step_solves_with_the_metric_of_each_head(heads: tuple[int, ...]):
    head = qa.QuantumHead(qa.attention_circuit("qisa", num_qubits=2), heads)
    x = torch.randn(5, *heads, 7, 4) if heads else torch.randn(35, 4)  # a batch of 5, with heads on the second axis
    start = head.weight.detach().clone()
    optimizer = QuantumNaturalGradient([head.weight], head, lr=0.1, damping=0.05, momentum=0.0)
    stepped(head, optimizer, x)
    rows = x.movedim(0, -3).flatten(-3, -2) if heads else x  # (*heads, 35, 4)
    metric = fubini_study(state_program(head.circuit), rows, start).double() + 0.05 * torch.eye(start.shape[-1])
    expected = start - 0.1 * torch.linalg.solve(metric, head.weight.grad.double().unsqueeze(-1)).squeeze(-1)
    assert torch.allclose(head.weight.double(), expected, atol=1e-6)


def test_few_rows_of_many_are_taken():
    head = qa.QuantumHead(qa.attention_circuit("zz", num_qubits=2))
    optimizer = QuantumNaturalGradient([head.weight], head, rows=4)
    x = torch.randn(10, 3, 2)
    head(x).sum().backward()
    (rows,) = (kept.rows for kept in optimizer._kept.values())
    assert torch.equal(rows, x.flatten(0, 1)[::8])


def test_small_steps_do_not_depend_on_the_choice_of_parameters(rng: np.random.Generator):
    """With w = A u, both descend through the same states: without damping the step is δw = A δu."""
    w, u = ParameterVector("w", 4), ParameterVector("u", 4)
    change, start = rng.normal(size=(4, 4)), rng.normal(size=4)
    angles = [sum(float(c) * param for c, param in zip(row, u, strict=True)) for row in change]
    plain, other = energy(two_layers(list(w)), w, change @ start), energy(two_layers(angles), u, start)
    for model in (plain, other):
        optimizer = QuantumNaturalGradient([model.weight], model, lr=1e-3, damping=1e-12, momentum=0.0)
        stepped(model, optimizer)
    moved = torch.from_numpy(change) @ (other.weight.detach() - torch.from_numpy(start))
    assert torch.allclose(moved, plain.weight.detach() - torch.from_numpy(change @ start), atol=1e-7)


def test_it_finds_a_ground_state(rng: np.random.Generator):
    w = ParameterVector("w", 4)
    model = energy(two_layers(list(w)), w, rng.normal(size=4))
    optimizer = QuantumNaturalGradient([model.weight], model)
    for _ in range(120):
        stepped(model, optimizer)
    lowest = np.linalg.eigvalsh(SparsePauliOp(["XX", "ZI"]).to_matrix())[0]
    assert model().item() == pytest.approx(lowest, abs=1e-4)


def test_groups_schedulers_and_closures_work_as_in_torch():
    model = nn.Sequential(*(qa.QuantumHead(qa.attention_circuit("zz", num_qubits=2)) for _ in range(2)))
    first, second = (head.weight for head in model)
    groups = [{"params": [first], "lr": 0.0}, {"params": [second], "damping": 0.1}]
    optimizer = QuantumNaturalGradient(groups, model, lr=0.2)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    before = first.detach().clone(), second.detach().clone()
    x = torch.randn(4, 2)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        return loss

    loss = model(x).square().mean()
    assert torch.equal(optimizer.step(closure), loss)
    schedule.step()
    assert torch.equal(first, before[0]) and not torch.equal(second, before[1])
    assert [group["lr"] for group in optimizer.param_groups] == [0.0, 0.1]
    assert [group["damping"] for group in optimizer.param_groups] == [0.01, 0.1]


def test_a_loaded_state_goes_on_as_the_saved_one():
    circuit = qa.attention_circuit("qisa", num_qubits=2)
    model, x = qa.QuantumHead(circuit, (2,)), torch.randn(2, 6, 4)
    optimizer = QuantumNaturalGradient([model.weight], model)
    for _ in range(3):
        stepped(model, optimizer, x)
    copied = copy.deepcopy(model)
    other = QuantumNaturalGradient([copied.weight], copied, lr=1.0)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for each, its in ((model, optimizer), (copied, other)):
        stepped(each, its, x)
    assert torch.equal(model.weight, copied.weight)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model)), qa.inference])
def test_a_model_can_be_copied_and_calls_of_the_copy_change_no_step(copied):
    model = qa.GPT(
        qa.GPTConfig(vocab_size=5, block_size=4, n_layer=1, n_head=1, n_embd=4, heads="qisa:1", num_qubits=2)
    )
    weight = model.blocks[0].attn.maps["qisa-v3"].weight
    tokens, steps = torch.randint(5, (2, 4)), []
    for called in (False, True):
        optimizer = QuantumNaturalGradient([weight], model, lr=0.0)
        optimizer.zero_grad()
        model(tokens, tokens)[1].backward()
        if called:
            copied(model)(torch.zeros_like(tokens))
        optimizer.step()
        steps.append(optimizer.state[weight]["velocity"])
    assert steps[0].any() and torch.equal(*steps)


def test_it_trains_the_angles_of_a_gpt_beside_another_optimizer():
    config = qa.GPTConfig(vocab_size=5, block_size=4, n_layer=2, n_head=2, n_embd=8, heads="qisa:1,zz:1", num_qubits=2)
    model = qa.GPT(config)
    angles = list(model.circuit_parameters())
    known = set(angles)
    both = [
        QuantumNaturalGradient(angles, model),
        torch.optim.AdamW([weight for weight in model.parameters() if weight not in known], lr=1e-2),
    ]
    tokens = torch.randint(5, (3, 5))
    losses = []
    for _ in range(20):
        for optimizer in both:
            optimizer.zero_grad()
        loss = model(tokens[:, :-1], tokens[:, 1:])[1]
        loss.backward()
        for optimizer in both:
            optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_what_cannot_be_trained_is_refused(monkeypatch: pytest.MonkeyPatch):
    head = qa.QuantumHead(qa.attention_circuit("zz", num_qubits=2))
    with pytest.raises(ConfigError, match="shape \\(2,\\) is not the angles of a circuit"):
        QuantumNaturalGradient(head.parameters(), head)  # its gain
    for name, value in (("lr", -1.0), ("damping", 0.0), ("momentum", 1.0), ("rows", 0), ("lr", float("nan"))):
        with pytest.raises(ConfigError, match=f"{name} is "):
            QuantumNaturalGradient([head.weight], head, **{name: value})
    for heads, name in (("qmsan:1,classical:1", "PairHead"), ("quixer:2", "QuixerMixer")):
        config = qa.GPTConfig(vocab_size=5, block_size=4, n_layer=1, n_head=2, n_embd=8, heads=heads, num_qubits=2)
        other = next(each for each in qa.GPT(config).modules() if type(each).__name__ == name)
        with pytest.raises(
            ConfigError, match=f"is of a {name}, which gives its circuit other inputs than a QuantumHead"
        ):
            QuantumNaturalGradient([other.weight], other)
    optimizer = QuantumNaturalGradient([head.weight], head)
    head.weight.grad = torch.ones_like(head.weight)
    with pytest.raises(ConfigError, match="call the model with gradients before"):
        optimizer.step()
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    with pytest.raises(ConfigError, match="single process"):
        optimizer.step()
