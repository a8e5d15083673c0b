"""``qattn train``: train a model, and report on it."""

from __future__ import annotations

import shlex
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qiskit_qattn.cli import options
from qiskit_qattn.cli.help import say
from qiskit_qattn.errors import BackendError
from qiskit_qattn.untrusted import printable

if TYPE_CHECKING:
    from qiskit_qattn.backends.registry import Backend
    from qiskit_qattn.cli.devices import Quote
    from qiskit_qattn.training.config import TrainConfig


def command(
    context: typer.Context,
    config: options.Config = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.", rich_help_panel="Run")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Agree to any cost of a paid device.", rich_help_panel="Run")
    ] = False,
    preset: options.Preset = None,
    data: options.Data = None,
    split: options.Split = None,
    out: options.Out = None,
    seed: options.Seed = None,
    baseline: options.Baseline = None,
    backend: options.Backend = None,
    device: options.Device = None,
    compile: options.Compile = None,  # noqa: A002 - options are named as their flags
    threads: options.Threads = None,
    mixed_precision: options.MixedPrecision = None,
    trackers: options.Trackers = None,
    profile: options.Profile = None,
    n_layer: options.NLayer = None,
    n_head: options.NHead = None,
    n_embd: options.NEmbd = None,
    n_inner: options.NInner = None,
    block_size: options.BlockSize = None,
    dropout: options.Dropout = None,
    bias: options.Bias = None,
    heads: options.Heads = None,
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
    sample_prompt: options.SamplePrompt = None,
    sample_tokens: options.SampleTokens = None,
    temperature: options.Temperature = None,
    top_k: options.TopK = None,
) -> None:
    """Train a GPT with quantum heads, and write its report.

    Settings come from the preset, then from --config, then from the options; later ones win. Ctrl-C saves the state and
    stops; --resume continues, with the same losses as an uninterrupted run. A few steps are timed first, to say how
    long a long run will take. On a paid device, the cost of the run is shown first, and nothing is sent without a
    budget in the backend string, as in ?budget=5usd, or --yes.
    """
    options.require(options.TRAINING, "train")
    options.quiet_profiler()
    from qiskit_qattn.cli.devices import open_devices
    from qiskit_qattn.cli.messages import device_messages, watch_jobs
    from qiskit_qattn.cli.progress import make_progress
    from qiskit_qattn.evaluation.report import write_report
    from qiskit_qattn.training.config import resolve, resolve_resumed
    from qiskit_qattn.training.pace import run_seconds
    from qiskit_qattn.training.run import saved_config, train_run

    settings = options.given_settings(context)
    if resume:
        folder = Path(out) if out else resolve({"preset": preset}, config_file=config).folder
        decided = resolve_resumed(saved_config(folder), settings, config_file=config)
    else:
        decided = resolve(settings, config_file=config)
    with open_devices(decided.backend, yes=yes, cost=partial(_cost, decided)) as (target, estimators):
        try:
            with make_progress() as progress, device_messages(progress.device_message):
                progress.forecast(partial(run_seconds, decided, target, resume=resume))
                finished = train_run(decided, resume=resume, progress=progress, backend=target)
            if finished.is_main_process:
                with watch_jobs() if estimators or target.single is None else nullcontext():
                    report = write_report(finished.folder, target)
                _print_result(finished.folder, report)
        except BackendError as error:
            if any(decided.folder.glob("**/step-*")):
                quoted = shlex.quote(str(decided.folder))
                error.add_note(f"The trained steps are saved; continue with: qattn train --resume --out {quoted}")
            raise


def _cost(config: TrainConfig, backend: Backend) -> Quote:
    """Return the cost of the rest of a run on a paid device, to be shown, and that of its first job."""
    from qiskit_qattn.cli.devices import parts_table
    from qiskit_qattn.evaluation.device_cost import training_cost
    from qiskit_qattn.training.checkpoint import list_checkpoints
    from qiskit_qattn.training.data import load_corpus

    done = [int(path.name.removeprefix("step-")) for path in list_checkpoints(config.folder / "checkpoints")]
    corpus = load_corpus(config.data, config.model.block_size, split=config.split)
    parts, first = training_cost(config, corpus, backend, start=max(done, default=0))
    return parts_table(f"Cost of the run on {backend.name}, about", backend, parts), first


def _print_result(folder: Path, report: dict[str, Any]) -> None:
    """Print the sample and the main figures of a report."""
    typer.echo("\n" + printable(f"{report['prompt']}{report['model']['sample']}") + "\n")
    for name in ("model", "baseline"):
        if (figures := report[name]) is not None:
            say(
                f"{name}: validation loss {figures['val_loss']:.4f}"
                f" (last position {figures['val_loss_last_position']:.4f}),"
                f" {_speed(figures['tokens_per_second'])}, leakage {figures['leakage']:.1e}"
            )
    say(f"report: {folder / 'report.md'}")


def _speed(tokens_per_second: float) -> str:
    """Return a speed in words; the first steps of a compiled training, and those that are profiled, are not timed."""
    return f"{tokens_per_second:,.0f} tokens/s" if tokens_per_second else "too few steps to time them"
