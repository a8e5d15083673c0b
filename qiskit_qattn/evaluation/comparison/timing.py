"""How long a comparison will take: a few steps of each kind, timed, and what is left while cells run."""

from __future__ import annotations

import dataclasses
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qiskit_qattn.evaluation.comparison.cell import train_and_measure
from qiskit_qattn.evaluation.comparison.study import Cell, Study
from qiskit_qattn.training.data import load_corpus
from qiskit_qattn.training.pace import TIMED, WARM, Pace, measured

_PROMPT = 1.0  # seconds that a cell is taken to need at least when it should have ended


@dataclass
class Work:
    """A cell that is to be run, with its times.

    Attributes:
        study: Its study.
        cell: The cell.
        predicted: How long it is to take, in seconds, before any was run.
        began: When it was first seen running, in seconds; None before.
        ended: When it was seen to be done; None before.
        steps: How many of its steps are done.
    """

    study: Study
    cell: Cell
    predicted: float
    began: float | None = None
    ended: float | None = None
    steps: int = 0

    @property
    def group(self) -> tuple[str, str, bool]:
        """What cells of equal length share."""
        return str(self.study.folder), self.cell.kind, self.cell.rate > 0


def process_seconds() -> float:
    """Return how long a process takes to start and to import what a cell needs."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import qiskit_qattn.evaluation.comparison.cell"], check=False)
    return time.perf_counter() - begin


def paces(study: Study, kinds: Iterable[str], process: float = 0.0) -> dict[str, Pace]:
    """Return how long cells of each kind take, from a few steps of one that is thrown away.

    Args:
        study: The study; its circuits must not run on a device.
        kinds: The kinds.
        process: What :func:`process_seconds` returned.

    Raises:
        KeyboardInterrupt: As :func:`~qiskit_qattn.training.pace.measured` does.
    """
    share = 1.0  # of the final validation, in validations on the fixed batches; custom data count as one
    if study.text:
        config = study.config
        tokens = len(load_corpus(config.data, config.model.block_size, split=config.split).val)
        share = (config.val_windows or tokens // config.model.block_size) / (config.eval_batches * config.batch_size)
    return {kind: _pace(study, kind, process, share) for kind in kinds}


def _pace(study: Study, kind: str, process: float, share: float) -> Pace:
    """Return the times of one kind."""
    config, steps = study.config, WARM + TIMED
    windows = config.eval_batches * config.batch_size
    with tempfile.TemporaryDirectory(prefix="qattn-pace-") as folder:
        short = config.replace(max_steps=steps, eval_interval=steps, val_windows=windows, out=folder)
        brief = dataclasses.replace(study, config=short, rates=())
        pace = measured(lambda clock: train_and_measure(brief, Cell(config.seed, kind), clock))
    end = pace.end + (1 + share) * pace.validation  # also on training data
    return dataclasses.replace(pace, start=process + pace.start, end=end)


def cell_seconds(study: Study, pace: Pace) -> float:
    """Return how long a cell of a study takes at a pace."""
    steps = study.config.max_steps
    return pace.seconds(steps, 1 + steps // study.config.eval_interval)


def left(works: Sequence[Work], now: float, at_once: int) -> float:
    r"""Return how many seconds cells will still take.

    A cell that has not begun takes as long as cells of its kind did so far; before the first of them is done, as long
    as predicted, times the ratio :math:`r` of the times that other cells took to those that were predicted for them,

    .. math:: r = \frac{m + \sum_c t_c}{m + \sum_c p_c}

    with m the mean prediction, so that one cell alone does not decide. One that runs takes what is left of that time,
    and not less than its remaining steps will at its speed so far.

    Args:
        works: All cells of this call.
        now: The time, as that of ``began``.
        at_once: How many run at a time.
    """
    if not works:
        return 0.0
    taken: dict[tuple[str, str, bool], list[float]] = {}
    for work in works:
        if work.began is not None and work.ended is not None:
            taken.setdefault(work.group, []).append(work.ended - work.began)
    done = [work for work in works if work.ended is not None and work.began is not None]
    mean = statistics.fmean(work.predicted for work in works) or 1.0
    ratio = (mean + sum(map(sum, taken.values()))) / (mean + sum(work.predicted for work in done))
    rest, longest = 0.0, 0.0
    for work in works:
        if work.ended is not None:
            continue
        whole = statistics.fmean(taken[work.group]) if work.group in taken else ratio * work.predicted
        if work.began is not None:
            whole = _left_of(work, whole, now - work.began)
        rest, longest = rest + whole, max(longest, whole)
    return max(longest, rest / at_once)


def _left_of(work: Work, whole: float, elapsed: float) -> float:
    """Return how many seconds a running cell still takes, of which ``elapsed`` are over."""
    share = work.steps / work.study.config.max_steps
    by_steps = elapsed * (1 - share) / share if 0.1 <= share < 1 else 0.0
    return max(whole - elapsed, by_steps, elapsed / 10 if elapsed > whole else 0.0, _PROMPT)
