from __future__ import annotations

import copy
import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from qiskit_qattn.cli.app import app
from qiskit_qattn.evaluation.comparison.figures import figures, pareto_front
from qiskit_qattn.evaluation.comparison.record import RECORD
from qiskit_qattn.evaluation.comparison.report import collect_report, render_markdown, write_report
from qiskit_qattn.evaluation.comparison.study import Cell, Study

FIGURES = {"losses", "differences", "cost"}
PICTURES = {f"{name}.png" for name in FIGURES}


@pytest.fixture
def report(finished_study: Study) -> dict[str, Any]:
    return collect_report(finished_study, {})


def test_the_folder_holds_all_parts(done: Study):
    report = write_report(done, {})
    names = {path.name for path in done.folder.iterdir()}
    assert names == {"cells", "cells.csv", "report.json", "report.md", "study.json", "paper", *PICTURES}
    assert json.loads((done.folder / "report.json").read_text()) == report
    text = (done.folder / "report.md").read_text()
    for name in PICTURES:
        assert f"({name})" in text
        assert (done.folder / name).read_bytes().startswith(b"\x89PNG")


def test_the_markdown_says_what_a_reader_asks_for(report: dict[str, Any], finished_study: Study):
    text = render_markdown(report)
    assert "| `qisa` | **not enough seeds** |" in text
    assert report["kinds"]["qisa"]["sentence"] in text
    for kind in finished_study.kinds:
        size = finished_study.sizes[kind]
        assert f"| `{kind}` | {size.total:,} | {size.deviation:+.2%} | {size.trainable:,} |" in text
        mean, spread = (report["kinds"][kind]["figures"]["val_loss"][name] for name in ("mean", "sd"))
        assert f"| `{kind}` | {mean:.4f} ± {spread:.4f} |" in text
        assert f"| `{kind}` | 2 of 2 models pass | 0.0e+00 | 0.0e+00 |" in text
    assert text.rstrip().splitlines()[-2] == finished_study.command()
    assert "None" not in text
    assert "advantage" not in text


def test_every_cell_is_a_line_of_the_table(done: Study):
    write_report(done, {})
    rows = list(csv.DictReader(io.StringIO((done.folder / "cells.csv").read_text())))
    assert not [text for row in rows for text in row.values() if "[" in text or "{" in text]
    assert [(row["kind"], row["seed"]) for row in rows] == [(cell.kind, str(cell.seed)) for cell in done.cells()]
    assert {"val_loss", "parameters_total", "prediction_word_error_rate", "circuits_meyer_wallach"} <= rows[0].keys()


def test_a_model_that_reads_ahead_is_marked_everywhere(done: Study):
    path = done.cell_folder(Cell(1, "qisa")) / RECORD
    record = json.loads(path.read_text())
    record["causality"] |= {"passed": False, "leakage": 0.25, "edited": 3, "changed": 1}
    path.write_text(json.dumps(record))
    text = render_markdown(write_report(done, {}))
    assert "| `qisa` | withheld |" in text
    assert "| `qisa` | 1 of 2 models pass: **not ranked** | 2.5e-01 |" in text
    assert "better" not in text.split("## Verdicts")[1].split("Differences are paired")[0]


def test_an_incomplete_study_says_what_is_missing(done: Study):
    (done.cell_folder(Cell(1, "qisa")) / RECORD).unlink()
    report = write_report(done, {Cell(1, "qisa"): "no | memory"})
    assert not report["complete"]
    text = (done.folder / "report.md").read_text()
    assert "**Incomplete:** 3 of 4 cells" in text
    assert "- qisa-s1 failed: no | memory" in text
    assert "1 of its 2 cells is not done" in text
    for cell in done.cells():
        (done.cell_folder(cell) / RECORD).unlink(missing_ok=True)
    assert figures(write_report(done, {})).keys() == FIGURES


def intervals(figure: Any) -> int:
    """Return how many intervals and bands a figure draws."""
    drawn = [each for axes in figure.axes for each in axes.collections]
    return sum(type(each).__name__ in ("LineCollection", "FillBetweenPolyCollection") for each in drawn)


def judged(report: dict[str, Any], verdict: str) -> dict[str, Any]:
    """Return a report whose verdict on each kind is another."""
    found = copy.deepcopy(report)
    for kind in found["kinds"].values():
        if kind["against_reference"] is not None:
            kind["against_reference"] |= {"verdict": verdict, "interval": [-0.1, 0.1]}
    return found


def test_no_interval_is_drawn_with_fewer_seeds_than_decide(report: dict[str, Any]):
    few = figures(judged(report, "not enough seeds"))
    enough = figures(judged(report, "no difference shown"))
    kinds, others = len(report["kinds"]), len(report["kinds"]) - 1
    assert intervals(few["differences"]) == 0
    assert intervals(enough["differences"]) == others
    assert intervals(few["losses"]) == kinds  # of losses, ± one standard deviation, as the table states it
    assert intervals(enough["losses"]) == kinds + others
    for name in ("losses", "differences"):
        assert "no interval is drawn" in few[name].get_supxlabel()
        assert enough[name].get_supxlabel() == ""
        assert "interval" not in few[name].axes[-1].get_title(loc="left")
        assert "95% interval" in enough[name].axes[-1].get_title(loc="left")


def test_a_figure_calls_no_kind_better_whose_control_is_not_beaten(report: dict[str, Any]):
    """The words beside the differences are those of the table."""
    found = judged(report, "better")
    [axes] = figures(found)["differences"].axes
    assert [text.get_text() for text in axes.texts] == ["lower loss"]
    found["kinds"]["qisa"]["against_control"] = found["kinds"]["qisa"]["against_reference"]
    [axes] = figures(found)["differences"].axes
    assert [text.get_text() for text in axes.texts] == ["better"]


def test_legends_give_the_numbers_that_curves_end_at(report: dict[str, Any]):
    left, right = figures(report)["losses"].axes
    for axes in (left, right):
        curves = [line for line in axes.lines if not line.get_label().startswith("_")]
        assert curves
        assert all(line.get_label().endswith(f": {line.get_ydata()[-1]:.3f}") for line in curves)


def test_the_front_is_what_none_beats_in_both():
    points = {"slow": (9.0, 1.0), "fast": (1.0, 3.0), "beaten": (9.5, 1.5), "middle": (4.0, 2.0), "twin": (4.0, 2.0)}
    assert pareto_front(points) == ["fast", "middle", "slow"]
    assert pareto_front({}) == []


def test_the_command_writes_the_report_of_a_study_again(done: Study):
    write_report(done, {})
    (done.folder / "report.md").unlink()
    result = CliRunner().invoke(app, ["report", str(done.folder)])
    assert result.exit_code == 0, result.output
    text = (done.folder / "report.md").read_text()
    assert text == render_markdown(json.loads((done.folder / "report.json").read_text()))
    tables = (done.folder / "paper" / "tables.tex").read_text()
    assert "% Verdicts" in tables
    assert tables.count(r"\begin{tabular}") == len(re.findall(r"^\| --- \|", text, re.MULTILINE))


def test_a_study_can_be_moved(done: Study, tmp_path: Path):
    from qiskit_qattn.evaluation.comparison.plan import load_study

    done.folder.rename(tmp_path / "moved")
    moved = load_study(tmp_path / "moved")
    assert collect_report(moved, {})["complete"]
