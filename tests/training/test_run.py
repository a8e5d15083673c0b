from __future__ import annotations

import dataclasses
import math
import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from qiskit_qattn.errors import CheckpointError, ConfigError, EncodingError, QattnError, RunFolderError, TokenError
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.training import trainer as trainer_module
from qiskit_qattn.training.config import TrainConfig
from qiskit_qattn.training.metrics import read_metrics
from qiskit_qattn.training.progress import Progress, TrainingInterrupted
from qiskit_qattn.training.run import saved_config, train_run
from qiskit_qattn.training.validation import Losses

Tiny = Callable[..., TrainConfig]


class StopAt(Progress):
    """Sends this process a signal when a model has done a number of steps."""

    def __init__(self, name: str, step: int, number: int = signal.SIGINT) -> None:
        self.name, self.step, self.number = name, step, number
        self.current = ""

    def phase_started(self, name: str, step: int, max_steps: int) -> None:
        self.current = name

    def step_done(self, step: int, loss: float | None, tokens_per_second: float) -> None:
        if (self.current, step) == (self.name, self.step):
            os.kill(os.getpid(), self.number)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let the system refuse to write files beyond ``size`` bytes, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def losses(folder: Path) -> dict[str, Any]:
    figures = read_metrics(folder)
    assert figures is not None
    return {key: figures[key] for key in ("train_loss", "val_loss", "val_loss_last_position", "history")}


def test_a_run_learns_and_leaves_its_parts(tiny: Tiny):
    config = tiny(max_steps=60, learning_rate=1e-2, min_lr=1e-3)
    finished = train_run(config)
    assert finished.folder == config.folder
    assert finished.is_main_process
    found = losses(config.folder)
    assert [item["step"] for item in found["history"]["val"]] == [*range(0, 60, 5), 60]
    assert [item["step"] for item in found["history"]["train"]] == [*range(1, 61)]
    assert found["val_loss"] < found["history"]["val"][0]["val_loss"] - 0.3
    assert sorted(path.name for path in config.folder.iterdir()) == [
        "checkpoints",
        "config.toml",
        "metrics.json",
        "model",
    ]
    assert sorted(path.name for path in (config.folder / "checkpoints").iterdir()) == ["step-55", "step-60"]
    assert saved_config(config.folder) == config


@pytest.mark.parametrize("stop", [1, 7, 10])
def test_a_resumed_run_repeats_the_uninterrupted_one_to_the_bit(tiny: Tiny, tmp_path: Path, stop: int):
    whole = tiny(dropout=0.1, out=str(tmp_path / "whole"))
    parts = tiny(dropout=0.1, out=str(tmp_path / "parts"))
    train_run(whole)
    before = signal.getsignal(signal.SIGINT)  # ignored, where the tests run in the background of a shell
    with pytest.raises(TrainingInterrupted) as caught:
        train_run(parts, progress=StopAt("model", stop))
    assert (caught.value.step, caught.value.folder, caught.value.signal) == (stop, parts.folder, signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    torch.rand(5)  # what happens in between does not matter
    train_run(parts, resume=True)
    assert losses(parts.folder) == losses(whole.folder)
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (whole.folder, parts.folder)]
    assert weights[0] == weights[1]


def test_a_killed_run_goes_on_from_its_last_checkpoint(tiny: Tiny, tmp_path: Path):
    class Killed(StopAt):
        def step_done(self, step: int, loss: float | None, tokens_per_second: float) -> None:
            if step == self.step:
                raise KeyboardInterrupt  # as a second Ctrl-C: no time to save

    whole, parts = tiny(out=str(tmp_path / "whole")), tiny(out=str(tmp_path / "parts"))
    train_run(whole)
    with pytest.raises(KeyboardInterrupt):
        train_run(parts, progress=Killed("model", 8))
    train_run(parts, resume=True)
    assert losses(parts.folder) == losses(whole.folder)


def test_a_run_stopped_in_its_baseline_resumes_there(tiny: Tiny, tmp_path: Path):
    whole = tiny(baseline=True, out=str(tmp_path / "whole"))
    parts = tiny(baseline=True, out=str(tmp_path / "parts"))
    train_run(whole)
    with pytest.raises(TrainingInterrupted) as caught:
        train_run(parts, progress=StopAt("baseline", 3, signal.SIGTERM))
    assert (caught.value.folder, caught.value.signal) == (parts.folder, signal.SIGTERM)
    model = (parts.folder / "metrics.json").read_bytes()
    train_run(parts, resume=True)
    assert (parts.folder / "metrics.json").read_bytes() == model
    assert losses(parts.folder / "baseline") == losses(whole.folder / "baseline")


