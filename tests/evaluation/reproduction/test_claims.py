from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from qiskit_qattn.errors import ConfigError, UnknownNameError
from qiskit_qattn.evaluation.reproduction import gpt_losses, qasa, qisa_leak, qisa_speed
from qiskit_qattn.evaluation.reproduction.claims import reproduce
from qiskit_qattn.evaluation.reproduction.qisa_speed import in_turns, slow_down
from qiskit_qattn.evaluation.reproduction.runs import Options, shortened_note
from qiskit_qattn.nn.inference import inference
from qiskit_qattn.training.progress import Progress


class Heard(Progress):
    """Remembers which training phases started, and at which step."""

    def __init__(self) -> None:
        self.phases: list[tuple[str, int]] = []

    def phase_started(self, name: str, step: int, max_steps: int) -> None:
        self.phases.append((name, step))


@pytest.mark.parametrize("steps", [None, 20, 21])
def test_what_was_run_whole_is_not_called_short(steps: int | None):
    assert shortened_note(steps, 20, "rounds") == ""


@pytest.mark.more
@pytest.mark.parametrize(("claim", "full"), [("qisa-leak", "2,000"), ("gpt-nano", "200"), ("nanogpt", "2,000")])
def test_a_shortened_run_says_of_how_many_steps(claim: str, full: str, dice: Path, tmp_path: Path):
    found = reproduce(claim, Options(tmp_path, str(dice), steps=1))
    assert found.shortened.startswith(f"Shortened: 1 of {full} training steps.")


def test_an_unknown_claim_is_told_the_known_ones(tmp_path: Path):
    with pytest.raises(UnknownNameError, match="qisa-leak, qisa-speed"):
        reproduce("qisa-lek", Options(tmp_path))


def test_gpt_nano_shows_both_tables(dice: Path, tmp_path: Path):
    options = Options(tmp_path, str(dice), steps=3)
    heard = Heard()
    found = reproduce("gpt-nano", options, heard)
    assert heard.phases == [("model", 0), ("baseline", 0)]
    losses, parameters = found.rows[0], found.rows[3]
    assert losses[1:3] == ["3.3506", "3.3545"]
    assert parameters[1:3] == ["8,769", "8,821"]
    assert losses[3] == f"{found.figures['baseline']['train_loss']:.4f}"
    assert found.figures["model"]["certificate"] == {"verdict": "passed", "edits": 0, "gradients": 0}
    assert all(len(row) == len(found.head) for row in found.rows)

    again = Heard()
    assert reproduce("gpt-nano", options, again).rows == found.rows
    assert again.phases == []  # what is trained is not trained again


def test_a_folder_with_other_settings_is_refused(dice: Path, tmp_path: Path):
    reproduce("gpt-nano", Options(tmp_path, str(dice), steps=1))
    with pytest.raises(ConfigError, match=r"other settings \(seed, max_steps\)"):
        reproduce("gpt-nano", Options(tmp_path, str(dice), steps=2, seed=1))


def test_the_speed_table_has_every_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    small = qisa_speed.Size(4, 3, 8)
    monkeypatch.setattr(qisa_speed, "Size", lambda: small)
    found = reproduce("qisa-speed", Options(tmp_path, steps=1))
    assert [row[0] for row in found.rows] == ["classical", "QISA v1", "QISA v2", "QISA v3", "QISA v3, precomputed"]
    assert all(len(row) == len(found.head) for row in found.rows)
    assert found.rows[0][3] == found.rows[0][5] == "1"
    assert found.shortened.startswith("Shortened: 1 of 20 rounds of timing.")
    assert all(value > 0 for task in ("inference", "training") for value in found.figures[task].values())


class Told(Progress):
    """Remembers forecasts, and how far counted work is."""

    def __init__(self) -> None:
        self.seconds: list[float] | None = None
        self.done: dict[str, list[int]] = {}

    def forecast(self, seconds: Callable[[], Sequence[float] | None]) -> None:
        self.seconds = list(seconds() or ())

    def counted(self, name: str, done: int, total: int) -> None:
        assert 0 <= done <= total
        self.done.setdefault(name, []).append(done)


@pytest.mark.more
@pytest.mark.parametrize(("claim", "models"), [("qisa-leak", 4), ("gpt-nano", 2), ("nanogpt", 2), ("qasa", 3)])
def test_every_model_of_a_claim_is_timed_before_the_first_starts(
    claim: str, models: int, dice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def stop(*_: object, **__: object) -> None:
        raise InterruptedError

    for module in (gpt_losses, qisa_leak):
        monkeypatch.setattr(module, "trained", stop)
    monkeypatch.setattr(qasa, "_trained", stop)
    told = Told()
    with pytest.raises(InterruptedError):
        reproduce(claim, Options(tmp_path, str(dice), steps=12), told)
    assert told.seconds is not None and len(told.seconds) == models and min(told.seconds) > 0
    assert not any(tmp_path.iterdir())


def test_rounds_of_timing_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    small = qisa_speed.Size(4, 3, 8)
    monkeypatch.setattr(qisa_speed, "Size", lambda: small)
    told = Told()
    reproduce("qisa-speed", Options(tmp_path, steps=2), told)
    assert told.seconds is not None and len(told.seconds) == 2
    assert told.done == {"inference": [0, 1, 2], "training": [0, 1, 2]}


def test_pairs_of_states_are_counted(tmp_path: Path):
    told = Told()
    reproduce("qasa-circuit", Options(tmp_path, steps=700), told)
    assert told.seconds is not None and len(told.seconds) == 1
    assert told.done == {"states": [0, 500, 700]}


def test_precomputed_matrices_give_the_same_values():
    model = qisa_speed.layer("qisa-v3", qisa_speed.Size(2, 4, 8))
    x = torch.randn(2, 4, 8)
    precomputed = inference(model).attention_layers()[0]
    torch.testing.assert_close(precomputed(x), model.attention_layers()[0](x))


def test_calls_take_turns():
    order: list[str] = []
    calls = {name: (lambda name=name: order.append(name)) for name in "ab"}
    seconds = in_turns(calls, 2)
    assert "".join(order[4:]) == "abba"
    assert [len(seconds[name]) for name in "ab"] == [2, 2]


def test_a_slow_down_is_the_median_of_ratios():
    assert slow_down({"a": [2.0, 9.0, 4.0], "b": [1.0, 1.0, 2.0]}, "a", "b") == 2
