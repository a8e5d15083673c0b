"""``qattn train``: train a model, and report on it."""

from __future__ import annotations

import dataclasses
import inspect
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from qiskit_qattn.errors import missing_dependency
from qiskit_qattn.training.config import TrainConfig, resolve, resolve_resumed
from qiskit_qattn.training.presets import PRESETS

NEEDED = ("accelerate", "matplotlib", "rapidfuzz", "rich")


def _train(
    config: Path | None,
    resume: bool,
    **settings: Any,
) -> None:
    """Train a GPT with quantum heads, and write its report.

    The preset's settings come first, then those of --config, then the flags. Ctrl-C saves before it leaves, and
    --resume goes on from there to the same losses as if nothing had happened.
    """
    for package in NEEDED:
        if find_spec(package) is None:
            raise missing_dependency(package, "train")
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler writes notes of its own to stderr
    preset = settings.pop("preset")
    if resume:
        from qiskit_qattn.training.run import saved_config

        folder = Path(settings["out"]) if settings["out"] else resolve({}, preset=preset, config_file=config).folder
        decided = resolve_resumed(saved_config(folder), settings, preset=preset, config_file=config)
    else:
        decided = resolve(settings, preset=preset, config_file=config)

    from qiskit_qattn.cli.progress import make_progress
    from qiskit_qattn.training.run import train_run

    with make_progress() as progress:
        finished = train_run(decided, resume=resume, progress=progress)
    if finished.is_main_process:
        _report(finished.folder)


def _report(folder: Path) -> None:
    """Write the report, and say the most important of it."""
    from qiskit_qattn.evaluation.report import write_report

    report = write_report(folder)
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


def _signature() -> inspect.Signature:
    """Return the signature whose flags are the settings, each with its help, its group and nano's value."""
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
    ]
    hints = get_type_hints(TrainConfig)
    for item in dataclasses.fields(TrainConfig):
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
            inspect.Parameter(item.name, keyword, default=None, annotation=Annotated[kind | None, option])
        )
    return inspect.Signature(parameters)


def command(**flags: Any) -> None:
    """Run :func:`_train` with the flags that :func:`_signature` declares."""
    _train(**flags)


command.__doc__ = _train.__doc__
command.__signature__ = _signature()  # type: ignore[attr-defined]
