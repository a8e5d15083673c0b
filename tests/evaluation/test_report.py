from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from qiskit_qattn.errors import CheckpointError, RunFolderError
from qiskit_qattn.evaluation.drawing import drawn
from qiskit_qattn.evaluation.loss_figure import loss_figure, smoothed
from qiskit_qattn.evaluation.rendering import block, code, html_page, table
from qiskit_qattn.evaluation.report import (
    collect_report,
    read_report,
    render_markdown,
    render_report,
    write_report,
)
from qiskit_qattn.evaluation.text_metrics import text_difference
from qiskit_qattn.nn.gpt import GPT
from tests.browser import chromium


@pytest.fixture(scope="module")
def report(finished_run: Path) -> dict[str, Any]:
    return write_report(finished_run)


def test_it_holds_what_a_reader_asks_for(report: dict[str, Any], finished_run: Path):
    assert read_report(finished_run) == report
    assert report["config"]["heads"] == "qisa:1,classical:1"
    assert {"python", "torch", "qiskit", "qiskit-machine-learning", "qiskit-qattn"} <= report["versions"].keys()
    for figures in (report["model"], report["baseline"]):
        for key in ("train_loss", "val_loss", "val_loss_last_position"):
            assert 0 < figures[key] < 10
        for key in ("tokens_per_second", "wall_seconds", "cpu_seconds", "peak_rss_mib"):
            assert figures[key] > 0
        assert figures["leakage"] <= 1e-6
        assert figures["history"]["val"][-1]["step"] == 12
        assert len(figures["sample"]) == 40
        assert len(figures["profile_of_steps"]["costs"]["functions"]) == 10
    assert report["val_loss"] == report["model"]["val_loss"]
    assert report["val_loss_last_position"] == report["model"]["val_loss_last_position"]


def test_parameters_and_backends_are_the_saved_models(report: dict[str, Any], finished_run: Path):
    model = GPT.from_pretrained(finished_run / "model")
    assert report["model"]["parameters"] == model.num_parameters()
    assert report["model"]["parameters"]["quantum"] > 0
    assert report["baseline"]["parameters"]["quantum"] == 0
    assert report["model"]["head_backends"] == json.loads(json.dumps(model.head_backends()))


def test_the_texts_are_compared(report: dict[str, Any]):
    samples = report["model"]["sample"], report["baseline"]["sample"]
    assert report["text_differences"] == text_difference(*samples).to_dict()


def test_the_markdown_shows_both_models_side_by_side(report: dict[str, Any]):
    text = render_markdown(report)
    model, twin = report["model"], report["baseline"]
    assert f"| Validation loss | {model['val_loss']:.4f} | {twin['val_loss']:.4f} |" in text
    assert "![Training and validation loss](loss.png)" in text
    for part in (
        model["sample"],
        twin["sample"],
        "Hamming",
        "Levenshtein",
        "Jaccard",
        "Agreement",
        "Time and memory: model",
        "](baseline/profile/profile.png)",
    ):
        assert part in text
    assert "None" not in text


def test_what_one_seed_of_each_shows_is_said_without_a_figure(report: dict[str, Any]):
    [told] = [part for part in render_markdown(report).split("\n\n") if part.startswith("One seed of each")]
    assert "was not measured" in told and not any(letter.isdigit() for letter in told)
    assert "One seed of each" not in render_markdown({**report, "baseline": None, "text_differences": None})


def test_a_run_without_a_baseline_has_one_column(report: dict[str, Any]):
    alone = {**report, "baseline": None, "text_differences": None}
    text = render_markdown(alone)
    assert f"| Validation loss | {report['val_loss']:.4f} |\n" in text
    assert "baseline" not in text.split("## Settings")[0]
    assert drawn(loss_figure(alone), "png").startswith(b"\x89PNG")


def test_the_picture_says_what_follows_from_one_seed_and_where_its_curves_end(report: dict[str, Any]):
    for baseline, told in (
        (report["baseline"], "nothing follows about which"),
        (None, "is not known"),
    ):
        figure = loss_figure({**report, "baseline": baseline})
        assert told in figure.get_supxlabel() and "qattn compare" in figure.get_supxlabel()
        curves = [line for line in figure.axes[0].lines if not line.get_label().startswith("_")]
        assert len(curves) == (2 if baseline is None else 4)
        assert all(line.get_label().endswith(f": {line.get_ydata()[-1]:.3f}") for line in curves)


