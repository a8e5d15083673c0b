"""The page of findings has the report of a study, and keeps what was written around it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.findings import BEGIN, END, put
from qiskit_qattn.evaluation.comparison.paper import render_suite
from qiskit_qattn.evaluation.comparison.plan import open_study, plan_study
from qiskit_qattn.evaluation.comparison.study import Study
from qiskit_qattn.evaluation.comparison.suite import TaskResult, judged
from qiskit_qattn.evaluation.comparison.suite_report import collect_suite, write_suite
from qiskit_qattn.training.config import resolve


@pytest.fixture
def study(text_file: Path, tmp_path: Path) -> Study:
    """Return a study without cells, with the report of a suite in the folder above."""
    size = {"n_layer": 1, "n_head": 2, "n_embd": 8, "block_size": 8, "heads": "classical:2", "num_qubits": 2}
    out = tmp_path / "study" / "characters"
    found = open_study(plan_study(resolve({"data": str(text_file), "out": str(out), **size}), "rff", 1, "classical"))
    write_suite([found], tmp_path / "study", {})
    return found


def test_the_report_of_a_study_takes_its_place_again_and_again(study: Study, tmp_path: Path):
    (tmp_path / "images").mkdir()
    page = tmp_path / "findings.md"
    page.write_text(f"# Findings\n\nIn short.\n\n{BEGIN}\nold\n{END}\n\n## What it means\n")
    with pytest.raises(SystemExit, match="no complete comparison"):
        put(study.folder.parent, page)
    cells = {cell: {"val_loss": 2.0 + cell.seed, "train_seconds": 1.0, "causality": None} for cell in study.cells()}
    task = TaskResult("characters", (study,), (cells,))
    report = render_suite(collect_suite([task], judged([task]), {}, "qattn compare --tasks characters"))
    (study.folder.parent / "report.md").write_text(report)
    for _ in range(2):
        put(study.folder.parent, page)
        text = page.read_text()
        assert text.startswith(f"# Findings\n\nIn short.\n\n{BEGIN}\n\n## Question\n")
        assert text.endswith(f"{END}\n\n## What it means\n") and "old" not in text
        assert "qattn compare --tasks characters" in text and "## Limits" in text and "| `rff` |" in text
        for name in ("differences", "cost"):
            assert f"(images/findings-by-task-{name}.png)" in text
            assert (tmp_path / "images" / f"findings-by-task-{name}.png").read_bytes().startswith(b"\x89PNG")
    page.write_text("# Findings\n")
    with pytest.raises(SystemExit, match="needs two lines"):
        put(study.folder.parent, page)
