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


def test_mitigation_is_compared_with_none_on_the_same_windows(qattn, finished_run, tmp_path):
    pytest.importorskip("qiskit_ibm_runtime")
    on, out = "density_matrix?noise=fake_manila", tmp_path / "sweep"
    flags = ("--p", "0.03", "--shots", "none", "--windows", 6, "--out", out)
    first = qattn("noise-sweep", finished_run, *flags)
    assert first.exit_code == 0, first.output
    found = qattn("noise-sweep", finished_run, *flags, "--backend", on, "--mitigation", "none,zne")
    assert found.exit_code == 0, found.output
    assert "2 of 5 points are done" in found.output and f"{on}, zne: loss" in found.output
    measured = json.loads((out / "report.json").read_text())["points"]
    points = {(point["strength"], point["on"], point["mitigation"]): point for point in measured}
    exact = points[None, "", ""]["losses"]
    for place in ((0.03, ""), (None, on)):
        raw, mitigated = points[*place, ""], points[*place, "zne"]
        gains = [a - b for a, b in zip(mitigated["losses"], raw["losses"], strict=True)]
        assert mitigated["gain"] == pytest.approx(sum(gains) / 6)
        assert mitigated["gain_interval"][0] <= mitigated["gain"] <= mitigated["gain_interval"][1]
        far = [sum(abs(a - b) for a, b in zip(p["losses"], exact, strict=True)) for p in (mitigated, raw)]
        assert far[0] < 0.95 * far[1]  # nearer to the exact losses, window by window
    text = (out / "report.md").read_text()
    assert f"| `{on}` | zne |" in text and "| p = 0.03 | zne |" in text
    assert "--mitigation zne" in text and f"--backend '{on}'" in text
    assert (out / "noise.png").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_mitigated_starts_nothing(qattn, finished_run, tmp_path):
    found = qattn("noise-sweep", finished_run, "--p", "0.1", "--mitigation", "trex", "--out", tmp_path / "sweep")
    assert found.exit_code == 2 and "has no readout error, which mitigation=trex is for" in found.output
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--mitigation", "fold"), "error: Unknown mitigation 'fold'."),
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


def test_a_long_sweep_says_how_long_before_it_starts(qattn, finished_run, tmp_path, monkeypatch):
    from qiskit_qattn.evaluation.noise_sweep import timing

    monkeypatch.setattr(timing, "point_seconds", lambda *_: [60.0, 120.0])
    flags = ("--windows", 2, "--p", "none", "--shots", "10", "--out", tmp_path / "sweep")
    found = qattn("noise-sweep", finished_run, *flags)
    assert found.exit_code == 0, found.output
    lines = found.output.splitlines()
    assert lines[0] == "time: about 3.0 min" and "no noise: loss" in lines[1] and " left" not in lines[2]
