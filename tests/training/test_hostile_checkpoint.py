"""A checkpoint with anything in it is continued or refused with one error, and never trained on half read."""

from __future__ import annotations

import json
import math
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from qiskit_qattn.errors import CheckpointError, ConfigError
from qiskit_qattn.training.config import TrainConfig
from qiskit_qattn.training.progress import Progress, TrainingInterrupted
from qiskit_qattn.training.run import train_run

STATES: list[Any] = [
    *({"step": step} for step in (1.5, 1e30, -1, 10**30, True, None, "5", [], 4, math.nan)),
    *({"tokens": tokens} for tokens in (-1, 0.5, "many", None)),
    *({name: seconds} for name in ("train_seconds", "wall_seconds", "cpu_seconds") for seconds in (-1, "1", None, {})),
    *({"train": train} for train in (None, {}, [1], [{"step": 1}], [{"step": "1", "loss": 0.5}], "abc")),
    *({"train": [{"step": step, "loss": 0.5}]} for step in (-1, 10**9)),
    *({"val": val} for val in ([{"step": 0, "train_loss": None, "val_loss": None, "val_loss_last_position": 1}], 1)),
    {"more": 1},
]


class StopAt(Progress):
    """Interrupts a training after a number of steps."""

    def __init__(self, step: int) -> None:
        self.step = step

    def step_done(self, step: int, loss: float | None, tokens_per_second: float) -> None:
        if step == self.step:
            signal.raise_signal(signal.SIGINT)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """Return the settings of a run that was stopped after its first checkpoint."""
    folder = tmp_path_factory.mktemp("stopped")
    (folder / "verse.txt").write_text("to be or not to be that is the question\n" * 40)
    config = TrainConfig.from_dict(
        {
            **{"data": str(folder / "verse.txt"), "out": str(folder / "run"), "trackers": "none", "device": "cpu"},
            **{"n_layer": 1, "n_head": 1, "n_embd": 8, "block_size": 4, "heads": "classical:1", "batch_size": 2},
            **{"max_steps": 8, "log_interval": 1, "eval_interval": 5, "eval_batches": 1, "checkpoint_interval": 5},
        }
    )
    with pytest.raises(TrainingInterrupted):
        train_run(config, progress=StopAt(5))
    return config


@pytest.fixture
def resume(stopped: TrainConfig, tmp_path: Path) -> Callable[[Callable[[Path], Any]], None]:
    """Return a function that spoils a copy of the checkpoint, and expects the refusal of its run."""

    def expect(spoil: Callable[[Path], Any]) -> None:
        shutil.copytree(stopped.folder, tmp_path / "run")
        spoil(tmp_path / "run" / "checkpoints" / "step-5")
        with pytest.raises((CheckpointError, ConfigError)) as error:
            train_run(stopped.replace(out=str(tmp_path / "run")), resume=True, progress=Progress())
        assert len(str(error.value)) < 600 and "\n" not in str(error.value)

    return expect


@pytest.mark.parametrize("change", STATES, ids=str)
def test_state(resume: Any, change: dict[str, Any]):
    def spoil(path: Path) -> None:
        record = json.loads((path / "state.json").read_text())
        (path / "state.json").write_text(json.dumps({**record, **change}))

    resume(spoil)


@pytest.mark.parametrize("content", ["[" * 100_000, '{"format": ' + "9" * 5000 + "}", "\0", "null", '"x"'])
@pytest.mark.parametrize("name", ["state.json", "model/config.json"])
def test_json(resume: Any, name: str, content: str):
    resume(lambda path: (path / name).write_text(content))


