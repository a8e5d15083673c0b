"""Costs by phase and module add up, and belong to what caused them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.profiler import record_function

from qiskit_qattn.evaluation.profile import NOT_ATTRIBUTED, OUTSIDE, trace_costs
from qiskit_qattn.nn.config import GPTConfig
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.training.profiling import traced


class Cubes(torch.autograd.Function):
    """x³, whose gradient allocates a MiB."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        for _ in range(200):
            torch.ones(2**18)
        return 3 * x * x * grad


class Slow(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return Cubes.apply(x)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, loss: Any) -> None:
    with record_function("phase forward"):
        value = loss()
    with record_function("phase backward"):
        value.backward()
    with record_function("phase optimizer"):
        optimizer.step()
        optimizer.zero_grad()


def events(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text())["traceEvents"]


def durations(path: Path, name: str) -> float:
    return sum(each["dur"] for each in events(path) if each["name"] == name) / 1000


def test_parts_add_up_to_the_step(tmp_path: Path):
    torch.manual_seed(0)
    config = GPTConfig(vocab_size=9, block_size=8, n_layer=3, n_head=2, n_embd=8, heads="qisa:1,classical:1")
    model = GPT(config)
    optimizer, x = torch.optim.AdamW(model.parameters()), torch.randint(9, (4, 8))
    with traced(model, tmp_path / "trace.json"):
        for _ in range(2):
            step(model, optimizer, lambda: model(x, x)[1])
    costs = trace_costs(events(tmp_path / "trace.json"))
    assert (costs["steps"], costs["device"]) == (2, "CPU")
    phases = {phase["name"]: phase for phase in costs["phases"]}
    for name, phase in phases.items():
        assert phase["ms"] == pytest.approx(durations(tmp_path / "trace.json", f"phase {name}") / 2, rel=1e-6)
    for name in ("forward", "backward"):
        assert sum(part[f"{name}_ms"] for part in costs["parts"]) == pytest.approx(phases[name]["ms"], rel=1e-6)
        circuits = sum(part[f"{name}_ms"] for part in costs["parts"] if part["circuits"])
        assert circuits == pytest.approx(phases[name]["circuits_ms"]) and 0 < circuits < phases[name]["ms"]
    names = {part["name"] for part in costs["parts"]}
    assert {"GPT", "unitaries", "blocks.*.attn.maps.qisa-v3", "blocks.*.mlp.c_fc", "ln_f"} <= names
    assert sum(part["kept_mib"] for part in costs["parts"]) == pytest.approx(phases["forward"]["kept_mib"], abs=1e-9)
    assert costs["curve"]["mib"][0] == 0 and max(costs["curve"]["mib"]) >= phases["forward"]["peak_mib"] > 0


def test_backward_time_belongs_to_the_module_of_the_forward_operation(tmp_path: Path):
    model = nn.Sequential(nn.Linear(4, 4), Slow(), nn.Linear(4, 4))
    optimizer, x = torch.optim.SGD(model.parameters(), 1e-3), torch.ones(3, 4)
    with traced(model, tmp_path / "trace.json"):
        for _ in range(3):
            step(model, optimizer, lambda: model(x).square().sum())
    costs = trace_costs(events(tmp_path / "trace.json"))
    parts = {part["name"]: part for part in costs["parts"]}
    assert parts.keys() == {"*", "Sequential", OUTSIDE, NOT_ATTRIBUTED}
    slow = durations(tmp_path / "trace.json", "autograd::engine::evaluate_function: CubesBackward") / 3
    assert slow > 0.2 and parts["*"]["backward_ms"] >= slow
    assert parts[OUTSIDE]["backward_ms"] < parts["*"]["backward_ms"]  # of the loss
    [backward] = [phase for phase in costs["phases"] if phase["name"] == "backward"]
    assert 1 <= backward["peak_mib"] < 2.5  # one of the 200 at a time


