"""What all claims share: their options and result, and training runs that are started, continued or reused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qiskit_qattn.errors import ConfigError
from qiskit_qattn.evaluation.leakage import leakage
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.training.config import TrainConfig, resolve
from qiskit_qattn.training.metrics import read_metrics
from qiskit_qattn.training.pace import run_seconds
from qiskit_qattn.training.progress import Progress
from qiskit_qattn.training.run import saved_config, train_run


@dataclass(frozen=True)
class Options:
    """Options of a reproduction.

    Attributes:
        out: The folder of the runs and the report.
        data: The corpus, as for ``qattn train``.
        steps: Training steps, rounds of timing or pairs of states; None for the number that the claim needs.
        seed: Seed of weights and batches.
    """

    out: Path
    data: str = "tinyshakespeare"
    steps: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Reproduction:
    """A published claim and our results.

    Attributes:
        claim: Its name.
        title: The claim, in a line.
        source: Who published it.
        head: The titles of the table's columns.
        rows: The table, published figures beside ours.
        reasons: Why they differ, and what follows.
        figures: Our figures as numbers.
        settings: The settings that were run.
        shortened: A note that fewer steps were run than the claim needs; empty otherwise.
    """

    claim: str
    title: str
    source: str
    head: list[str]
    rows: list[list[str]]
    reasons: list[str]
    figures: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)
    shortened: str = ""


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
    """Return a note if a run of these settings was shortened; empty otherwise."""
    return shortened_note(options.steps, resolve(changes, preset=preset).max_steps, "training steps")


def shortened_note(steps: int | None, full: int, what: str) -> str:
    """Return a note that only ``steps`` of the ``full`` number that a claim needs were run; empty if all were."""
    if steps is None or steps >= full:
        return ""
    return f"Shortened: {steps:,} of {full:,} {what}. These are not the figures of the claim; run it without --steps."


def seconds(runs: Sequence[tuple[TrainConfig, type[GPT]]]) -> list[float]:
    """Return how long each model of some runs will take that is not trained yet; empty for few steps."""
    found: list[float] = []
    for config, model_class in runs:
        resume = (config.folder / "config.toml").is_file()
        found += run_seconds(config, resume=resume, model_class=model_class) or ()
    return found


def trained(config: TrainConfig, progress: Progress, model_class: type[GPT] = GPT) -> dict[str, dict[str, Any]]:
    """Return the figures of a run's ``model`` and ``baseline``, each with its ``certificate``, after training.

    Raises:
        ConfigError: If the folder contains a run with other settings.
    """
    folder, resume = config.folder, (config.folder / "config.toml").is_file()
    if not resume and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()  # left by a process that was killed before the run started
    if resume and (found := saved_config(folder)) != config:
        there = found.to_dict()
        changed = [name for name, value in config.to_dict().items() if value != there[name]]
        raise ConfigError(
            f"{str(folder)!r} contains a run with other settings ({', '.join(changed)}); give another --out."
        )
    train_run(config, resume=resume, progress=progress, model_class=model_class)
    folders = {"model": folder, **({"baseline": folder / "baseline"} if config.baseline else {})}
    return {name: _figures(path, model_class) for name, path in folders.items()}


def _figures(folder: Path, model_class: type[GPT]) -> dict[str, Any]:
    figures = read_metrics(folder)
    assert figures is not None, "train_run leaves figures"
    found = leakage(model_class.from_pretrained(folder / "model"))
    certificate = {"verdict": found.verdict, "edits": float(found), "gradients": found.gradient}
    names = ("val_loss", "val_loss_last_position", "train_loss", "tokens_per_second", "parameters", "step")
    return {**{name: figures[name] for name in names}, "certificate": certificate}


def verdict(figures: dict[str, Any]) -> str:
    """Return the result of the causality certificate, for a table's cell."""
    found = figures["certificate"]
    return (
        "passed: exactly 0"
        if found["edits"] == 0 == found["gradients"]
        else f"{found['verdict']}: {found['edits']:.2g}"
    )
