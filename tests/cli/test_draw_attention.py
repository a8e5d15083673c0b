from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
TEXT = "the king"


@pytest.mark.parametrize(("form", "start"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_a_picture_with_its_figures(qattn: Run, finished_run: Path, tmp_path: Path, form: str, start: bytes):
    files = sorted(finished_run.rglob("*"))
    result = qattn("draw-attention", finished_run, "--text", TEXT, "-o", tmp_path / f"maps.{form}")
    assert result.exit_code == 0, result.output
    assert (tmp_path / f"maps.{form}").read_bytes().startswith(start)
    assert {path.name for path in tmp_path.iterdir()} == {f"maps.{form}", "maps.csv", "maps.json"}
    assert sorted(finished_run.rglob("*")) == files
    assert "divergence of quantum from classical heads" in result.stdout

    record = json.loads((tmp_path / "maps.json").read_text("utf-8"))
    assert record["tokens"] == list(TEXT) and record["text"] == TEXT
    assert [head["kind"] for head in record["heads"]] == ["qisa-v3", "classical"]
    for head in record["heads"]:
        assert len(head["weights"]) == len(TEXT)
        for i, row in enumerate(head["weights"]):
            assert sum(row) == pytest.approx(1, abs=1e-5) and not any(row[i + 1 :])
    rows = list(csv.DictReader((tmp_path / "maps.csv").read_text("utf-8").splitlines()))
    for row, head in zip(rows, record["heads"], strict=True):
        assert (row["kind"], row["backend"]) == (head["kind"], head["backend"])
        assert float(row["entropy"]) == head["entropy"] and float(row["distance"]) == head["distance"]
        assert row["kind"] in result.stdout and f"{head['entropy']:.3f}" in result.stdout


def test_one_head_of_one_layer(qattn: Run, finished_run: Path, tmp_path: Path):
    out = tmp_path / "maps.png"
    result = qattn("draw-attention", finished_run, "--text", TEXT, "--layer", 0, "--head", 1, "--out", out)
    assert result.exit_code == 0, result.output
    assert "classical" in result.stdout and "qisa" not in result.stdout
    assert len(json.loads(out.with_suffix(".json").read_text("utf-8"))["heads"]) == 1


def test_the_picture_lies_beside_the_run(qattn: Run, finished_run: Path):
    result = qattn("draw-attention", finished_run, "--text", TEXT, "--format", "svg")
    assert result.exit_code == 0, result.output
    pictures = list(finished_run.parent.glob("run-attention.*"))
    assert sorted(path.suffix for path in pictures) == [".csv", ".json", ".svg"]
    for path in pictures:
        path.unlink()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--text", ""], "empty"),
        (["--text", "€"], "€"),
        (["--text", TEXT * 2], "block_size=8"),
        (["--text", TEXT, "--layer", "3"], "There is no layer 3; there are 0."),
        (["--text", TEXT, "--head", "2"], "There is no head 2; there are 0, 1."),
        (["--text", TEXT, "-o", "maps.gif"], "svg|png|pdf"),
        ([], "--text"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(qattn: Run, finished_run: Path, arguments: list[str], told: str):
    result = qattn("draw-attention", finished_run, *arguments)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert told in result.stderr
