"""Samples per second over the batch and over the number of qubits, with a plot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from networks import user_network
from rows import duration, number
from sheet import Sheet
from steps import forward_backward
from timing import Effort, interleave

import qiskit_qattn as qa
from qiskit_qattn.evaluation.drawing import COLORS, GRID, QUIET, blank_figure, legend, write_figures

BATCHES = tuple(4**k for k in range(3, 9))  # 64 … 65,536
QUBITS = tuple(range(2, 21, 2))
_BATCH, _NUM_QUBITS = 1024, 4
_AMPLITUDES = 2**22  # of a batch: from 14 qubits on it has fewer rows
PICTURE = "scaling.png"


def measure(effort: Effort, folder: Path | None) -> Sheet:
    """Return the table, and draw the plot into ``folder``, if there is one."""
    effort = Effort(min(effort.rounds, 5), effort.seconds)
    by_batch = {batch: _seconds(_NUM_QUBITS, batch, effort) for batch in BATCHES}
    by_qubits = {qubits: _seconds(qubits, _rows(qubits), effort) for qubits in QUBITS}
    if folder is not None:
        _plot(by_batch, by_qubits, folder / PICTURE)
    measured = [(_NUM_QUBITS, batch, seconds) for batch, seconds in by_batch.items()]
    measured += [(qubits, _rows(qubits), seconds) for qubits, seconds in by_qubits.items()]
    rows = [(str(q), f"{b:,}", duration(s), number(b / s)) for q, b, s in measured]
    start, slope = _line(by_batch)
    off = max(abs(seconds / (start + slope * batch) - 1) for batch, seconds in by_batch.items())
    notes = (
        f"At {_NUM_QUBITS} qubits the time is {duration(start)} + {1e9 * slope:.0f} ns × batch, within {off:.0%}.",
    )
    header = ("qubits", "batch", "forward and backward", "samples/s")
    return Sheet("Scaling of the user's circuit", header, rows, notes, picture=PICTURE)


def _rows(num_qubits: int) -> int:
    """Return the batch that a number of qubits is measured at."""
    return min(_BATCH, _AMPLITUDES >> num_qubits)


def _seconds(num_qubits: int, batch: int, effort: Effort) -> float:
    torch.manual_seed(0)
    connector = qa.TorchConnector(user_network(num_qubits))
    call = forward_backward(connector, torch.randn(batch, num_qubits))
    return interleave({"call": call}, effort).spread("call").median


def _line(by_batch: dict[int, float]) -> tuple[float, float]:
    """Return a and b of the line a + b × batch with the least relative deviations."""
    batches, seconds = np.array(list(by_batch)), np.array(list(by_batch.values()))
    slope, start = np.polyfit(batches, seconds, 1, w=1 / seconds)
    return float(start), float(slope)


def _plot(by_batch: dict[int, float], by_qubits: dict[int, float], path: Path) -> None:
    figure = blank_figure(figsize=(9, 3.6))
    left, right = figure.subplots(1, 2)
    batches = np.array(list(by_batch))
    seconds = np.array(list(by_batch.values()))
    left.loglog(batches, 1e3 * seconds, "o-", color=COLORS[0], label="measured")
    start, slope = _line(by_batch)
    left.loglog(batches, 1e3 * (start + slope * batches), "--", color=QUIET, label="a + b × batch")
    left.set(xlabel="batch", ylabel="forward and backward, ms", title=f"{_NUM_QUBITS} qubits")
    legend(left, fontsize=None)
    right.semilogy(list(by_qubits), [_rows(qubits) / s for qubits, s in by_qubits.items()], "o-", color=COLORS[0])
    right.set(
        xticks=list(by_qubits),
        xlabel="qubits",
        ylabel="samples per second",
        title=f"batch {_BATCH:,}, at most $2^{{22}}$ amplitudes",
    )
    for axes in (left, right):
        axes.grid(which="both", **GRID)
    write_figures(path.parent, {path.stem: figure})
