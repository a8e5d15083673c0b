"""``qattn report``: write the report of a run again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run or a study.", show_default=False)],
    recompute: Annotated[
        bool,
        typer.Option("--recompute", help="Evaluate the saved models of a run again, instead of reading report.json."),
    ] = False,
) -> None:
    """Write the report and the figures of RUN again.

    For a run of qattn train they are made from its report.json, for a study of qattn compare from its cells. Other
    commands write their report again when they are called again with the same options.
    """
    from qiskit_qattn.evaluation.comparison.plan import NAME, load_study
    from qiskit_qattn.evaluation.report import read_report, render_report, write_report

    if (run / NAME).is_file():
        from qiskit_qattn.evaluation.comparison.report import write_report as write_study

        write_study(load_study(run), {})
    elif recompute:
        write_report(run)
    else:
        render_report(run, read_report(run))
    typer.echo(str(run / "report.md"))
