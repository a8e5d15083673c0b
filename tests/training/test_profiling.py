"""What ``--profile`` records: nothing that a training computes changes, and the files say what happened."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch.nn.modules import module as torch_module

from qiskit_qattn.nn.config import GPTConfig
from qiskit_qattn.nn.gpt import GPT, Decoder
from qiskit_qattn.training import profiling
from qiskit_qattn.training.config import TrainConfig
from qiskit_qattn.training.metrics import read_metrics
from qiskit_qattn.training.profiling import MEMORY, MEMRAY, TRACE, StepProfiler, range_names, traced
from qiskit_qattn.training.run import train_run

Tiny = Callable[..., TrainConfig]


def trained(config: TrainConfig) -> tuple[object, dict[str, torch.Tensor]]:
    train_run(config)
    figures = read_metrics(config.folder)
    assert figures is not None
    return (figures["history"], figures["val_loss"]), GPT.from_pretrained(config.folder / "model").state_dict()


@pytest.mark.parametrize(
    "backend", ["statevector", pytest.param("statevector?shots=64&seed=3", marks=pytest.mark.more)]
)
def test_a_profiled_training_computes_the_same(tiny: Tiny, tmp_path: Path, backend: str):
    plain, weights = trained(tiny(backend=backend, dropout=0.1))
    profiled, others = trained(tiny(backend=backend, dropout=0.1, profile=True, out=str(tmp_path / "profiled")))
    assert profiled == plain
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert {path.name for path in (tmp_path / "profiled" / "profile").iterdir()} >= {TRACE, MEMORY}


def test_hooks_and_replaced_methods_are_gone_afterwards(tmp_path: Path):
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=5, block_size=4, n_layer=1, n_head=2, n_embd=8, heads="qisa:1,classical:1"))
    before = Decoder.unitaries
    with pytest.raises(KeyError), traced(model, tmp_path / TRACE):
        assert Decoder.unitaries is not before
        raise KeyError
    assert Decoder.unitaries is before
    assert not (torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks)


@pytest.mark.parametrize("max_steps", [2, 4, 9])
def test_a_training_that_ends_early_leaves_no_profiler_running(tiny: Tiny, max_steps: int):
    config = tiny(max_steps=max_steps, profile=True, baseline=True, warmup_steps=0)
    train_run(config)
    for folder in (config.folder, config.folder / "baseline"):
        assert (folder / "profile" / TRACE).is_file() == (max_steps > profiling.WARM_UP)
    with torch.profiler.profile() as alone:  # torch allows one at a time
        torch.ones(2).sum()
    assert alone.events()


def test_what_is_in_a_circuit_has_no_range_of_its_own():
    model = GPT(GPTConfig(vocab_size=5, block_size=4, n_layer=2, n_head=2, n_embd=8, heads="qisa:1,classical:1"))
    names = set(range_names(model).values())
    assert {"module GPT", "module blocks.1.attn.c_proj", "circuits blocks.0.attn.maps.qisa-v3"} <= names
    assert not any("maps.qisa-v3." in name for name in names)


def test_a_long_training_keeps_a_bounded_number_of_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(profiling, "_POINTS", 8)
    model = torch.nn.Linear(2, 2)
    with StepProfiler(model, tmp_path) as profiler:
        for step in range(1, 201):
            profiler.before_step()
            model(torch.ones(1, 2))
            profiler.after_step(step)
    record = json.loads((tmp_path / "profile" / MEMORY).read_text())
    steps = record["steps"]
    assert len(steps) == len(record["resident_mib"]) <= 8 and steps[-1] > 150
    assert len({b - a for a, b in pairwise(steps)}) == 1
    pytest.importorskip("memray")
    assert (tmp_path / "profile" / MEMRAY).stat().st_size > 0
