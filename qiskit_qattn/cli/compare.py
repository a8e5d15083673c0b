"""``qattn compare``: train kinds of head on equal terms, and compare them over seeds."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial, reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from qiskit_qattn.cli import options
from qiskit_qattn.untrusted import one_line

if TYPE_CHECKING:
    from qiskit_qattn.backends.registry import Backend
    from qiskit_qattn.cli.devices import Quote
    from qiskit_qattn.evaluation.comparison.plan import Cell, Study

_PANEL = "Comparison"
_INTERVAL = 0.5  # seconds between two looks at the folder
_HOUR = 3600.0  # cells differ in speed, so the remaining time is estimated over long


def command(
    context: typer.Context,
    kinds: Annotated[
        str,
        typer.Option(
            help="Kinds of head, separated by commas. All heads of a model are of one kind, or each layer has the mix"
            " that a kind such as qisa:2,classical:2 names; separate mixes by semicolons or spaces.",
            rich_help_panel=_PANEL,
        ),
    ] = "qisa,classical,quadratic,rff,frozen",
    seeds: Annotated[
        int,
        typer.Option(
            help="Models of each kind, with consecutive seeds from --seed; fewer than 8 cannot rank 4 kinds.",
            rich_help_panel=_PANEL,
        ),
    ] = 8,
    reference: Annotated[
        str, typer.Option(help="The kind that the others are compared with.", rich_help_panel=_PANEL)
    ] = "classical",
    build: Annotated[
        str,
        typer.Option(
            help="Compare models of your own: package.module:function, which takes a kind and a seed and returns a"
            " model, or a qa.Task with its data and loss.",
            rich_help_panel=_PANEL,
        ),
    ] = "",
    out: Annotated[
        Path,
        typer.Option(
            help="The study's folder. The same command continues a study; kinds and seeds may be added.",
            rich_help_panel=_PANEL,
        ),
    ] = Path("runs/compare"),
    jobs: Annotated[
        int,
        typer.Option(
            min=0,
            help="Models trained at a time; 0: one per physical core, on a cluster one per CPU.",
            rich_help_panel=_PANEL,
        ),
    ] = 0,
    cluster: Annotated[
        Literal["none", "ray"],
        typer.Option(
            help="none, or ray: on the Ray cluster at RAY_ADDRESS, else on a local one.", rich_help_panel=_PANEL
        ),
    ] = "none",
    allow_unmatched: Annotated[
        bool,
        typer.Option(
            "--allow-unmatched",
            help="Compare kinds that cannot be brought within 1% of the reference's size, too.",
            rich_help_panel=_PANEL,
        ),
    ] = False,
    config: options.Config = None,
    preset: options.Preset = None,
    data: options.Data = None,
    seed: options.Seed = None,
    backend: options.Backend = None,
    device: options.Device = None,
    compile: options.Compile = None,  # noqa: A002 - options are named as their flags
    threads: options.Threads = None,
    mixed_precision: options.MixedPrecision = None,
    n_layer: options.NLayer = None,
    n_head: options.NHead = None,
    n_embd: options.NEmbd = None,
    n_inner: options.NInner = None,
    block_size: options.BlockSize = None,
    dropout: options.Dropout = None,
    bias: options.Bias = None,
    num_qubits: options.NumQubits = None,
    reps: options.Reps = None,
    sampling: options.Sampling = None,
    batch_size: options.BatchSize = None,
    max_steps: options.MaxSteps = None,
    learning_rate: options.LearningRate = None,
    min_lr: options.MinLr = None,
    warmup_steps: options.WarmupSteps = None,
    weight_decay: options.WeightDecay = None,
    beta1: options.Beta1 = None,
    beta2: options.Beta2 = None,
    grad_clip: options.GradClip = None,
    circuit_lr: options.CircuitLr = None,
    circuit_grad_clip: options.CircuitGradClip = None,
    log_interval: options.LogInterval = None,
    eval_interval: options.EvalInterval = None,
    eval_batches: options.EvalBatches = None,
    val_windows: options.ValWindows = None,
    checkpoint_interval: options.CheckpointInterval = None,
) -> None:
    """Train models that differ in the kind of their heads only, and compare them over seeds.

    Models of one seed see the same batches; all have the same number of parameters, within 1%. A cell, one kind with
    one seed, is trained once: after an interruption the same command continues. A kind whose model reads its own future
    is not ranked. With --build the models, and their data if they are no language models, come from your function. On a
    paid device, the cost of the cells is shown first, and nothing is sent without a budget in the backend string, as in
    ?budget=5usd, which all cells share.
    """
    options.require((*options.TRAINING, "joblib", "filelock", "statsmodels"), "compare")
    from qiskit_qattn.cli.devices import open_devices
    from qiskit_qattn.evaluation.comparison.cell import records
    from qiskit_qattn.evaluation.comparison.matching import unmatched
    from qiskit_qattn.evaluation.comparison.plan import any_heads, continued_study, open_study, plan_study
    from qiskit_qattn.evaluation.comparison.report import write_report
    from qiskit_qattn.evaluation.comparison.runners import run_cells
    from qiskit_qattn.evaluation.paired_tests import minimum_seeds
    from qiskit_qattn.nn.config import GPTConfig
    from qiskit_qattn.training.config import TrainConfig, merged_settings

    settings = merged_settings(options.given_settings(context) | {"out": str(out)}, config_file=config)
    settings["heads"] = any_heads(settings.get("n_head", GPTConfig.n_head))
    planned = plan_study(
        TrainConfig.from_dict(settings),
        kinds,
        seeds,
        reference,
        allow_unmatched=allow_unmatched,
        build=build,
    )
    study = continued_study(planned)
    with open_devices(study.config.backend, yes=False, cost=partial(_cost, study)):
        pass  # the cost of a paid device is shown, and needs a budget; each cell opens its own
    study = open_study(planned)
    done = records(study)
    rest = [cell for cell in study.cells() if cell not in done]
    typer.echo(
        f"{len(study.cells())} cells: {len(study.kinds)} kinds, {len(study.seeds)} seeds, {study.config.max_steps:,}"
        f" steps each{f'; {len(done)} are done' if done else ''}"
    )
    if build and (reasons := unmatched(study.sizes, own=True)):
        typer.echo(f"note: not within 1% of the parameters of {study.reference}: {'; '.join(reasons)}")
    needed = minimum_seeds(num_comparisons=len(study.kinds) - 1)
    if len(study.seeds) < needed:
        typer.echo(
            f"note: {len(study.seeds)} seeds cannot show a difference of {len(study.kinds) - 1} kinds from"
            f" {study.reference}; that takes at least {needed}"
        )
    try:
        with _progress(study):
            failed = run_cells(study, rest, jobs=jobs, cluster=cluster)
    except KeyboardInterrupt as error:
        typer.echo(f"Stopped with {len(records(study))} of {len(study.cells())} cells done; to continue:", err=True)
        typer.echo(study.command(), err=True)
        raise typer.Exit(130) from error
    _print_result(write_report(study, failed), out)


def _cost(study: Study, backend: Backend) -> Quote:
    """Return the cost of the remaining cells on a paid device, to be shown, and that of the first job."""
    from qiskit_qattn.cli.devices import parts_table
    from qiskit_qattn.evaluation.comparison.builder import load_builder
    from qiskit_qattn.evaluation.comparison.cell import records
    from qiskit_qattn.evaluation.device_cost import task_cost, training_cost
    from qiskit_qattn.training.data import load_corpus

    text = cache(partial(load_corpus, study.config.data, study.config.model.block_size))
    done, parts, first = records(study), {}, None
    for kind in study.kinds:
        some = [cell for cell in study.cells() if cell.kind == kind and cell not in done]
        if not some or not study.sizes[kind].num_qubits:
            continue
        config = study.cell_config(some[0])
        if study.build:
            task = load_builder(study.build).build(kind, config.seed, config, text, study.sizes[kind].n_inner)
            each, job = task_cost(config, task, backend)
        else:
            each, job = training_cost(config, text(), backend)
            each.pop("report's sample")  # a cell has none
        parts[f"{kind}, {len(some)} cells"] = reduce(add, each.values()) * len(some)
        first = first or job
    return parts_table(f"Cost of the comparison on {backend.name}, about", backend, parts), first


def _print_result(report: dict[str, Any], out: Path) -> None:
    """Print the main results of a report; exit with 1 if a cell is missing."""
    for found in report["kinds"].values():
        typer.echo(found["sentence"])
    for name, reason in report["failed"].items():
        typer.echo(f"error: {name} failed: {one_line(reason)}", err=True)
    typer.echo(f"report: {out / 'report.md'}")
    if report["failed"] or not report["complete"]:
        raise typer.Exit(1)


@contextmanager
def _progress(study: Study) -> Iterator[None]:
    """Show the progress of a study's cells while a block runs: a bar on a terminal, a line per cell elsewhere."""
    console = Console()
    columns = (
        TextColumn("[bold]{task.fields[done]}/{task.fields[cells]} cells"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[now]}"),
        TimeElapsedColumn(),
        TextColumn("[dim]left"),
        TimeRemainingColumn(),
    )
    shown = Progress(*columns, console=console, disable=not console.is_terminal, speed_estimate_period=_HOUR)
    stopped = threading.Event()
    watcher = threading.Thread(target=_watch, args=(study, shown, stopped), daemon=True)
    with shown:
        watcher.start()
        try:
            yield
        finally:
            stopped.set()
            watcher.join()


