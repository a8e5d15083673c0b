"""Compiled training beside the plain one; copies to a device; devices that are not there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from qiskit_qattn.errors import ConfigError
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.training import validation
from qiskit_qattn.training.acceleration import SLOW_STEPS
from qiskit_qattn.training.config import TrainConfig
from qiskit_qattn.training.metrics import read_metrics
from qiskit_qattn.training.progress import Progress
from qiskit_qattn.training.run import train_run

Tiny = Callable[..., TrainConfig]
COMPILED = pytest.mark.filterwarnings("ignore")  # torch's compiler warns of its own insides


class Killed(Progress):
    """Ends a run after a step, without time to save."""

    def __init__(self, step: int) -> None:
        self.last = step

    def step_done(self, step: int, loss: float | None, tokens_per_second: float) -> None:
        if step == self.last:
            raise KeyboardInterrupt


def losses(folder: Path) -> list[float]:
    figures = read_metrics(folder)
    assert figures is not None
    history = figures["history"]
    return [*(item["loss"] for item in history["train"]), *(item["val_loss"] for item in history["val"])]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


@pytest.mark.more  # half a minute of compilation
@COMPILED
def test_a_compiled_run_trains_as_the_plain_one_and_resumes_to_the_bit(tiny: Tiny, tmp_path: Path):
    torch.compiler.reset()
    plain, whole, parts = (tiny(compile=name != "plain", out=str(tmp_path / name)) for name in ("plain", "a", "b"))
    train_run(plain)
    train_run(whole)
    torch.testing.assert_close(losses(whole.folder), losses(plain.folder), rtol=0, atol=1e-4)
    saved = weights(whole.folder)
    assert saved.keys() == weights(plain.folder).keys()
    assert not any(name.startswith("_orig_mod") for name in saved)
    with pytest.raises(KeyboardInterrupt):
        train_run(parts, progress=Killed(8))
    compiled = dict(torch._dynamo.utils.counters["stats"])
    train_run(parts, resume=True)
    assert dict(torch._dynamo.utils.counters["stats"]) == compiled  # neither a new model nor a validation compiles anew
    assert losses(parts.folder) == losses(whole.folder)
    torch.testing.assert_close(weights(parts.folder), saved, rtol=0, atol=0)


@pytest.fixture
def other_precision() -> Iterator[None]:
    """Let a run have another precision than the process's others: Accelerate keeps it for all."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()
    yield
    AcceleratorState._reset_state()


@pytest.mark.more
@COMPILED
@pytest.mark.usefixtures("other_precision")
def test_compiled_steps_are_timed_without_their_compilation(tiny: Tiny):
    config = tiny(compile=True, heads="classical:2", mixed_precision="bf16", max_steps=6)
    train_run(config)
    figures = read_metrics(config.folder)
    assert figures is not None
    assert figures["train_seconds"] > 0
    assert figures["tokens_per_second"] * figures["train_seconds"] == pytest.approx((6 - SLOW_STEPS) * 4 * 8)


@COMPILED
def test_without_a_compiler_a_compiled_run_ends_before_its_folder_is_made(tiny: Tiny):
    from torch._inductor import config, cpp_builder

    torch.compiler.reset()
    cpp_builder.cpp_compiler_search.cache_clear()
    no_compiler = config.patch({"cpp.cxx": ("no-such-compiler",)})
    with no_compiler, pytest.raises(ConfigError, match=r"g\+\+.*--compile") as caught:
        train_run(tiny(compile=True))
    assert "\n" not in str(caught.value)
    assert not tiny().folder.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_gpu_that_is_not_there_is_named_in_one_line(tiny: Tiny):
    with pytest.raises(ConfigError, match=r"device is 'cuda', but torch .* 'auto' takes what there is") as caught:
        train_run(tiny(device="cuda"))
    assert "\n" not in str(caught.value)
    assert not tiny().folder.exists()


class Large(GPT):
    """Needs more memory than there is for more than 3 sequences."""

    def forward(self, idx: torch.Tensor, *args: Any, **options: Any) -> Any:
        if len(idx) > 3:
            torch.empty(2**60, dtype=torch.uint8)
        return super().forward(idx, *args, **options)


def test_the_largest_batch_that_fits_is_found_by_trying_runs(tiny: Tiny):
    from accelerate.utils import find_executable_batch_size

    tried = []

    @find_executable_batch_size(starting_batch_size=5)
    def train(batch_size: int) -> None:
        tried.append(batch_size)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(validation, "FINAL_TOKENS", 8)  # 1 sequence of 8 tokens
            train_run(tiny(batch_size=batch_size, max_steps=2, val_windows=4), model_class=Large)

    train()
    assert tried == [5, 4, 3]
    assert (tiny().folder / "model").is_dir()
