"""Training with sampled attention: schedules, and runs that go on from a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from qiskit_qattn.nn.sampling import SampledMean
from qiskit_qattn.training.config import TrainConfig
from qiskit_qattn.training.progress import Progress
from qiskit_qattn.training.run import train_run


class Killed(Progress):
    """Ends a run after a step, without time to save."""

    def step_done(self, step: int, loss: float | None, tokens_per_second: float) -> None:
        if step == 8:
            raise KeyboardInterrupt


def test_a_resumed_run_draws_what_the_whole_one_draws(
    tiny: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    plain = SampledMean.forward

    def forward(self: SampledMean, *args: object, **options: object) -> torch.Tensor:
        drawn.extend([self.samples or 0] * self.training)
        return plain(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(SampledMean, "forward", forward)
    whole, parts = (tiny(sampling="stratified?samples=2..8&steps=12", out=str(tmp_path / name)) for name in "ab")
    train_run(whole)
    assert drawn == [2] * 4 + [4] * 4 + [8] * 4  # one group of heads: qisa and classical are scored alike
    with pytest.raises(KeyboardInterrupt):
        train_run(parts, progress=Killed())
    train_run(parts, resume=True)
    saved, again = (load_file(config.folder / "model" / "model.safetensors") for config in (whole, parts))
    torch.testing.assert_close(again, saved, rtol=0, atol=0)


def test_settings_hold_no_sampling_as_an_empty_text(tiny: Callable[..., TrainConfig]) -> None:
    assert tiny().model.sampling is None and tiny(sampling="").to_dict()["sampling"] == ""
    assert 'sampling = "naive?samples=4"' in tiny(sampling="naive?samples=4").to_toml()