def _watch(study: Study, shown: Progress, stopped: threading.Event) -> None:
    """Read the cells' folders at intervals, and print a line for each cell that ends."""
    from qiskit_qattn.evaluation.comparison.cell import reported_since, steps_done
    from qiskit_qattn.evaluation.comparison.record import read_record

    cells, begin = study.cells(), time.time()
    total = len(cells) * study.config.max_steps
    done = {cell for cell in cells if read_record(study, cell) is not None}
    steps = sum(steps_done(study, cell) for cell in cells)
    task = shown.add_task("", total=total, completed=steps, cells=len(cells), done=len(done), now="")
    last = False
    while not last:
        last = stopped.wait(_INTERVAL)
        for cell in cells:
            if cell not in done and (record := read_record(study, cell)) is not None:
                done.add(cell)
                text = f"{len(done)}/{len(cells)} {_title(cell)}: validation loss {record['val_loss']:.4f}"
                shown.console.print(text, highlight=False, markup=False, soft_wrap=True)
        now = ", ".join(_title(cell) for cell in cells if cell not in done and reported_since(study, cell, begin))
        steps = sum(steps_done(study, cell) for cell in cells)
        shown.update(task, completed=steps, done=len(done), now=now)


def _title(cell: Cell) -> str:
    return f"{cell.kind} seed {cell.seed}"
