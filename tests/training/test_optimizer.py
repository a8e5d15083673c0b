from __future__ import annotations

import pytest
import torch
from torch import nn

from qiskit_qattn.training.config import TrainConfig
from qiskit_qattn.training.optimizer import clip_gradients, load_state, lr_factor, make_optimizer, set_learning_rates


@pytest.fixture
def model() -> nn.ModuleDict:
    return nn.ModuleDict({"layer": nn.Linear(3, 2), "circuit": nn.Linear(4, 2), "frozen": nn.Linear(2, 2)})


def optimizer_of(model: nn.ModuleDict, config: TrainConfig) -> torch.optim.AdamW:
    model["frozen"].requires_grad_(False)
    return make_optimizer(model, [*model["circuit"].parameters(), *model["frozen"].parameters()], config)


def test_each_trainable_weight_is_in_one_group(model: nn.ModuleDict):
    config = TrainConfig(learning_rate=0.1, circuit_lr=0.3, weight_decay=0.2)
    groups = {group["name"]: group for group in optimizer_of(model, config).param_groups}
    assert [tuple(p.shape) for p in groups["matrices"]["params"]] == [(2, 3)]
    assert [tuple(p.shape) for p in groups["vectors"]["params"]] == [(2,)]
    assert [tuple(p.shape) for p in groups["circuits"]["params"]] == [(2, 4), (2,)]
    assert {name: group["weight_decay"] for name, group in groups.items()} == {
        "matrices": 0.2,
        "vectors": 0.0,
        "circuits": 0.0,
    }
    assert groups["circuits"]["lr"] == 0.3
    assert groups["vectors"]["lr"] == 0.1


def test_the_schedule_warms_up_and_ends_at_the_floor():
    config = TrainConfig(learning_rate=1e-3, min_lr=1e-4, warmup_steps=10, max_steps=100)
    factors = [lr_factor(step, config) for step in range(101)]
    assert factors[0] == pytest.approx(1 / 11)
    assert factors[10] == pytest.approx(1)
    assert factors[100] == pytest.approx(0.1)
    assert factors[55] == pytest.approx(0.55)
    assert sorted(factors[:11]) == factors[:11]
    assert sorted(factors[10:], reverse=True) == factors[10:]
    assert lr_factor(3, TrainConfig(max_steps=3, warmup_steps=3)) == pytest.approx(1)


def test_the_schedule_scales_both_rates(model: nn.ModuleDict):
    optimizer = optimizer_of(model, TrainConfig(learning_rate=0.1, circuit_lr=0.3))
    set_learning_rates(optimizer, 0.5)
    set_learning_rates(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.025, 0.025, 0.075])


def norm(parameters: list[nn.Parameter]) -> float:
    return float(torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]).norm())


def test_circuits_and_layers_are_clipped_apart(model: nn.ModuleDict):
    config = TrainConfig(grad_clip=0.5, circuit_grad_clip=2.0)
    optimizer = optimizer_of(model, config)
    for p in [*model["layer"].parameters(), *model["circuit"].parameters()]:
        p.grad = torch.full_like(p, 100.0)
    clip_gradients(optimizer, config)
    assert norm(list(model["layer"].parameters())) == pytest.approx(0.5, rel=1e-4)
    assert norm(list(model["circuit"].parameters())) == pytest.approx(2.0, rel=1e-4)


def test_zero_means_no_clipping(model: nn.ModuleDict):
    config = TrainConfig(grad_clip=0.0, circuit_grad_clip=0.0)
    optimizer = optimizer_of(model, config)
    for p in model.parameters():
        p.grad = torch.full_like(p, 100.0)
    clip_gradients(optimizer, config)
    assert all((p.grad == 100).all() for p in model.parameters())


def test_a_state_from_another_device_is_loaded_with_this_devices_kernels(model: nn.ModuleDict):
    saved, own = (optimizer_of(model, TrainConfig()) for _ in range(2))
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    saved.step()
    state = saved.state_dict()
    for group in state["param_groups"]:
        group |= {"fused": True, "lr": 0.5}
    load_state(state, own)
    assert [(group["fused"], group["lr"]) for group in own.param_groups] == [(None, 0.5)] * 3
    assert own.state_dict()["state"].keys() == state["state"].keys()
    state["param_groups"][0]["betas"] = (0.5, 0.5)
    with pytest.raises(ValueError, match="betas"):
        load_state(state, own)
