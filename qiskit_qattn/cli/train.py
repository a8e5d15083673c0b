"""``qattn train``: train a model, and report on it."""

from __future__ import annotations

import dataclasses
import inspect
import os
import shlex
from collections.abc import Container
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from qiskit_qattn.cli.extras import TRAINING, require
from qiskit_qattn.errors import BackendError
from qiskit_qattn.training.config import TrainConfig, resolve, resolve_resumed
from qiskit_qattn.training.presets import PRESETS

if TYPE_CHECKING:
    from qiskit_qattn.backends.registry import Backend
    from qiskit_qattn.cli.devices import Asked


def _train(
    config: Path | None,
    resume: bool,
    yes: bool,
    **settings: Any,
) -> None:
    """Train a GPT with quantum heads, and write its report.

    The preset's settings come first, then those of --config, then the flags. Ctrl-C saves before it leaves, and
    --resume goes on from there to the same losses as if nothing had happened. On a paid device, what the run will take
    is shown first, and nothing is sent without a budget in the backend string, as in ?budget=5usd, or --yes.
    """
    require(TRAINING, "train")
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler writes notes of its own to stderr
    preset = settings.pop("preset")
    if resume:
        from qiskit_qattn.training.run import saved_config

        folder = Path(settings["out"]) if settings["out"] else resolve({}, preset=preset, config_file=config).folder
        decided = resolve_resumed(saved_config(folder), settings, preset=preset, config_file=config)
    else:
        decided = resolve(settings, preset=preset, config_file=config)

    from qiskit_qattn.cli.devices import open_devices
    from qiskit_qattn.cli.progress import make_progress
    from qiskit_qattn.cli.waiting import device_messages, watch_jobs
    from qiskit_qattn.evaluation.report import write_report
    from qiskit_qattn.training.run import train_run

    with open_devices(decided.backend, yes=yes, cost=partial(_cost, decided)) as (backend, estimators):
        try:
            with make_progress() as progress, device_messages(progress.device_message) if estimators else nullcontext():
                finished = train_run(decided, resume=resume, progress=progress, backend=backend)
            if finished.is_main_process:
                with watch_jobs() if estimators else nullcontext():
                    report = write_report(finished.folder, backend)
                _tell(finished.folder, report)
        except BackendError as error:
            if any(decided.folder.glob("**/step-*")):
                out = shlex.quote(str(decided.folder))
                error.add_note(f"What was trained is saved; go on with: qattn train --resume --out {out}")
            raise


def _cost(config: TrainConfig, backend: Backend) -> Asked:
    """Return what the rest of a run takes on a paid device, to be shown, and what its first job takes."""
    from qiskit_qattn.cli.cost import parts_table
    from qiskit_qattn.evaluation.device_cost import training_cost
    from qiskit_qattn.training.checkpoint import list_checkpoints
    from qiskit_qattn.training.data import load_corpus

    done = [int(path.name.removeprefix("step-")) for path in list_checkpoints(config.folder / "checkpoints")]
    corpus = load_corpus(config.data, config.block_size)
    parts, first = training_cost(config, corpus, backend, start=max(done, default=0))
    return parts_table(f"What the run takes on {backend.name}, about", backend, parts), first


def _tell(folder: Path, report: dict[str, Any]) -> None:
    """Say the most important of a report."""
    typer.echo(f"\n{report['prompt']}{report['model']['sample']}\n")
    for name in ("model", "baseline"):
        if (figures := report[name]) is not None:
            typer.echo(
                f"{name}: validation loss {figures['val_loss']:.4f}"
                f" (last position {figures['val_loss_last_position']:.4f}),"
                f" {figures['tokens_per_second']:,.0f} tokens/s, leakage {figures['leakage']:.1e}"
            )
    typer.echo(f"report: {folder / 'report.md'}")


def _plain(item: dataclasses.Field[Any]) -> str | bool:
    """Return how the help shows a default that does not depend on the preset; False hides an empty or a false one."""
    return str(item.default) if item.default else False


def setting_parameters(without: Container[str] = ()) -> list[inspect.Parameter]:
    """Return the parameters of the settings' flags, each with its help, its group and nano's value."""
    hints = get_type_hints(TrainConfig)
    parameters = []
    for item in dataclasses.fields(TrainConfig):
        if item.name in without:
            continue
        kind = str if item.name == "heads" else hints[item.name]
        about = item.metadata["help"]
        if item.name == "preset":
            about += f" One of {', '.join(PRESETS)}."
        flag = "--" + item.name.replace("_", "-")
        option = typer.Option(
            f"{flag}/--no-{flag[2:]}" if kind is bool else flag,
            help=about,
            rich_help_panel=item.metadata["group"],
            show_default=f"nano: {item.default}"
            if item.metadata["group"] in ("Model", "Optimisation")
            else _plain(item),
        )
        parameters.append(
            inspect.Parameter(
                item.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
            )
        )
    return parameters


def _signature() -> inspect.Signature:
    """Return the signature whose flags are the settings."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter(
            "config",
            keyword,
            default=None,
            annotation=Annotated[
                Path | None, typer.Option(help="A TOML file with settings.", rich_help_panel="Run", show_default=False)
            ],
        ),
        inspect.Parameter(
            "resume",
            keyword,
            default=False,
            annotation=Annotated[
                bool, typer.Option("--resume", help="Continue the run in --out.", rich_help_panel="Run")
            ],
        ),
        inspect.Parameter(
            "yes",
            keyword,
            default=False,
            annotation=Annotated[
                bool, typer.Option("--yes", "-y", help="Agree to any cost of a paid device.", rich_help_panel="Run")
            ],
        ),
    ]
    return inspect.Signature([*parameters, *setting_parameters()])


def command(**flags: Any) -> None:
    """Run :func:`_train` with the flags that :func:`_signature` declares."""
    _train(**flags)


command.__doc__ = _train.__doc__
command.__signature__ = _signature()  # type: ignore[attr-defined]
