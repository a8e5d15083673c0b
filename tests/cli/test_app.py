from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[..., Any]


def test_help_lists_the_commands(qattn: Run):
    result = qattn("--help")
    assert result.exit_code == 0
    for command in ("train", "generate", "draw", "report"):
        assert command in result.output


def test_the_version_is_printed(qattn: Run):
    assert qattn("--version").output.startswith("qattn ")


def test_the_command_line_starts_without_torch():
    code = (
        "import sys; import qiskit_qattn.cli.app;"
        " sys.exit(str([m for m in ('torch', 'qiskit', 'accelerate', 'matplotlib') if m in sys.modules]))"
    )
    found = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True)
    assert found.stderr.strip() == b"[]"


def test_a_report_is_written_again(qattn: Run, finished_run: Path, tmp_path: Path):
    copied = tmp_path / "run"
    shutil.copytree(finished_run, copied, ignore=shutil.ignore_patterns("report*"))
    assert "no report" in qattn("report", copied).stderr
    assert qattn("report", copied, "--recompute").exit_code == 0
    first = (copied / "report.md").read_bytes()
    (copied / "report.md").unlink()
    assert qattn("report", copied).exit_code == 0
    assert (copied / "report.md").read_bytes() == first
