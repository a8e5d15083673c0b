"""``qattn report``: write the report of a run again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", show_default=False)],
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Evaluate the saved models again, instead of reading report.json.")
    ] = False,
) -> None:
    """Write report.md and loss.png of RUN again, from its report.json."""
    from qiskit_qattn.evaluation.report import read_report, render_report, write_report

    if recompute:
        write_report(run)
    else:
        render_report(run, read_report(run))
    typer.echo(str(run / "report.md"))
