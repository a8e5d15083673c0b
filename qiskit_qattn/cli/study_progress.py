"""How ``qattn compare`` shows its progress: one bar for all cells on a terminal, a line a cell elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from qiskit_qattn.evaluation.comparison.cell import read_record, reported_since, steps_done
from qiskit_qattn.evaluation.comparison.plan import Cell, Study

_INTERVAL = 0.5  # seconds between two looks at the folder
_HOUR = 3600.0  # cells differ in speed, so the time left is estimated over long


@contextmanager
def study_progress(study: Study, console: Console | None = None) -> Iterator[None]:
    """Show how far the cells of a study are, as their folders tell, while a block runs."""
    console = console or Console()
    columns = (
        TextColumn("[bold]{task.fields[done]}/{task.fields[cells]} cells"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[now]}"),
        TimeElapsedColumn(),
        TextColumn("[dim]left"),
        TimeRemainingColumn(),
    )
    shown = Progress(*columns, console=console, disable=not console.is_terminal, speed_estimate_period=_HOUR)
    stopped = threading.Event()
    watcher = threading.Thread(target=_watch, args=(study, shown, stopped), daemon=True)
    with shown:
        watcher.start()
        try:
            yield
        finally:
            stopped.set()
            watcher.join()


def _watch(study: Study, shown: Progress, stopped: threading.Event) -> None:
    """Look at the cells again and again, and tell of each that ends."""
    cells, begin = study.cells(), time.time()
    total = len(cells) * study.config.max_steps
    done = {cell for cell in cells if read_record(study, cell) is not None}
    steps = sum(steps_done(study, cell) for cell in cells)
    task = shown.add_task("", total=total, completed=steps, cells=len(cells), done=len(done), now="")
    last = False
    while not last:
        last = stopped.wait(_INTERVAL)
        for cell in cells:
            if cell not in done and (record := read_record(study, cell)) is not None:
                done.add(cell)
                text = f"{len(done)}/{len(cells)} {_words(cell)}: validation loss {record['val_loss']:.4f}"
                shown.console.print(text, highlight=False, markup=False, soft_wrap=True)
        now = ", ".join(_words(cell) for cell in cells if cell not in done and reported_since(study, cell, begin))
        steps = sum(steps_done(study, cell) for cell in cells)
        shown.update(task, completed=steps, done=len(done), now=now)


def _words(cell: Cell) -> str:
    return f"{cell.kind} seed {cell.seed}"
