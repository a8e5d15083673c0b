"""The report of a profile says what was recorded and what could not be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from qiskit_qattn.errors import CheckpointError
from qiskit_qattn.evaluation import profile_report
from qiskit_qattn.evaluation.drawing import drawn
from qiskit_qattn.evaluation.profile_report import profile_figure, profile_markdown, read_profile


@pytest.fixture(scope="module")
def found(finished_run: Path) -> dict[str, Any]:
    profile = read_profile(finished_run)
    assert profile is not None
    return profile


def test_tables_have_every_phase_and_module(found: dict[str, Any]):
    text = "\n\n".join(profile_markdown(found, "profile/"))
    for part in ("| forward |", "| backward |", "| optimizer |", "circuits, forward", "`blocks.*.attn.maps.qisa-v3`"):
        assert part in text
    assert "[trace.json](profile/trace.json)" in text and "](profile/profile.png)" in text
    assert "Too few steps to tell" in text  # 12 in all


def test_memray_tells_the_peak_where_it_is_installed(found: dict[str, Any]):
    pytest.importorskip("memray")
    native = found["native"]
    assert 0 < native["peak_mib"] < 100 and native["allocations"] > 0
    assert sum(each["mib"] for each in native["largest"]) <= native["peak_mib"]
    text = "\n\n".join(profile_markdown(found))
    assert f"at most {native['peak_mib']:,.1f} MiB" in text and native["largest"][0]["place"] in text


def test_what_memray_would_add_is_said_where_it_is_missing(finished_run: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(profile_report, "find_spec", lambda name: None)
    profile = read_profile(finished_run)
    assert profile is not None and profile["native"] is None
    assert 'memray is not installed. Install it with: `pip install "qiskit-qattn[profile]"`' in "\n".join(
        profile_markdown(profile)
    )


def test_the_plot_is_a_png(found: dict[str, Any]):
    figure = profile_figure(found)
    assert drawn(figure, "png").startswith(b"\x89PNG")
    bars = [patch for axes in figure.axes for patch in axes.patches]
    assert {bar.get_hatch() for bar in bars if bar.get_hatch()} == {"////"}  # circuits, also without colour
    leaking = {**found["leak"], "slope_kib": 3.0, "low_kib": 2.0, "high_kib": 4.0, "leaks": True}
    resident = {"steps": list(range(40)), "resident_mib": [300 + i / 3 for i in range(40)], "compiled": True}
    assert drawn(profile_figure({**found, "leak": leaking, "resident": resident}), "png").startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("trace.json", "{"),
        ("trace.json", "[]"),
        ("trace.json", json.dumps({"traceEvents": []})),
        ("memory.json", json.dumps({"steps": [1], "resident_mib": [], "compiled": False})),
        ("memory.json", json.dumps({"steps": ["1"], "resident_mib": [2], "compiled": False})),
        ("memray.bin", "no record"),
    ],
)
def test_damaged_files_are_named(finished_run: Path, tmp_path: Path, name: str, content: str):
    if name == "memray.bin":
        pytest.importorskip("memray")
    shutil.copytree(finished_run / "profile", tmp_path / "profile")
    (tmp_path / "profile" / name).write_text(content)
    with pytest.raises(CheckpointError, match="profile' is damaged"):
        read_profile(tmp_path)


def test_a_compiled_model_is_one_part(finished_run: Path, tmp_path: Path):
    shutil.copytree(finished_run / "profile", tmp_path / "profile")
    memory = json.loads((tmp_path / "profile" / "memory.json").read_text())
    (tmp_path / "profile" / "memory.json").write_text(json.dumps({**memory, "compiled": True}))
    profile = read_profile(tmp_path)
    assert profile is not None
    assert "`(the compiled model)`" in (text := "\n".join(profile_markdown(profile)))
    assert "its modules are not told apart" in text


def test_there_may_be_none(tmp_path: Path):
    assert read_profile(tmp_path) is None
