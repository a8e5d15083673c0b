"""How long ``qattn compare`` will take, told before it starts and while it runs."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from qiskit_qattn.backends.place import Place
from qiskit_qattn.cli.help import say
from qiskit_qattn.cli.remaining import QUEUE, duration
from qiskit_qattn.evaluation.comparison.cell import finished
from qiskit_qattn.evaluation.comparison.steps import steps_done
from qiskit_qattn.evaluation.comparison.study import Cell, Study
from qiskit_qattn.evaluation.comparison.tasks import task_of
from qiskit_qattn.evaluation.comparison.timing import Work, cell_seconds, left, paces, process_seconds

_INTERVAL = 0.5  # seconds between two looks at the folders
_UNKNOWN = 60.0  # seconds of a cell whose steps are not timed


def predicted(studies: Sequence[Study], rest: Mapping[Path, Sequence[Cell]], at_once: int | None) -> list[Work]:
    """Time a few steps of each kind, print how long the rest of a comparison will take, and return its cells with that.

    Steps on a device are not timed, since they cost money.

    Args:
        studies: The studies.
        rest: The cells of each that are not done, by its folder.
        at_once: How many run at a time; None if that is not known.
    """
    if not any(rest.values()):
        return []
    with (place := Place.open(studies[0].config.backend)):  # that of all of them
        on_device = bool(place.devices)
    works: list[Work] = []
    process = process_seconds()
    for study in studies:
        waiting = rest[study.folder]
        found = {} if on_device else paces(study, dict.fromkeys(cell.kind for cell in waiting), process)
        works += [Work(study, c, cell_seconds(study, found[c.kind]) if found else _UNKNOWN) for c in waiting]
    say(QUEUE if on_device else f"time: {_forecast(works, at_once)}")
    return works


def _forecast(works: Sequence[Work], at_once: int | None) -> str:
    """Return in words how long cells will take."""
    by_kind: dict[str, list[float]] = {}
    for work in works:
        by_kind.setdefault(work.cell.kind, []).append(work.predicted)
    means = sorted((statistics.fmean(times), kind) for kind, times in by_kind.items())
    each = " to ".join(dict.fromkeys(f"{duration(mean)} ({kind})" for mean, kind in (means[0], means[-1])))
    if at_once is None:
        whole = f"about {duration(sum(work.predicted for work in works))}, divided by the cluster's CPUs"
    else:
        whole = f"about {duration(left(works, 0.0, at_once))}, {at_once} at a time"
    return f"{whole}; a cell takes {each}"


@contextmanager
def watched(studies: Sequence[Study], works: Sequence[Work], at_once: int | None) -> Iterator[None]:
    """Show the progress of cells while a block runs: a bar on a terminal, a line per cell elsewhere.

    The bar's unit is the second: what is done is the time so far, and all of it is that and the time that is left.
    """
    console = Console()
    columns = (
        TextColumn("[bold]{task.fields[done]}/{task.fields[cells]} cells"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[now]}"),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[left]}"),
    )
    shown = Progress(*columns, console=console, disable=not console.is_terminal)
    stopped = threading.Event()
    watcher = threading.Thread(target=_watch, args=(studies, works, at_once, shown, stopped), daemon=True)
    with shown:
        watcher.start()
        try:
            yield
        finally:
            stopped.set()
            watcher.join()


def _watch(
    studies: Sequence[Study], works: Sequence[Work], at_once: int | None, shown: Progress, stopped: threading.Event
) -> None:
    """Read the cells' folders at intervals, and print a line for each cell that ends."""
    begin, wall = time.monotonic(), time.time()
    total = sum(len(study.cells()) + len(study.trials()) for study in studies)
    done = total - len(works)
    task: TaskID = shown.add_task("", total=None, cells=total, done=done, now="", left="")
    named = [study.build and task_of(study.build) != study.build for study in studies]
    several, last = len(studies) > 1 or any(named), False
    while not last:
        last = stopped.wait(_INTERVAL)
        now = time.monotonic() - begin
        running = [work for work in works if work.ended is None and _has_begun(work, wall)]
        for work in running:
            record = finished(work.study, work.cell)
            if work.began is None:
                work.began = now if record is None else max(0.0, now - work.predicted)
            work.steps = steps_done(work.study, work.cell)
            if record is not None:
                work.ended, done = now, done + 1
                loss = "diverged" if record["val_loss"] is None else f"validation loss {record['val_loss']:.4f}"
                rest = left(works, now, at_once or max(1, len(running)))
                text = f"{done}/{total} {_title(work, several)}: {loss}"
                text += f", about {duration(rest)} left" if done < total and not last else ""
                shown.console.print(text, highlight=False, markup=False, soft_wrap=not shown.console.is_terminal)
        busy = [work for work in running if work.ended is None]
        rest = left(works, now, at_once or max(1, len(busy)))
        names = ", ".join(_title(work, several) for work in busy[-(at_once or len(busy)) :])  # others have failed
        shown.update(task, completed=now, total=now + rest, done=done, now=names, left=f"{duration(rest)} left")


def _has_begun(work: Work, since: float) -> bool:
    """Return whether a cell's process has started since a time, in seconds since 1970: it opens a log at once."""
    if work.began is not None or finished(work.study, work.cell) is not None:
        return True
    try:
        return work.study.side_file(work.cell, "log").stat().st_mtime >= since - 1
    except FileNotFoundError:
        return False


def _title(work: Work, several: bool) -> str:
    """Return a cell in words."""
    split = f" (split {work.study.config.split})" if work.study.config.split else ""
    task = f"{task_of(work.study.build)}{split} " if several else ""
    rate = f" at {work.cell.rate:g}" if work.cell.rate else ""
    return f"{task}{work.cell.kind}{rate} seed {work.cell.seed}"
