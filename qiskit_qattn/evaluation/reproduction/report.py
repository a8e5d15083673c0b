"""A reproduction as ``report.md`` and ``report.json``."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path

from qiskit_qattn.evaluation.report import machine, versions
from qiskit_qattn.evaluation.report_markdown import pairs, table
from qiskit_qattn.evaluation.reproduction.claims import Reproduction
from qiskit_qattn.training.files import write_text

FORMAT = "qiskit-qattn/reproduction"


def write_report(folder: Path, found: Reproduction, command: str) -> None:
    """Write the report into ``folder``, which is made if it is not there.

    Raises:
        RunFolderError: If it cannot be written.
    """
    created = datetime.now(UTC).isoformat(timespec="seconds")
    where = {"versions": versions(), "machine": machine()}
    report = {"format": FORMAT, "created": created, "command": command, **dataclasses.asdict(found), **where}
    write_text(folder / "report.json", json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    parts = [
        f"# {found.title}",
        f"A published claim ({found.source}), run again {created} with `{command}`.",
        *([f"**{found.shortened}**"] if found.shortened else []),
        table(found.head, found.rows),
        "## Why they differ",
        "\n".join(f"- {reason}" for reason in found.reasons),
        "## Settings",
        pairs({name: value for name, value in found.settings.items() if name != "out"}),
        "## Versions and machine",
        pairs({**where["versions"], **where["machine"]}),
    ]
    write_text(folder / "report.md", "\n\n".join(parts) + "\n")