def optimizer(change: Callable[[dict[str, Any], dict[Any, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
    return lambda tensors: change(tensors["optimizer"], tensors["optimizer"]["state"][0])


TENSORS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "random is a number": lambda t: t.update(random=1),
    "random is a dict": lambda t: t.update(random={0: {}}),
    "random holds a number": lambda t: t.update(random=[1]),
    "random holds nothing": lambda t: t.update(random=[{}]),
    "text is a tensor": lambda t: t.update(text=torch.zeros(3)),
    "generator is text": lambda t: t.update(generator="x"),
    "generator is short": lambda t: t.update(generator=t["generator"][:10]),
    "generator is of floats": lambda t: t.update(generator=t["generator"].float()),
    "generator is of ones": lambda t: t.update(generator=torch.full_like(t["generator"], 255)),
    "optimizer is a list": lambda t: t.update(optimizer=[]),
    "optimizer is empty": lambda t: t.update(optimizer={}),
    "python's numbers": lambda t: t["random"][0].update(python=[3, [1, 2], None]),
    "python's negatives": lambda t: t["random"][0].update(python=[3, [-1] * 625, None]),
    "numpy's name": lambda t: t["random"][0]["numpy"].__setitem__(0, "PCG64"),
    "numpy's keys": lambda t: t["random"][0]["numpy"].__setitem__(1, [-1] * 624),
    "numpy's large keys": lambda t: t["random"][0]["numpy"].__setitem__(1, [2**40] * 624),
    "numpy's position": lambda t: t["random"][0]["numpy"].__setitem__(2, 10**9),
    "numpy's text": lambda t: t["random"][0]["numpy"].__setitem__(2, "x"),
    "numpy is short": lambda t: t["random"][0].update(numpy=[]),
    "torch's text": lambda t: t["random"][0].update(torch="x"),
    "torch's dtype": lambda t: t["random"][0].update(torch=torch.zeros(5056)),
    "no cuda": lambda t: t["random"][0].pop("cuda"),
    "moments of another shape": optimizer(lambda o, s: s.update(exp_avg=torch.zeros(3))),
    "moments of another dtype": optimizer(lambda o, s: s.update(exp_avg=s["exp_avg"].double())),
    "moments of whole numbers": optimizer(lambda o, s: s.update(exp_avg_sq=s["exp_avg_sq"].long())),
    "moments are text": optimizer(lambda o, s: s.update(exp_avg="x")),
    "moments are missing": optimizer(lambda o, s: s.pop("exp_avg_sq")),
    "a step is a list": optimizer(lambda o, s: s.update(step=[5])),
    "a step of many numbers": optimizer(lambda o, s: s.update(step=torch.zeros(7))),
    "a state of no weight": optimizer(lambda o, s: o["state"].update({99: s})),
    "a state of a name": optimizer(lambda o, s: o["state"].update(x=s)),
    "states are a list": optimizer(lambda o, s: o.update(state=[s])),
    "a state is a list": optimizer(lambda o, s: o["state"].update({0: [1]})),
    "no groups": optimizer(lambda o, s: o.update(param_groups=[])),
    "groups are numbers": optimizer(lambda o, s: o.update(param_groups=[1] * len(o["param_groups"]))),
    "a group of another name": optimizer(lambda o, s: o["param_groups"][0].update(name="x")),
    "a group of other weights": optimizer(lambda o, s: o["param_groups"][0].update(params=[0])),
    "a rate of text": optimizer(lambda o, s: o["param_groups"][0].update(lr="fast")),
    "a peak of text": optimizer(lambda o, s: o["param_groups"][0].update(peak_lr="high")),
    "betas of text": optimizer(lambda o, s: o["param_groups"][0].update(betas=("a", "b"))),
    "one beta": optimizer(lambda o, s: o["param_groups"][0].update(betas=(0.9,))),
}


@pytest.mark.parametrize("change", TENSORS.values(), ids=TENSORS)
def test_tensors(resume: Any, change: Callable[[dict[str, Any]], Any]):
    def spoil(path: Path) -> None:
        tensors = torch.load(path / "trainer.pt", weights_only=True)
        change(tensors)
        torch.save(tensors, path / "trainer.pt")

    resume(spoil)


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w.update({"wpe.weight": w["wpe.weight"].long()}),
        lambda w: w.update({"ln_f.weight": w["ln_f.weight"].int()}),
        lambda w: w.update({"ln_f.weight": w["ln_f.weight"][:2].clone()}),
        lambda w: w.update({"wpe.weight": w["wpe.weight"].to(torch.complex64)}),
        lambda w: w.update({name: value.half() for name, value in w.items()}),
        lambda w: w.update(more=torch.zeros(1)),
        lambda w: w.pop("ln_f.weight"),
        lambda w: w.pop("wpe.weight"),
        lambda w: w.clear(),
    ],
)
def test_weights(resume: Any, change: Callable[[dict[str, torch.Tensor]], Any]):
    def spoil(path: Path) -> None:
        weights = load_file(path / "model" / "model.safetensors")
        change(weights)
        save_file(weights, path / "model" / "model.safetensors")

    resume(spoil)


@pytest.mark.parametrize(
    "change",
    [
        {"n_embd": 10**12},
        {"n_layer": 10**12},
        {"n_layer": 1.0},
        {"n_head": "1"},
        {"heads": [["classical:1"]]},
        {"heads": {"classical": 1}},
        {"heads": None},
        {"dropout": "0"},
        {"dropout": 0.5},
        {"observables": [1]},
        {"observables": {"classical": ["Z"]}},
        {"vocab_size": -1},
        {"more": 1},
    ],
    ids=str,
)
def test_model_config(resume: Any, change: dict[str, Any]):
    def spoil(path: Path) -> None:
        file = path / "model" / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **change}))

    resume(spoil)


@pytest.mark.parametrize("name", ["step-" + "9" * 5000, "step-²", "step-99999999999999999999"])
def test_a_name_that_is_no_step_is_ignored(stopped: TrainConfig, tmp_path: Path, name: str):
    shutil.copytree(stopped.folder, tmp_path / "run")
    try:
        (tmp_path / "run" / "checkpoints" / name).mkdir()
    except OSError:  # longer than the file system allows
        return
    assert train_run(stopped.replace(out=str(tmp_path / "run")), resume=True, progress=Progress()).is_main_process


def test_a_resumed_run_removes_what_a_killed_process_left(stopped: TrainConfig, tmp_path: Path):
    shutil.copytree(stopped.folder, tmp_path / "run")
    left = [tmp_path / "run" / ".0123456789abcdef.qattn-tmp", tmp_path / "run" / "checkpoints" / ".fedcba.qattn-tmp"]
    left[0].write_text("half a file")
    left[1].mkdir()
    train_run(stopped.replace(out=str(tmp_path / "run")), resume=True, progress=Progress())
    assert not any(path.exists() for path in left)
