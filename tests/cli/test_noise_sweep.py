"""``qattn noise-sweep``: from a run folder to a report."""

import json

import pytest


def test_a_run_is_swept_and_goes_on(qattn, finished_run, tmp_path):
    flags = ("--windows", 4, "--shots", "none", "--out", tmp_path / "sweep")
    first = qattn("noise-sweep", finished_run, "--p", "0,0.1", *flags)
    assert first.exit_code == 0, first.output
    lines = first.output.splitlines()
    assert len(lines) == 4 and lines[-1] == f"report: {tmp_path / 'sweep' / 'report.md'}"
    assert "no noise: loss" in lines[0] and "p = 0: loss" in lines[1] and "change 0.0000 ± 0.0000" in lines[1]
    again = qattn("noise-sweep", finished_run, "--p", "0,0.1,0.2", *flags)
    assert "3 of 4 points are done" in again.output and "p = 0.2: loss" in again.output
    assert len(json.loads((tmp_path / "sweep" / "report.json").read_text())["points"]) == 4


def test_noise_aware_training_is_one_command(qattn, finished_run, tmp_path):
    out = tmp_path / "sweep"
    flags = ("--p", "0.1", "--shots", "none", "--windows", 2, "--aware-steps", 2, "--aware-p", 0.1, "--out", out)
    found = qattn("noise-sweep", finished_run, *flags)
    assert found.exit_code == 0, found.output
    assert "aware: training from step 0 to 2" in found.output and "noise-aware,      p = 0.1: loss" in found.output
    assert (out / "aware" / "model" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--p", "0,much"), "error: --p takes numbers separated by commas, or none; got '0,much'."),
        (("--shots", "1.5"), "error: --shots takes whole numbers separated by commas, or none; got '1.5'."),
        (("--shots", "0"), "error: shots is 0, but must be at least 1."),
        (("--p", "2"), "error: p is 2, but must be a probability between 0 and 1."),
        (("--noise", "thermal"), "error: Unknown noise with a strength p 'thermal'."),
        (("--aware-steps", "5"), "error: 5 steps of noise-aware training need aware_p"),
    ],
)
def test_what_makes_no_sense_is_one_clear_line(qattn, finished_run, tmp_path, arguments, message):
    found = qattn("noise-sweep", finished_run, "--out", tmp_path / "sweep", *arguments)
    assert found.exit_code == 2 and found.output.startswith(message)
    assert found.output.count("\n") == 1 and not (tmp_path / "sweep").exists()


def test_the_report_is_beside_the_run_by_default(qattn, finished_run):
    found = qattn("noise-sweep", finished_run, "--p", "none", "--shots", "10", "--windows", 2)
    assert found.exit_code == 0, found.output
    assert (finished_run.parent / "run-noise" / "report.md").is_file()


def test_an_interrupted_sweep_says_how_to_go_on(qattn, finished_run, tmp_path, monkeypatch):
    from qiskit_qattn.evaluation.noise_sweep import sweep

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep, "window_losses", interrupted)
    found = qattn("noise-sweep", finished_run, "--windows", 2, "--out", tmp_path / "sweep")
    assert found.exit_code == 130 and "the same command continues" in found.output
