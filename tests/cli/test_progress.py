from __future__ import annotations

import functools
import io
import itertools
import logging

import pytest
from rich.console import Console

from qiskit_qattn.cli.messages import LOGGER, counting
from qiskit_qattn.cli.progress import BarProgress, LineProgress, make_progress
from qiskit_qattn.cli.remaining import RunTime
from qiskit_qattn.training.checkpoint import Validation
from qiskit_qattn.training.progress import Progress


def watch(console: Console) -> Progress:
    with make_progress(console) as progress:
        progress.phase_started("model", 0, 10)
        progress.validated(Validation(0, None, 4.25, 4.5), 0.0)
        for step in range(1, 11):
            progress.step_done(step, 3.125, 12345.6)
        progress.final_validation(1, 2)
        progress.phase_finished("model", 2.5, 2.75)
    return progress


def test_lines_where_there_is_no_terminal():
    out = io.StringIO()
    assert type(watch(Console(file=out, width=40))) is LineProgress
    lines = out.getvalue().splitlines()
    assert lines[0] == "model: training from step 0 to 10"
    assert lines[1].split() == ["step", "0", "train", "–", "val", "4.2500", "last", "position", "4.5000"]
    assert lines[2] == "model: validation loss 2.5000, last position 2.7500"


def test_data_without_positions_have_no_last_one():
    out = io.StringIO()
    with make_progress(Console(file=out, width=40)) as progress:
        progress.validated(Validation(3, 0.5, 4.25, None), 0.0)
        progress.phase_finished("model", 2.5, None)
    lines = out.getvalue().splitlines()
    assert lines[0].split() == ["step", "3", "train", "0.5000", "val", "4.2500"]
    assert lines[1] == "model: validation loss 2.5000"


def test_a_bar_on_a_terminal():
    out = io.StringIO()
    assert type(watch(Console(file=out, width=120, force_terminal=True, color_system=None))) is BarProgress
    shown = out.getvalue()
    assert "10/10" in shown
    assert "model: validation loss 2.5000" in shown


@pytest.mark.parametrize("name", ["model", "baseline"])
def test_on_80_columns_only_the_bar_gets_narrower(name: str):
    screen = io.StringIO()
    now = itertools.count(step=0.5)
    console = Console(file=screen, force_terminal=True, color_system=None, width=80)
    with make_progress(console) as progress:
        assert isinstance(progress, BarProgress)
        progress.clock = RunTime(lambda: next(now))
        progress.phase_started(name, 0, 2000)
        progress.validated(Validation(0, None, 4.25, 4.5), 0.0)
        for step in range(1, 33):
            progress.step_done(step, 3.125, 21456.7)
        lines = console.render_lines(progress.bars.get_renderable(), pad=False)
    [line] = ["".join(segment.text for segment in line) for line in lines]
    assert line.startswith(name) and "32/2000 train 3.125  val 4.250  21,457 tok/s 0:00:0" in line
    assert line.rstrip().endswith(" left")


def test_what_a_device_says_stands_below_the_bar():
    screen = io.StringIO()
    with make_progress(Console(file=screen, force_terminal=True, width=90)) as progress:
        assert isinstance(progress, BarProgress)
        progress.phase_started("model", 0, 2)
        progress.device_message("far:away job 7: queued, position 3, 0 s elapsed", logging.INFO)
        progress.device_message("the batch was closed", logging.WARNING)
        progress.bars.refresh()
    shown = screen.getvalue()
    assert "queued, position 3" in shown and "the batch was closed\n" in shown


def test_what_a_device_says_is_a_line_on_stderr_elsewhere(capsys: pytest.CaptureFixture[str]):
    with make_progress(Console(file=io.StringIO())) as progress:
        progress.device_message("far:away job 7: sent", logging.INFO)
    assert capsys.readouterr().err == "far:away job 7: sent\n"


def test_a_text_that_takes_long_says_how_long(caplog: pytest.LogCaptureFixture):
    for tokens in (20, 300):
        now = itertools.count()
        token_done = counting(tokens, clock=functools.partial(next, now))
        with caplog.at_level(logging.INFO, LOGGER):
            for _ in range(tokens):
                token_done()
    told = [record.getMessage() for record in caplog.records]
    assert told[0].endswith(" left for 297 of 300 tokens") and len(told) > 1
