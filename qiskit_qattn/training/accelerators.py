"""Hugging Face Accelerate, set up from a run's settings."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from qiskit_qattn.errors import ConfigError, MissingDependencyError, missing_dependency, unknown_name
from qiskit_qattn.training.config import TrainConfig

if TYPE_CHECKING:
    from accelerate import Accelerator


def make_accelerator(config: TrainConfig, folder: Path) -> Accelerator:
    """Return Accelerate's handle on devices, precision, processes and trackers; it writes nothing yet.

    Args:
        config: The run's settings.
        folder: The run folder; trackers that keep files keep them in its ``logs``.

    Raises:
        ConfigError: If the device cannot do the mixed precision that was asked for.
        UnknownNameError: If a tracker is not one of Accelerate's.
        MissingDependencyError: If Accelerate or a tracker is not installed.
    """
    if find_spec("accelerate") is None:
        raise missing_dependency("accelerate", "train")
    from accelerate import Accelerator
    from accelerate.utils import ProjectConfiguration

    project = ProjectConfiguration(project_dir=str(folder), logging_dir=str(folder / "logs"))
    names = tracker_names(config.trackers)
    try:
        return Accelerator(
            cpu=config.device == "cpu",
            mixed_precision=config.mixed_precision,
            log_with=names or None,
            project_config=project,
        )
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"device = {config.device!r} with mixed_precision = {config.mixed_precision!r} cannot be had: {reason}"
        ) from error


def tracker_names(trackers: str) -> list[str]:
    """Return the trackers that the setting names: ``auto``, ``none`` or names by comma."""
    if trackers == "auto":
        return ["tensorboard"] if find_spec("tensorboard") is not None else []
    if trackers == "none":
        return []
    from accelerate.tracking import get_available_trackers
    from accelerate.utils import LoggerType

    known = [str(kind.value) for kind in LoggerType if kind.value != "all"]
    names = [name.strip() for name in trackers.split(",")]
    for name in names:
        if name not in known:
            raise unknown_name("tracker", name, [*known, "auto", "none"])
        if name not in [str(kind.value) for kind in get_available_trackers()]:
            raise MissingDependencyError(f"The tracker {name} is not installed. Install it with: pip install {name}")
    return names
