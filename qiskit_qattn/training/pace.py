"""How long training will take: a few steps, timed and thrown away."""

from __future__ import annotations

import dataclasses
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from qiskit_qattn.backends.place import Place
from qiskit_qattn.errors import QattnError
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.training.checkpoint import Validation, list_checkpoints
from qiskit_qattn.training.config import TrainConfig
from qiskit_qattn.training.data import load_corpus
from qiskit_qattn.training.progress import Progress, TrainingInterrupted
from qiskit_qattn.training.run import finished, train_run

WARM, TIMED = 3, 8  # steps that fill caches, and steps that are timed
_ENOUGH = 3.0  # seconds after the first step, in which much may be compiled, until the steps so far are enough
_BATCHES = 4  # of a timed validation


@dataclass(frozen=True)
class Pace:
    """The times of a training, in seconds.

    Attributes:
        start: Until the first :data:`WARM` steps are done: the model, and what is compiled or cached.
        step: A step.
        validation: A validation on the fixed batches.
        end: After the last step.
    """

    start: float
    step: float
    validation: float
    end: float

    def seconds(self, steps: int, validations: int = 0) -> float:
        """Return the time of a training of so many steps and validations."""
        return self.start + max(0, steps - WARM) * self.step + validations * self.validation + self.end


class _Enough(Exception):
    """The steps so far are enough."""


class _Clock(Progress):
    """Notes when each event of a training happens, and ends it when its steps are enough, or so many."""

    def __init__(self, most: int | None) -> None:
        self.most = most
        self.began = self.started = self.finished = self._last = time.perf_counter()
        self.steps: list[float] = []
        self.validations: list[float] = []

    def phase_started(self, name: str, step: int, max_steps: int) -> None:
        """Note the start."""
        self._last = self.started = time.perf_counter()

    def step_done(self, step: int, loss: float | None, tokens_per_second: float) -> None:
        """Note a step."""
        self.steps.append(self._lap())
        if sum(self.steps[1:]) > _ENOUGH or len(self.steps) == self.most:
            raise _Enough

    def validated(self, found: Validation, tokens_per_second: float) -> None:
        """Note a validation."""
        self.validations.append(self._lap())

    def phase_finished(self, name: str, val_loss: float, val_loss_last_position: float | None) -> None:
        """Note the end."""
        self.finished = time.perf_counter()

    def _lap(self) -> float:
        before, self._last = self._last, time.perf_counter()
        return self._last - before


def measured(train: Callable[[Progress], object], *, whole: bool = True) -> Pace:
    """Return the times of a training of :data:`WARM` and :data:`TIMED` steps; a slow one is ended before.

    Args:
        train: Trains in a folder that is thrown away, and reports to the progress that it is given.
        whole: Whether the training has so few steps, and what follows them is timed too; otherwise it is ended then.

    Raises:
        KeyboardInterrupt: On SIGINT or SIGTERM, with its number as ``signal``.
    """
    clock, end = _Clock(None if whole else WARM + TIMED), 0.0
    try:
        train(clock)
        end = time.perf_counter() - clock.finished
    except _Enough:
        pass
    except TrainingInterrupted as stop:
        interrupted = KeyboardInterrupt()
        interrupted.signal = stop.signal  # type: ignore[attr-defined]
        raise interrupted from None  # there is nothing to resume
    warm = min(WARM, len(clock.steps) - 1)
    step = statistics.median(clock.steps[warm:])
    start = clock.started - clock.began + sum(clock.steps[:warm]) + (WARM - warm) * step
    return Pace(start, step, clock.validations[-1] if clock.validations else 0.0, end)


def waits_in_queue(place: Place) -> bool:
    """Return whether circuits are sent to a device whose queue decides how long they take."""
    return any(estimator.device.paid for _, estimator in place.devices)


def is_timed(place: Place) -> bool:
    """Return whether what circuits take may be timed in advance: on one backend that sends no jobs."""
    return place.single is not None and not place.devices


def newest_step(folder: Path) -> int:
    """Return the step of the newest checkpoint of a model; 0 without one."""
    return max((int(path.name.removeprefix("step-")) for path in list_checkpoints(folder / "checkpoints")), default=0)


def run_seconds(
    config: TrainConfig, place: Place | None = None, *, resume: bool = False, model_class: type[GPT] = GPT
) -> list[float] | None:
    """Return how long each model of a run will take, in seconds; empty if the run itself has to show that.

    Steps of a chain or a group are not timed, nor those that send jobs, those of several processes, or compiled ones,
    since compiling them takes a minute.

    Args:
        config: The settings.
        place: Where the circuits run; None for the exact engine.
        resume: Whether the run in the folder is continued.
        model_class: The class of the model.

    Returns:
        None on a device, since its queue decides.
    """
    if place is not None and waits_in_queue(place):
        return None
    refused = not resume and config.folder.exists()
    if refused or not _has_pace(config, place) or config.max_steps <= WARM + TIMED:
        return []
    twin = {config.folder / "baseline": config.replace(heads=config.baseline_heads)} if config.baseline else {}
    models = {config.folder: config, **twin}
    try:
        return [
            _model_seconds(each, folder, model_class)
            for folder, each in models.items()
            if not (resume and finished(folder, config))
        ]
    except QattnError:
        return []  # the run itself says what is wrong


def steps_seconds(config: TrainConfig, steps: int, place: Place | None = None) -> list[float] | None:
    """Return how long some steps of a run will take, without validations; None and empty as :func:`run_seconds`."""
    if place is not None and waits_in_queue(place):
        return None
    if not _has_pace(config, place) or steps <= WARM + TIMED:
        return []
    return [steps * _pace(config, GPT).step]


def _has_pace(config: TrainConfig, place: Place | None) -> bool:
    """Return whether a few steps of a run can be timed in advance."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return not several and not config.compile and (place is None or is_timed(place))


def _model_seconds(config: TrainConfig, folder: Path, model_class: type[GPT]) -> float:
    """Return how long the rest of the training of the model in a folder will take."""
    pace = _pace(config, model_class)
    corpus = load_corpus(config.data, config.model.block_size, split=config.split)
    windows = config.val_windows or len(corpus.val) // config.model.block_size
    share = windows / (config.eval_batches * config.batch_size)  # of the final validation, in the others
    steps = config.max_steps - newest_step(folder)
    end = (1 + share) * pace.validation  # also on training data
    return dataclasses.replace(pace, end=end).seconds(steps, 1 + steps // config.eval_interval)


def _pace(config: TrainConfig, model_class: type[GPT]) -> Pace:
    """Return the times of a run of few steps."""
    batches = min(config.eval_batches, _BATCHES)
    with tempfile.TemporaryDirectory(prefix="qattn-pace-") as scratch:
        intervals = dict.fromkeys(("max_steps", "eval_interval", "checkpoint_interval"), WARM + TIMED)
        off = {"baseline": False, "trackers": "none", "profile": False}
        short = config.replace(
            **intervals, **off, eval_batches=batches, val_windows=config.batch_size, out=str(Path(scratch) / "run")
        )
        pace = measured(lambda clock: train_run(short, progress=clock, model_class=model_class))
    validation = min(pace.validation, batches * pace.step) * config.eval_batches / batches  # the first one may compile
    return dataclasses.replace(pace, validation=validation)
