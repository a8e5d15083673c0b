from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

import qiskit_qattn as qa
from qiskit_qattn.training.config import resolve
from qiskit_qattn.training.task import Task, batch_indices, data_hash, drawn, seeded
from qiskit_qattn.training.task_loop import train_task


def task(model: nn.Module | None = None, count: int = 10) -> Task:
    x = torch.arange(count * 3.0).view(count, 3) / 10
    return Task(model or nn.Linear(3, 1), (x, x.sum(1, keepdim=True)), (x, x.sum(1, keepdim=True)), nn.MSELoss())


def test_it_is_a_public_name():
    assert qa.Task is Task


@pytest.mark.parametrize(("count", "size"), [(10, 4), (10, 5), (3, 8), (7, 7), (1, 3)])
def test_every_pass_over_the_data_takes_each_item_once(count: int, size: int):
    drawn_items = [index for step in range(count) for index in batch_indices(count, size, step, seed=3)]
    assert len(drawn_items) == count * size
    epochs = [drawn_items[start : start + count] for start in range(0, len(drawn_items), count)]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    assert count < 7 or epochs[0] != epochs[1]
    assert batch_indices(count, size, count - 1, seed=3) == drawn_items[-size:]


def test_batches_depend_on_the_seed():
    assert batch_indices(100, 10, 0, seed=1) != batch_indices(100, 10, 0, seed=2)


def test_random_transforms_depend_on_the_seed_and_the_step_alone():
    class Noisy(Dataset[tuple[torch.Tensor, float]]):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> tuple[torch.Tensor, float]:
            return torch.rand(2) + np.random.rand() + random.random(), float(index)

    noisy = Task(nn.Linear(2, 1), Noisy(), Noisy(), nn.MSELoss())
    first = drawn(noisy, noisy.train, 1, 0, 4)[0]
    torch.rand(5), np.random.rand(), random.random()
    assert torch.equal(drawn(noisy, noisy.train, 1, 0, 4)[0], first)
    assert not torch.equal(drawn(noisy, noisy.train, 1, 1, 4)[0], first)
    config = resolve({"batch_size": 2})
    assert data_hash(noisy, config) == data_hash(noisy, config)


def test_random_states_are_restored():
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    with pytest.raises(KeyError), seeded(2**40):
        torch.rand(1), np.random.rand(), random.random()
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]
    assert random.getstate() == before[2]


def test_the_hash_sees_the_data(torch_seed: int):
    config = resolve({"batch_size": 4})
    x = torch.rand(10, 3)
    hashes = {
        data_hash(Task(nn.Linear(3, 1), TensorDataset(part, y), TensorDataset(x, x), nn.MSELoss()), config)
        for part, y in [(x, x), (x + 1, x), (x, x + 1), (x.double(), x), (x[:9], x[:9]), (x.bfloat16(), x)]
    }
    assert len(hashes) == 6
    assert data_hash(task(), config) == data_hash(task(nn.Linear(3, 1, bias=False)), config)


def test_the_final_loss_is_the_mean_over_all_items(tmp_path):
    config = resolve(
        {"batch_size": 4, "max_steps": 3, "warmup_steps": 0, "eval_interval": 2, "device": "cpu", "trackers": "none"}
    )
    own = task(count=10)  # batches of 4, 4 and 2
    own.model.train()
    figures = train_task(config, own, tmp_path / "run")
    x, y = own.validation.tensors
    assert figures["val_loss"] == pytest.approx(own.loss(own.model(x), y).item(), rel=1e-5)
    assert figures["step"] == 3
    assert figures["parameters"] == {"quantum": 0, "classical": 4, "total": 4}
    saved = torch.load(tmp_path / "run" / "model" / "weights.pt", weights_only=True)
    assert all(torch.equal(saved[name], value) for name, value in own.model.state_dict().items())


def test_angles_have_their_own_learning_rate(tmp_path):
    head = qa.QuantumHead(qa.attention_circuit("angle", num_qubits=2))
    first = nn.Linear(3, head.num_features)
    data = torch.rand(8, 3), torch.rand(8, len(head.gain))
    before = [part.weight.detach().clone() for part in (first, head)]
    settings = {"batch_size": 4, "max_steps": 2, "circuit_lr": 0.0, "warmup_steps": 0}
    config = resolve({**settings, "device": "cpu", "trackers": "none"})
    train_task(config, Task(nn.Sequential(first, head), data, data, nn.MSELoss()), tmp_path / "run")
    assert not torch.equal(first.weight, before[0])
    assert torch.equal(head.weight, before[1])


def test_a_metric_must_be_a_number_and_may_be_none(tmp_path):
    config = resolve({"batch_size": 4, "max_steps": 1, "device": "cpu", "trackers": "none"})
    own = task()
    broken = Task(own.model, own.train, own.validation, own.loss, {"spread": lambda output, target: output})
    with pytest.raises(qa.ConfigError, match=r"metric 'spread' must return one number, got a tensor of shape \(4, 1\)"):
        train_task(config, broken, tmp_path / "broken")
    empty = Task(own.model, own.train, own.validation, own.loss, lambda output, target: float("nan"))
    assert train_task(config, empty, tmp_path / "empty")["metrics"] == {"<lambda>": None}
