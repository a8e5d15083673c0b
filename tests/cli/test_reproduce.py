from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Run = Callable[..., Result]


def test_a_claim_is_shown_and_reported(qattn: Run, text_file: Path, tmp_path: Path):
    out = tmp_path / "claim"
    result = qattn("reproduce", "gpt-nano", "--data", text_file, "--steps", 2, "--out", out)
    assert result.exit_code == 0, result.output
    report = json.loads((out / "report.json").read_text())
    assert report["claim"] == "gpt-nano"
    assert report["command"] == f"qattn reproduce gpt-nano --data {text_file} --steps 2"
    assert report["settings"]["max_steps"] == 2
    text = (out / "report.md").read_text()
    for shown in (text, result.output):
        assert "3.3506" in shown
        assert f"{report['figures']['model']['val_loss']:.4f}" in shown
        assert "Why they differ" in shown
        assert "Shortened: 2 of 200 training steps." in shown
    assert report["shortened"].startswith("Shortened: 2 of 200 ")
    assert all(reason in text for reason in report["reasons"])


def test_models_of_other_data_than_texts_have_no_last_position(qattn: Run, tmp_path: Path):
    result = qattn("reproduce", "qasa", "--steps", 1, "--out", tmp_path / "claim")
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "claim" / "report.json").read_text())["figures"]
    assert f"classical: validation loss {found['classical']['mse']:.4f}\n" in result.output
    assert "0.3406" in result.output  # published


def test_a_long_claim_says_how_long_before_it_starts(
    qattn: Run, text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from qiskit_qattn.evaluation.reproduction import gpt_losses

    monkeypatch.setattr(gpt_losses, "seconds", lambda runs: [60.0, 30.0])
    result = qattn("reproduce", "gpt-nano", "--data", text_file, "--steps", 2, "--out", tmp_path / "claim")
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[:2] == ["time: about 1.5 min", "model: training from step 0 to 2"]


def test_what_cannot_be_run_is_one_line(qattn: Run, tmp_path: Path):
    for flags, told in ((["nano"], "Unknown claim"), (["gpt-nano", "--data", tmp_path / "none.txt"], "none.txt")):
        result = qattn("reproduce", *flags, "--out", tmp_path / "claim")
        assert result.exit_code == 2
        assert told in result.output
        assert result.output.count("\n") == 1
