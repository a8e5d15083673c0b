"""The report of a study, collected from its cells: ``report.json``, ``report.md``, ``cells.csv`` and pictures."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from qiskit_qattn.evaluation.comparison.cell import records
from qiskit_qattn.evaluation.comparison.markdown import render_markdown
from qiskit_qattn.evaluation.comparison.pictures import pictures
from qiskit_qattn.evaluation.comparison.plan import Cell, Study
from qiskit_qattn.evaluation.comparison.summary import summarise
from qiskit_qattn.evaluation.report import machine, versions
from qiskit_qattn.training.files import write_bytes, write_text

FORMAT = "qiskit-qattn/comparison"


def write_report(study: Study, failed: Mapping[Cell, str]) -> dict[str, Any]:
    """Collect the report of a study, write it into the study's folder, and return it.

    Args:
        study: The study; cells that are not done are missing in the report.
        failed: Why cells failed.

    Raises:
        RunFolderError: If it cannot be written.
        CheckpointError: If a record is damaged.
    """
    report = collect_report(study, failed)
    folder = study.folder
    write_text(folder / "report.json", json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    write_text(folder / "cells.csv", cells_csv(report["cells"]))
    for name, picture in pictures(report).items():
        write_bytes(folder / name, picture)
    write_text(folder / "report.md", render_markdown(report))
    return report


def collect_report(study: Study, failed: Mapping[Cell, str]) -> dict[str, Any]:
    """Return the report of a study as plain values."""
    found = records(study)
    return {
        "format": FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "complete": len(found) == len(study.cells()),
        "study": study.to_dict(),
        "kinds": summarise(study, found),
        "failed": {cell.name: reason for cell, reason in failed.items()},
        "cells": list(found.values()),
        "command": study.command(),
        "versions": versions(),
        "machine": machine(),
    }


def cells_csv(cells: list[dict[str, Any]]) -> str:
    """Return one line a cell, with the figures that are numbers."""
    rows = [_flat(cell) for cell in cells]
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _flat(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers of a cell's record; those of a group carry its name."""
    row: dict[str, Any] = {}
    for name, value in cell.items():
        if isinstance(value, dict) and name != "history":
            row |= {f"{name}_{part}": item for part, item in value.items() if not isinstance(item, dict | list)}
        elif not isinstance(value, dict | list) and name not in ("format", "version"):
            row[name] = value
    return row