@pytest.mark.more
def test_a_page_scrolls_its_tables_and_figures_on_a_telephone(tmp_path: Path):
    wide = table([f"A heading {i}" for i in range(12)], [["0.1234"] * 12])
    svg = b"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 720 740'></svg>"
    page = html_page("A page", f"{wide}\n\n![A figure](figure.svg)", {"figure.svg": svg})
    (tmp_path / "page.html").write_text(page, "utf-8")
    with chromium(tmp_path / "profile") as browser:
        size = {"width": 390, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get((tmp_path / "page.html").as_uri())
        assert browser.execute_script("return document.documentElement.scrollWidth") == 390
        assert browser.execute_script("return document.querySelector('img').getBoundingClientRect().width") > 500


def test_the_picture_names_a_text_without_its_folders(report: dict[str, Any]):
    figure = loss_figure({**report, "config": {**report["config"], "data": "/home/me/a/long/path/play.txt"}})
    assert figure.axes[0].get_title("left").endswith(" on play.txt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"format": "qiskit-qattn/noise-sweep", "command": "qattn noise-sweep x"},
            "qattn noise-sweep; .*: qattn",
        ),
        (
            {"format": "qiskit-qattn/finetune-report"},
            "is of qattn finetune; the same command as before writes",
        ),
    ],
)
def test_a_report_of_another_command_is_named(tmp_path: Path, content: dict[str, str], message: str):
    (tmp_path / "report.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=message):
        read_report(tmp_path)


def test_a_sample_cannot_end_its_own_block(report: dict[str, Any]):
    odd = {**report, "model": {**report["model"], "sample": "a\n```\nb"}}
    assert "````text\n" in render_markdown(odd)


def test_it_is_rendered_again_from_its_json(report: dict[str, Any], finished_run: Path, tmp_path: Path):
    shutil.copy(finished_run / "report.json", tmp_path)
    render_report(tmp_path, read_report(tmp_path))
    for name in ("report.md", "loss.png"):
        assert (tmp_path / name).read_bytes() == (finished_run / name).read_bytes()


def test_an_unfinished_run_has_no_report(finished_run: Path, tmp_path: Path):
    shutil.copy(finished_run / "config.toml", tmp_path)
    with pytest.raises(RunFolderError, match="not finished"):
        collect_report(tmp_path)
    with pytest.raises(RunFolderError, match=r"not finished, and has no report yet.*qattn train with --resume\.$"):
        read_report(tmp_path)


def test_a_folder_that_is_no_run_has_no_report(tmp_path: Path):
    (tmp_path / "notes.txt").touch()
    for folder in (tmp_path, tmp_path / "nothing", tmp_path / "notes.txt"):
        with pytest.raises(RunFolderError, match=r"is no folder of a run or a study: it has no report\.json\.$"):
            read_report(folder)


@pytest.mark.parametrize("content", ["", "[]", "{}"])
def test_a_foreign_report_is_refused(tmp_path: Path, content: str):
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"report\.json"):
        read_report(tmp_path)


def test_smoothing_keeps_lines_and_ends():
    line = [float(i) for i in range(100)]
    assert smoothed(line) == pytest.approx(line)
    assert smoothed([3.0]) == [3.0]
    assert smoothed([]) == []


EVIL = "a`b``c|d\n# <script>alert(1)</script>\x1b[31m $\\frac$"


def test_text_from_outside_is_shown_as_text_in_markdown(report: dict[str, Any]):
    fall = {"layer": 0, "kind": EVIL, "call": 1, "during": "forward", "link": EVIL, "to": EVIL, "reason": EVIL}
    audit = {"calls": {EVIL: 1}, "gradients": {}, "heads": [], "falls": [fall]}
    spoilt = {
        **report,
        "config": {**report["config"], "data": EVIL, "sample_prompt": EVIL, EVIL: EVIL},
        "prompt": EVIL,
        "model": {**report["model"], "sample": EVIL, "heads": EVIL, "audit": audit},
    }
    text = render_markdown(spoilt)
    assert "\x1b" not in text
    blocks = re.sub(r"(?ms)^(`{3,})text\n.*?\n\1$", "", text)
    assert not [line for line in blocks.splitlines() if line.startswith("# ") and "Run report" not in line]
    outside_code = re.sub(r"(?<![\\`])(`+)(?!`)(.*?)(?<!`)\1(?!`)", "", blocks)
    assert not re.search(r"(?<!\\)<", outside_code)
    drawn(loss_figure(spoilt), "png")


@pytest.mark.parametrize("text", ["", "`", "``", "a`b", "`a", "x ``` y", "a\nb", "|"])
def test_code_is_one_span_of_code(text: str):
    span = code(text)
    fence = re.match("`+", span)
    assert fence is not None and span.endswith(fence[0]) and "\n" not in span
    assert fence[0] not in re.findall("`+", span[len(fence[0]) : -len(fence[0])])
    shown = block(f"```\n{text}", "text").splitlines()
    assert shown[-1] not in shown[1:-1]
