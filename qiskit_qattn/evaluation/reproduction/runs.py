"""Training runs of a reproduction: ordinary ones, started or continued or read where they are finished."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from qiskit_qattn.errors import ConfigError
from qiskit_qattn.evaluation.leakage import leakage
from qiskit_qattn.evaluation.reproduction.claims import Options, told_short
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.training.config import TrainConfig, resolve
from qiskit_qattn.training.progress import Progress
from qiskit_qattn.training.run import read_metrics, saved_config, train_run


def settings(options: Options, name: str, preset: str, **changes: Any) -> TrainConfig:
    """Return the settings of the run called ``name``: a preset's, with changes, on one CPU."""
    fixed = {
        "data": options.data,
        "seed": options.seed,
        "max_steps": options.steps,
        "out": str(options.out / "runs" / name),
        "trackers": "none",
        "device": "cpu",
    }
    return resolve({**changes, **{key: value for key, value in fixed.items() if value is not None}}, preset=preset)


def shortened(options: Options, preset: str, **changes: Any) -> str:
    """Return in a sentence that a run of these settings was shortened; empty where it was not."""
    return told_short(options.steps, resolve(changes, preset=preset).max_steps, "training steps")


def trained(config: TrainConfig, progress: Progress, model_class: type[GPT] = GPT) -> dict[str, dict[str, Any]]:
    """Return the figures of a run's ``model`` and ``baseline``, each with its ``certificate``, after training.

    Raises:
        ConfigError: If the folder holds a run with other settings.
    """
    folder, resume = config.folder, (config.folder / "config.toml").is_file()
    if not resume and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()  # killed before the run had begun
    if resume and (found := saved_config(folder)) != config:
        names = [item.name for item in dataclasses.fields(config)]
        changed = [name for name in names if getattr(found, name) != getattr(config, name)]
        raise ConfigError(
            f"{str(folder)!r} holds a run with other settings ({', '.join(changed)}); give another --out."
        )
    train_run(config, resume=resume, progress=progress, model_class=model_class)
    places = {"model": folder, **({"baseline": folder / "baseline"} if config.baseline else {})}
    return {name: _figures(place, model_class) for name, place in places.items()}


def _figures(folder: Path, model_class: type[GPT]) -> dict[str, Any]:
    figures = read_metrics(folder)
    assert figures is not None, "train_run leaves figures"
    found = leakage(model_class.from_pretrained(folder / "model"))
    certificate = {"verdict": found.verdict, "edits": float(found), "gradients": found.gradient}
    names = ("val_loss", "val_loss_last_position", "train_loss", "tokens_per_second", "parameters", "step")
    return {**{name: figures[name] for name in names}, "certificate": certificate}


def verdict(figures: dict[str, Any]) -> str:
    """Return what the causality certificate says, for a table's cell."""
    found = figures["certificate"]
    return (
        "passed: exactly 0"
        if found["edits"] == 0 == found["gradients"]
        else f"{found['verdict']}: {found['edits']:.2g}"
    )
