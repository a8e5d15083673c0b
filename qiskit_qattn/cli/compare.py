"""``qattn compare``: train kinds of head on equal terms, and compare them over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial, reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from qiskit_qattn.cli import options
from qiskit_qattn.cli.help import say
from qiskit_qattn.errors import counted
from qiskit_qattn.untrusted import one_line

if TYPE_CHECKING:
    from qiskit_qattn.backends.registry import Backend
    from qiskit_qattn.cli.devices import Quote
    from qiskit_qattn.evaluation.comparison.study import Cell, Study

_PANEL = "Comparison"


def command(
    context: typer.Context,
    kinds: Annotated[
        str,
        typer.Option(
            help="Kinds of head, separated by commas; all: every kind. A kind may be a mix that each layer has, such as"
            " qisa:2,classical:2; then separate kinds by semicolons or spaces.",
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
    tasks: Annotated[
        str,
        typer.Option(
            help="Tasks, separated by commas: characters (a GPT on the text), films, cola or sst2 (an encoder of"
            " sentences), digits (a vision transformer). Empty: characters alone.",
            rich_help_panel=_PANEL,
        ),
    ] = "",
    splits: Annotated[
        int,
        typer.Option(help="Splits of the data of each task, over which losses are averaged.", rich_help_panel=_PANEL),
    ] = 1,
    learning_rates: Annotated[
        str,
        typer.Option(
            help="Peak learning rates, separated by commas. Two trials of each rate, with other seeds, choose the best"
            " one for each kind. Empty: --learning-rate for all kinds.",
            rich_help_panel=_PANEL,
        ),
    ] = "",
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
            help="ray: train on the Ray cluster at RAY_ADDRESS, or on a local one if that is not set.",
            rich_help_panel=_PANEL,
        ),
    ] = "none",
    allow_unmatched: Annotated[
        bool,
        typer.Option(
            "--allow-unmatched",
            help="Also compare kinds whose number of parameters cannot be brought within 1% of the reference's.",
            rich_help_panel=_PANEL,
        ),
    ] = False,
    config: options.Config = None,
    preset: options.Preset = None,
    data: options.Data = None,
    split: options.Split = None,
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
    """Train models that differ only in the kind of their heads, and compare them over seeds.

    Models of one seed see the same batches; all have the same number of parameters, within 1%. A cell, one kind with
    one seed, is trained once: after an interruption the same command continues. A kind whose model reads its own future
    is not ranked. With several --tasks or --splits there is a study of each, and one correction for the tests of all.
    A few steps of each kind are timed first, to say how long the comparison will take. With --build, your function
    makes the models, and their data unless they are language models. On a paid device, the cost of the cells is shown
    first, and nothing is sent without a budget in the backend string, as in ?budget=5usd, which all cells share.
    """
    options.require((*options.TRAINING, "joblib", "filelock", "statsmodels"), "compare")
    from qiskit_qattn.cli.compare_progress import predicted, watched
    from qiskit_qattn.cli.devices import open_devices
    from qiskit_qattn.evaluation.comparison.cell import finished
    from qiskit_qattn.evaluation.comparison.plan import continued_study, open_study
    from qiskit_qattn.evaluation.comparison.report import write_report
    from qiskit_qattn.evaluation.comparison.runners import cells_at_once, run_cells
    from qiskit_qattn.evaluation.comparison.study import any_heads
    from qiskit_qattn.evaluation.comparison.suite import plan_suite, suite_command
    from qiskit_qattn.evaluation.comparison.suite_report import write_suite
    from qiskit_qattn.nn.config import GPTConfig
    from qiskit_qattn.training.config import TrainConfig, merged_settings

    settings = merged_settings(options.given_settings(context) | {"out": str(out)}, config_file=config)
    settings["heads"] = any_heads(settings.get("n_head", GPTConfig.n_head))
    planned = plan_suite(
        TrainConfig.from_dict(settings),
        kinds,
        seeds,
        reference,
        tasks=listed(tasks),
        splits=splits,
        build=build,
        rates=_rates(learning_rates),
        allow_unmatched=allow_unmatched,
    )
    for study in map(continued_study, planned):
        with open_devices(study.config.backend, yes=False, cost=partial(_cost, study)):
            pass  # the cost of a paid device is shown, and needs a budget; each cell opens its own
    studies = [open_study(study) for study in planned]
    alone = studies[0] if studies[0].folder == out else None
    again = alone.command() if alone else suite_command(studies, out)
    rest = {
        study.folder: [cell for cell in (*study.trials(), *study.cells()) if finished(study, cell) is None]
        for study in studies
    }
    _announce(studies, sum(map(len, rest.values())), custom=bool(build))
    works = predicted(studies, rest, cells_at_once(jobs, cluster))
    failed: dict[Path, dict[Cell, str]] = {}
    try:
        with watched(studies, works, cells_at_once(jobs, cluster)):
            for study in studies:
                waiting = rest[study.folder]
                lost = run_cells(study, [c for c in waiting if c.rate], jobs=jobs, cluster=cluster)
                ready = [c for c in waiting if not c.rate and c.kind not in {trial.kind for trial in lost}]
                failed[study.folder] = lost | run_cells(study, ready, jobs=jobs, cluster=cluster)
    except KeyboardInterrupt as error:
        cells = [(study, cell) for study in studies for cell in (*study.trials(), *study.cells())]
        done = sum(finished(study, cell) is not None for study, cell in cells)
        say(f"Stopped with {done} of {counted(len(cells), 'cell')} done; to continue:", err=True)
        typer.echo(again, err=True)
        raise typer.Exit(130) from error
    if alone:
        _print_result(write_report(alone, failed[alone.folder]), out)
    else:
        _print_suite(write_suite(studies, out, failed), out)


def listed(text: str) -> list[str]:
    """Return the items of a text that separates them by commas."""
    return [item.strip() for item in text.split(",") if item.strip()]


def _rates(text: str) -> list[float]:
    """Return the learning rates that a text lists.

    Raises:
        ConfigError: For an item that is no number.
    """
    from qiskit_qattn.errors import ConfigError

    try:
        return [float(item) for item in listed(text)]
    except ValueError as error:
        raise ConfigError(f"--learning-rates {text!r} must be numbers, separated by commas.") from error


def _announce(studies: Sequence[Study], rest: int, *, custom: bool) -> None:
    """Print what is compared, and what cannot be found out by it."""
    from qiskit_qattn.evaluation.comparison.matching import unmatched
    from qiskit_qattn.evaluation.comparison.suite import judged, results
    from qiskit_qattn.evaluation.paired_tests import minimum_seeds

    first, total = studies[0], sum(len(study.cells()) + len(study.trials()) for study in studies)
    several = f"{len(studies)} studies, " if len(studies) > 1 else ""
    trials = f", {counted(len(first.trials()) // len(first.kinds), 'trial')} of rates per kind" if first.rates else ""
    done = f"; {total - rest} are done" if total > rest else ""
    say(
        f"{counted(total, 'cell')}: {several}{counted(len(first.kinds), 'kind')}, "
        f"{counted(len(first.seeds), 'seed')}{trials},"
        f" {counted(first.config.max_steps, 'step')} each{done}"
    )
    for study in studies:
        if custom and (reasons := unmatched(study.sizes, custom=True)):
            say(f"note: not within 1% of the parameters of {study.reference}: {'; '.join(reasons)}")
        where = f" of {study.folder.name}" if len(studies) > 1 else ""
        for kind, why in study.left_out.items():
            say(f"note: {kind} is left out{where}: {one_line(why)}")
    number = len(judged(results(studies)))
    needed = minimum_seeds(num_comparisons=number)
    if len(first.seeds) < needed:
        least = f"that takes at least {needed}"
        say(
            f"note: {counted(len(first.seeds), 'seed')} cannot show a difference with"
            f" {counted(number, 'comparison')}; {least}"
        )


def _cost(study: Study, backend: Backend) -> Quote:
    """Return the cost of the remaining cells on a paid device, to be shown, and that of the first job."""
    from qiskit_qattn.cli.devices import parts_table
    from qiskit_qattn.evaluation.comparison.builder import load_builder
    from qiskit_qattn.evaluation.comparison.cell import finished
    from qiskit_qattn.evaluation.device_cost import task_cost, training_cost
    from qiskit_qattn.training.data import load_corpus

    text = cache(partial(load_corpus, study.config.data, study.config.model.block_size, split=study.config.split))
    parts, first = {}, None
    for kind in study.kinds:
        every = [cell for cell in (*study.trials(), *study.cells()) if cell.kind == kind]
        some = [cell for cell in every if finished(study, cell) is None]
        if not some or not study.sizes[kind].num_qubits:
            continue
        config = study.cell_config(some[0])
        if study.build:
            task = load_builder(study.build).build(kind, config.seed, config, text, study.sizes[kind].n_inner)
            each, job = task_cost(config, task, backend)
        else:
            each, job = training_cost(config, text(), backend)
            each.pop("report's sample")  # a cell has none
        parts[f"{kind}, {counted(len(some), 'cell')}"] = reduce(add, each.values()) * len(some)
        first = first or job
    return parts_table(f"Cost of the comparison on {backend.name}, about", backend, parts), first


def _print_result(report: dict[str, Any], out: Path) -> None:
    """Print the main results of a report; exit with 1 if a cell is missing."""
    for found in report["kinds"].values():
        say(found["sentence"])
    for name, reason in report["failed"].items():
        say(f"error: {name} failed: {one_line(reason)}", err=True)
    say(f"report: {out / 'report.md'}")
    if report["failed"] or not report["complete"]:
        raise typer.Exit(1)


def _print_suite(report: dict[str, Any], out: Path) -> None:
    """Print the main results of a suite; exit with 1 if a cell is missing."""
    for task in report["tasks"].values():
        for sentence in task["sentences"].values():
            say(f"{task['name']}: {sentence}")
    for name, reason in report["failed"].items():
        say(f"error: {name} failed: {one_line(reason)}", err=True)
    say(f"report: {out / 'report.md'}")
    if report["failed"] or not report["complete"]:
        raise typer.Exit(1)
