"""``qattn compare``: train kinds of head on equal terms, and say what the seeds show."""

from __future__ import annotations

import dataclasses
import inspect
from functools import partial, reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from qiskit_qattn.cli.extras import TRAINING, require
from qiskit_qattn.cli.train import setting_parameters
from qiskit_qattn.training.config import resolve

if TYPE_CHECKING:
    from qiskit_qattn.backends.registry import Backend
    from qiskit_qattn.cli.devices import Asked
    from qiskit_qattn.evaluation.comparison.plan import Study

#: Settings that the kinds decide, or that a comparison has no use for.
FIXED = frozenset(
    {"heads", "baseline", "out", "trackers", "profile", "sample_prompt", "sample_tokens", "temperature", "top_k"}
)


def _compare(
    kinds: Annotated[
        str, typer.Option(help="Kinds of head by comma: all heads of a model are of one.", rich_help_panel="Comparison")
    ] = "qisa,classical,quadratic,rff,frozen",
    seeds: Annotated[
        int,
        typer.Option(
            help="Models of each kind, with seeds in a row from --seed; fewer than 8 can show nothing of 4 rivals.",
            rich_help_panel="Comparison",
        ),
    ] = 8,
    reference: Annotated[
        str, typer.Option(help="The kind that the others are compared with.", rich_help_panel="Comparison")
    ] = "classical",
    out: Annotated[
        Path,
        typer.Option(help="The study's folder. The same command there goes on.", rich_help_panel="Comparison"),
    ] = Path("runs/compare"),
    jobs: Annotated[
        int,
        typer.Option(
            min=0,
            help="Models trained at a time; 0: one a physical core, on a cluster one a CPU of it.",
            rich_help_panel="Comparison",
        ),
    ] = 0,
    cluster: Annotated[
        Literal["none", "ray"],
        typer.Option(
            help="none, or ray: on the Ray cluster of RAY_ADDRESS, else on a local one.", rich_help_panel="Comparison"
        ),
    ] = "none",
    allow_unmatched: Annotated[
        bool,
        typer.Option(
            "--allow-unmatched",
            help="Go on where a kind cannot be brought within 1% of the reference's size.",
            rich_help_panel="Comparison",
        ),
    ] = False,
    config: Annotated[
        Path | None, typer.Option(help="A TOML file with settings.", rich_help_panel="Run", show_default=False)
    ] = None,
    **settings: Any,
) -> None:
    """Train models that differ in the kind of their heads alone, and say what the seeds show.

    Models of one seed see the same batches; all have the same number of parameters, within 1%. A cell, one kind with
    one seed, that is done is not run again: after an interruption the same command goes on. A kind whose model reads
    its own future is not ranked. On a paid device, what the cells will take is shown first, and nothing is sent without
    a budget in the backend string, as in ?budget=5usd, which all cells share.
    """
    require((*TRAINING, "joblib", "filelock", "statsmodels"), "compare")
    from qiskit_qattn.cli.devices import open_devices
    from qiskit_qattn.cli.study_progress import study_progress
    from qiskit_qattn.evaluation.comparison.cell import records
    from qiskit_qattn.evaluation.comparison.plan import open_study, plan_study
    from qiskit_qattn.evaluation.comparison.report import write_report
    from qiskit_qattn.evaluation.comparison.runners import run_cells
    from qiskit_qattn.evaluation.paired_tests import minimum_seeds

    preset = settings.pop("preset")
    decided = dataclasses.replace(resolve(settings, preset=preset, config_file=config), out=str(out))
    study = plan_study(decided, kinds, seeds, reference, allow_unmatched=allow_unmatched)
    with open_devices(study.config.backend, yes=False, cost=partial(_cost, study)):
        pass  # what a paid device will take is shown, and needs a budget; each cell opens its own
    resumed = open_study(study)
    done = records(study)
    rest = [cell for cell in study.cells() if cell not in done]
    typer.echo(
        f"{len(study.cells())} cells: {len(study.kinds)} kinds, {len(study.seeds)} seeds, {study.config.max_steps:,}"
        f" steps each{f'; {len(done)} are done' if resumed else ''}"
    )
    needed = minimum_seeds(num_comparisons=len(study.kinds) - 1)
    if len(study.seeds) < needed:
        typer.echo(
            f"note: {len(study.seeds)} seeds cannot show a difference of {len(study.kinds) - 1} kinds from"
            f" {study.reference}; that takes at least {needed}"
        )
    try:
        with study_progress(study):
            failed = run_cells(study, rest, jobs=jobs, cluster=cluster)
    except KeyboardInterrupt as error:
        typer.echo(f"Stopped with {len(records(study))} of {len(study.cells())} cells done; to go on:", err=True)
        typer.echo(study.command(), err=True)
        raise typer.Exit(130) from error
    report = write_report(study, failed)
    _tell(report, out)


def _cost(study: Study, backend: Backend) -> Asked:
    """Return what the cells that are not done take on a paid device, to be shown, and what the first job takes."""
    from qiskit_qattn.cli.cost import parts_table
    from qiskit_qattn.evaluation.comparison.cell import records
    from qiskit_qattn.evaluation.device_cost import training_cost
    from qiskit_qattn.training.data import load_corpus

    corpus = load_corpus(study.config.data, study.config.block_size)
    done, parts, first = records(study), {}, None
    for kind in study.kinds:
        some = [cell for cell in study.cells() if cell.kind == kind and cell not in done]
        if some and study.sizes[kind].num_qubits:
            each, job = training_cost(study.cell_config(some[0]), corpus, backend)
            each.pop("report's sample")  # a cell has none
            parts[f"{kind}, {len(some)} cells"] = reduce(add, each.values()) * len(some)
            first = first or job
    return parts_table(f"What the comparison takes on {backend.name}, about", backend, parts), first


def _tell(report: dict[str, Any], out: Path) -> None:
    """Say the most important of a report; exit with 1 where a cell is missing."""
    for found in report["kinds"].values():
        typer.echo(found["sentence"])
    for name, reason in report["failed"].items():
        typer.echo(f"error: {name} failed: {reason}", err=True)
    typer.echo(f"report: {out / 'report.md'}")
    if report["failed"] or not report["complete"]:
        raise typer.Exit(1)


def _signature() -> inspect.Signature:
    """Return the signature of :func:`_compare` with the settings' flags in place of ``settings``."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    own = [p.replace(kind=keyword) for p in inspect.signature(_compare, eval_str=True).parameters.values()]
    return inspect.Signature([*(p for p in own if p.name != "settings"), *setting_parameters(without=FIXED)])


def command(**flags: Any) -> None:
    """Run :func:`_compare` with the flags that :func:`_signature` declares."""
    _compare(**flags)


command.__doc__ = _compare.__doc__
command.__signature__ = _signature()  # type: ignore[attr-defined]