def test_the_baseline_sees_the_same_batches(tiny: Tiny, monkeypatch: pytest.MonkeyPatch):
    seen: list[torch.Tensor] = []
    draw = trainer_module.random_batch

    def noted(*args: Any) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = draw(*args)
        seen.append(x)
        return x, y

    monkeypatch.setattr(trainer_module, "random_batch", noted)
    config = tiny(baseline=True)
    train_run(config)
    assert len(seen) % 2 == 0
    half = len(seen) // 2
    assert all(torch.equal(a, b) for a, b in zip(seen[:half], seen[half:], strict=True))
    assert GPT.from_pretrained(config.folder / "baseline" / "model").config.heads == "classical:2"


def test_more_steps_continue_a_finished_run(tiny: Tiny):
    config = tiny(max_steps=4)
    train_run(config)
    longer = dataclasses.replace(config, max_steps=6, baseline=True)
    train_run(longer, resume=True)
    assert [item["step"] for item in losses(config.folder)["history"]["train"]] == [*range(1, 7)]
    assert losses(config.folder / "baseline")["history"]["train"][-1]["step"] == 6
    with pytest.raises(ConfigError, match="past max_steps"):
        train_run(dataclasses.replace(config, max_steps=5), resume=True)
    assert saved_config(config.folder).max_steps == 6


def test_tensorboard_gets_the_losses(tiny: Tiny):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = tiny(trackers="tensorboard", max_steps=5)
    train_run(config)
    events = EventAccumulator(str(config.folder / "logs" / "training"))
    events.Reload()
    history = losses(config.folder)["history"]
    assert [event.value for event in events.Scalars("train_loss/model")] == pytest.approx(
        [item["loss"] for item in history["train"]]
    )
    assert len(events.Scalars("val_loss/model")) == 2


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"heads": "qisah:2"}, ConfigError),
        ({"heads": "qisa:3"}, ConfigError),
        ({"num_qubits": 1, "n_embd": 64}, QattnError),
        ({"sample_prompt": "€"}, TokenError),
        ({"data": "no/such/file"}, QattnError),
        ({"trackers": "tensorbord"}, ConfigError),
        ({"backend": "statevektor"}, QattnError),
        ({"learning_rate": 1e30, "warmup_steps": 0, "grad_clip": 0.0}, EncodingError),
        ({"learning_rate": 1e30, "warmup_steps": 0, "grad_clip": 0.0, "heads": "classical:2"}, ConfigError),
    ],
)
def test_what_cannot_run_leaves_no_folder(tiny: Tiny, changes: dict[str, Any], kind: type[Exception]):
    with pytest.raises(kind):
        train_run(tiny(**changes))
    assert not tiny().folder.exists()


@pytest.mark.parametrize(
    ("heads", "kind", "told"), [("classical:2", ConfigError, "loss is nan"), ("qisa:2", EncodingError, "diverged")]
)
def test_an_evaluated_loss_that_is_no_number_is_not_saved(tiny: Tiny, heads: str, kind: type[Exception], told: str):
    changes = {"learning_rate": 1e30, "warmup_steps": 0, "grad_clip": 0.0, "heads": heads}
    config = tiny(**changes, log_interval=100, eval_interval=1, checkpoint_interval=100)
    with pytest.raises(kind, match=f"{told} at step .; try a lower learning_rate"):
        train_run(config)
    assert not config.folder.exists()


@pytest.mark.parametrize("figure", [math.nan, math.inf])
def test_a_final_loss_that_is_no_number_is_not_saved(tiny: Tiny, monkeypatch: pytest.MonkeyPatch, figure: float):
    config = tiny(max_steps=2)
    monkeypatch.setattr(trainer_module.Trainer, "_validate", lambda self: None)
    monkeypatch.setattr(trainer_module, "evaluate", lambda *args, **options: Losses(figure, figure))
    with pytest.raises(ConfigError, match="lower learning_rate"):
        train_run(config)
    assert not (config.folder / "model").exists()
    assert read_metrics(config.folder) is None


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize(("step", "left"), [(3, False), (8, True)])
def test_any_failure_leaves_only_what_can_be_resumed(tiny: Tiny, error: type[BaseException], step: int, left: bool):
    class Fails(StopAt):
        def step_done(self, step: int, loss: float | None, tokens_per_second: float) -> None:
            if step == self.step:
                raise error

    config = tiny()
    with pytest.raises(error):
        train_run(config, progress=Fails("model", step))
    assert config.folder.exists() is left