def op(name: str, start: float, length: float, **args: Any) -> dict[str, Any]:
    category = "user_annotation" if name.split()[0] in ("phase", "module", "circuits") else "cpu_op"
    return {"ph": "X", "cat": category, "name": name, "ts": start, "dur": length, "tid": 1, "args": args}


def memory(start: float, size: int) -> dict[str, Any]:
    return {
        **{"ph": "i", "cat": "cpu_instant_event", "name": "[memory]", "ts": start, "tid": 1},
        "args": {"Bytes": size, "Device Type": 0},
    }


STEP = [
    op("phase forward", 0, 1000),
    op("module Net", 100, 800),
    op("circuits heads.0", 200, 300),
    op("aten::mm", 250, 100, **{"Sequence number": 7, "Fwd thread id": 0}),
    memory(260, 3 * 2**20),
    memory(300, -(2**20)),
    op("circuits jobs", 400, 50),  # inside a circuit already
    op("aten::view", 600, 10, **{"Sequence number": 8, "Fwd thread id": 0}),  # makes no node
    op("circuits heads.1", 700, 100),
    op("aten::exp", 710, 50, **{"Sequence number": 8, "Fwd thread id": 0}),
    op("phase backward", 1000, 500),
    op("autograd::engine::evaluate_function: ExpBackward0", 1010, 200, **{"Sequence number": 8, "Fwd thread id": 1}),
    op("autograd::engine::evaluate_function: MmBackward0", 1210, 100, **{"Sequence number": 7, "Fwd thread id": 1}),
    op("aten::mm", 1220, 40),
    op("phase optimizer", 1500, 100),
]


def test_a_trace_by_hand():
    costs = trace_costs(STEP)
    phases = {phase["name"]: phase for phase in costs["phases"]}
    assert [phase["ms"] for phase in costs["phases"]] == [1.0, 0.5, 0.1]
    assert phases["forward"]["circuits_ms"] == pytest.approx(0.4)
    assert phases["backward"]["circuits_ms"] == pytest.approx(0.3)
    assert (phases["forward"]["peak_mib"], phases["forward"]["kept_mib"]) == (3, 2)
    parts = {part["name"]: part for part in costs["parts"]}
    assert parts["heads.*"] == {
        **{"name": "heads.*", "circuits": True, "peak_mib": 3.0, "kept_mib": 2.0},
        **{"forward_ms": pytest.approx(0.4), "backward_ms": pytest.approx(0.3)},
    }
    assert parts["Net"]["forward_ms"] == pytest.approx(0.4) and parts[OUTSIDE]["forward_ms"] == pytest.approx(0.2)
    assert parts[NOT_ATTRIBUTED]["backward_ms"] == pytest.approx(0.2)
    functions = {each["name"]: each for each in costs["functions"]}
    assert functions["aten::mm"]["calls"] == 2 and functions["aten::mm"]["self_ms"] == pytest.approx(0.14)


def test_kernels_of_a_gpu_count_instead_of_the_calls_that_start_them():
    def launched(by: int, length: float) -> dict[str, Any]:
        return {
            **{"ph": "X", "cat": "kernel", "name": "gemm", "ts": 5000, "dur": length, "tid": 7},
            "args": {"External id": by},
        }

    numbered = [{**each, "args": {**each["args"], "External id": i}} for i, each in enumerate(STEP)]
    costs = trace_costs([*numbered, launched(3, 60), launched(3, 40), launched(13, 500)])
    assert costs["device"] == "GPU"
    parts = {part["name"]: part for part in costs["parts"]}
    assert (parts["heads.*"]["forward_ms"], parts["heads.*"]["backward_ms"]) == (0.1, 0.5)
    assert sum(phase["ms"] for phase in costs["phases"]) == pytest.approx(0.6)


@pytest.mark.parametrize(
    "wrong", [[], [{}], [1], STEP[:5], [{**STEP[0], "dur": None}], [{**STEP[0], "args": None}], [{"ph": "X"}]]
)
def test_what_is_no_trace_is_refused(wrong: list[Any]):
    with pytest.raises(ValueError):
        trace_costs(wrong)
