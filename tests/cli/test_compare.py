from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from qiskit_qattn.nn.kinds import head_kind, list_heads
from qiskit_qattn.training.config import SETTINGS

Run = Callable[..., Result]
#: Settings that the kinds decide, or that a comparison does not use.
FIXED = {
    "heads",
    "baseline",
    "out",
    "trackers",
    "profile",
    "sample_prompt",
    "sample_tokens",
    "temperature",
    "top_k",
}
TINY = (
    "--kinds rff --seeds 1 --n-layer 1 --n-head 1 --n-embd 8 --block-size 8 --num-qubits 3 --batch-size 4"
    " --max-steps 4 --warmup-steps 1 --eval-interval 2 --eval-batches 1 --device cpu"
)


@pytest.fixture
def compare(qattn: Run, text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that compares two tiny models, with more arguments."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))

    def run(*arguments: object) -> Result:
        return qattn("compare", *TINY.split(), "--data", text_file, "--out", tmp_path / "study", *arguments)

    return run


def test_a_comparison_ends_with_a_report_and_is_not_run_twice(compare: Run, qattn: Run, tmp_path: Path):
    result = compare()
    assert result.exit_code == 0, result.output
    assert "2 cells: 2 kinds, 1 seed, 4 steps each" in result.output
    assert "takes at least 6" in result.output
    assert "2/2 " in result.output
    report = json.loads((tmp_path / "study" / "report.json").read_text())
    assert report["kinds"]["rff"]["sentence"] in result.output
    records = [path.stat().st_mtime_ns for path in (tmp_path / "study").glob("cells/*/cell.json")]
    assert len(records) == 2

    _, *again = shlex.split(report["command"])
    result = qattn(*again)
    assert result.exit_code == 0, result.output
    assert "2 are done" in result.output
    assert [path.stat().st_mtime_ns for path in (tmp_path / "study").glob("cells/*/cell.json")] == records

    refused = compare("--max-steps", 5)
    assert refused.exit_code == 2
    assert "max_steps = 4, not 5" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--kinds", "qisa,quantum"], "Unknown head kind 'quantum'"),
        (["--reference", "quantum"], "Unknown head kind 'quantum'"),
        (["--kinds", "classical"], "no kind to compare"),
        (["--tasks", "chess"], "Unknown task 'chess'"),
        (["--splits", 0], "--splits"),
        (["--learning-rates", "fast"], "--learning-rates"),
        (["--seeds", 0], "--seeds"),
        (["--cluster", "dask"], "dask"),
        (["--jobs", -1], "--jobs"),
        (["--kinds", "quadratic", "--num-qubits", 7], "--allow-unmatched"),
        (["--backend", "quantum"], "quantum"),
        (["--n-head", 3], "n_head"),
        (["--data", "no-such-file.txt"], "no-such-file.txt"),
    ],
)
def test_what_cannot_be_compared_is_told_in_one_line_and_leaves_no_folder(
    compare: Run, tmp_path: Path, arguments: list[Any], told: str
):
    result = compare(*arguments)
    assert result.exit_code == 2
    assert told in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "study").exists()


def test_a_task_has_a_paper_and_what_it_takes_is_told_before_the_first_cell(compare: Run, tmp_path: Path):
    result = compare("--kinds", "quadratic", "--tasks", "digits")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith("1/2 digits"))
    assert any(line.startswith("time: about ") and "a cell takes" in line for line in lines[:first])
    assert lines[first].endswith(" left") and " left" not in lines[first + 1]
    report = json.loads((tmp_path / "study" / "report.json").read_text())
    assert list(report["tasks"]) == ["digits"] and report["complete"]
    assert report["command"] in (tmp_path / "study" / "report.md").read_text()


@pytest.mark.more
def test_a_study_of_another_split_says_so_in_its_command(compare: Run, qattn: Run, tmp_path: Path):
    settings = tmp_path / "settings.toml"
    settings.write_text("split = 2\n")
    refused = compare("--config", settings, "--splits", 2)
    assert refused.exit_code == 2 and "split = 2 is for one study of one task" in refused.stderr
    assert compare("--config", settings).exit_code == 0
    report = json.loads((tmp_path / "study" / "report.json").read_text())
    assert "--split 2" in report["command"]
    again = qattn(*shlex.split(report["command"])[1:])
    assert again.exit_code == 0 and "2 are done" in again.output


@pytest.mark.more
def test_all_kinds_are_compared_and_those_left_out_are_named_with_the_reason(compare: Run, tmp_path: Path):
    """Whatever is registered: trained, or left out of the task with why; every circuit has its control beside it."""
    size = ["--n-head", 2, "--num-qubits", 2, "--max-steps", 2, "--jobs", 2]
    result = compare("--kinds", "all", "--tasks", "digits", *size)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "study" / "report.json").read_text())
    task, text = report["tasks"]["digits"], (tmp_path / "study" / "report.md").read_text()
    assert report["complete"] and {*task["kinds"], *task["left_out"]} == set(list_heads())
    mixers = {name for name in list_heads() if head_kind(name).mixer is not None}
    assert {"quixer", "reflections"} <= mixers <= set(task["left_out"])
    for kind in mixers:
        why = f"{kind} heads mix positions without queries and keys, so they run in a GPT only"
        assert task["left_out"][kind] == why and f"`{kind}` ({why})" in text
        assert f"note: {kind} is left out: {why}" in result.output
    for kind, found in task["kinds"].items():
        assert (found["against_control"] is not None) == found["circuit"], kind
        assert f"| `{kind}` |" in text


def test_every_setting_that_a_comparison_leaves_open_is_a_flag(qattn: Run):
    shown = qattn("compare", "--help").output
    for name in set(SETTINGS) - FIXED:
        assert f"--{name.replace('_', '-')}" in shown
    for name in FIXED - {"out"}:
        assert f"--{name.replace('_', '-')} " not in shown