def test_a_folder_that_exists_is_left_alone(tiny: Tiny):
    config = tiny()
    config.folder.mkdir()
    (config.folder / "mine").write_text("x")
    with pytest.raises(RunFolderError, match="--resume"):
        train_run(config)
    assert [path.name for path in config.folder.iterdir()] == ["mine"]


def test_a_folder_below_a_file_cannot_be_written(tiny: Tiny, text_file: Path):
    with pytest.raises(RunFolderError, match="Not a directory"):
        train_run(tiny(out=str(text_file / "run")))


@pytest.mark.parametrize("size", [0, 500, 4000])
def test_a_full_disk_leaves_nothing_half_written(tiny: Tiny, size: int):
    config = tiny()
    with largest_file(size), pytest.raises(RunFolderError, match="Cannot write"):
        train_run(config)
    assert not config.folder.exists()


def test_a_disk_that_fills_up_leaves_a_run_to_resume(tiny: Tiny, tmp_path: Path):
    class Fills(StopAt):
        def step_done(self, step: int, loss: float | None, tokens_per_second: float) -> None:
            if step == self.step:
                _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
                resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))

    config, whole = tiny(), tiny(out=str(tmp_path / "whole"))
    with largest_file(resource.RLIM_INFINITY), pytest.raises(RunFolderError, match="Cannot write"):
        train_run(config, progress=Fills("model", 7))
    assert [path.name for path in (config.folder / "checkpoints").iterdir()] == ["step-5"]
    train_run(config, resume=True)
    train_run(whole)
    assert losses(config.folder) == losses(whole.folder)


def test_there_must_be_a_run_to_resume(tiny: Tiny, tmp_path: Path):
    with pytest.raises(RunFolderError, match="no run folder"):
        train_run(tiny(), resume=True)
    with pytest.raises(RunFolderError, match="no run folder"):
        saved_config(tmp_path)


@pytest.fixture
def stopped(tiny: Tiny) -> TrainConfig:
    config = tiny()
    with pytest.raises(TrainingInterrupted):
        train_run(config, progress=StopAt("model", 7))
    return config


@pytest.mark.parametrize("part", ["trainer.pt", "state.json", "model/model.safetensors", "model/config.json"])
def test_a_damaged_checkpoint_is_refused_and_left(stopped: TrainConfig, part: str):
    path = stopped.folder / "checkpoints" / "step-7"
    (path / part).write_bytes((path / part).read_bytes()[:50])
    with pytest.raises(CheckpointError, match="step-7"):
        train_run(stopped, resume=True)
    shutil.rmtree(path)
    train_run(stopped, resume=True)


def test_a_checkpoint_of_another_model_is_refused(stopped: TrainConfig, tiny: Tiny, tmp_path: Path):
    other = tiny(n_embd=32, out=str(tmp_path / "other"))
    with pytest.raises(TrainingInterrupted):
        train_run(other, progress=StopAt("model", 8))
    (other.folder / "checkpoints" / "step-8").rename(stopped.folder / "checkpoints" / "step-8")
    with pytest.raises(CheckpointError, match="step-8"):
        train_run(stopped, resume=True)


def test_another_text_is_refused(stopped: TrainConfig, tmp_path: Path):
    text = Path(stopped.data).read_text()
    (tmp_path / "other.txt").write_text(text[::-1])
    with pytest.raises(ConfigError, match="not the one"):
        train_run(dataclasses.replace(stopped, data=str(tmp_path / "other.txt")), resume=True)


def test_damaged_settings_are_refused(stopped: TrainConfig):
    (stopped.folder / "config.toml").write_text("n_layers = 2\n")
    with pytest.raises(CheckpointError, match="damaged"):
        saved_config(stopped.folder)


@pytest.mark.parametrize("content", ["", "[]", '{"step": 3}', '{"val_loss": 1}', '{"step": "3", "val_loss": 1}'])
def test_damaged_figures_are_refused(tmp_path: Path, content: str):
    (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"metrics\.json"):
        read_metrics(tmp_path)
