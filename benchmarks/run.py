"""Measure speed and memory, and print them as ratios."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from cases import CASES
from machine import describe, load, num_cores, prepare
from peers import PEERS
from rich.console import Console
from sheet import Sheet, ratio_sheet
from timing import QUICK, USUAL, Effort

_HERE = Path(__file__).parent
TITLES = {
    "results.md": "Speed and memory, measured",
    "floors.md": "Lower bounds of run times",
    "scaling.md": "Speed by batch and qubits",
    "peers.md": "Speed beside other libraries",
}


def main() -> None:
    options = _parser().parse_args()
    prepare()
    console = Console()
    console.width = max(console.width, 132)  # wide enough for the tables where there is no terminal
    machine = describe(*("pennylane", "tensorcircuit-ng", "jax", "torq-quantum") if options.peers else ())
    console.print(machine, highlight=False)
    if (now := load()) > num_cores() / 2:
        console.print(f"[yellow]The load is {now:.1f}: if other programs run, figures will be off.[/yellow]")
    effort = QUICK if options.quick else USUAL
    reports = {"peers.md": _peers} if options.peers else {"results.md": _cases, "floors.md": _floors}
    if options.full:
        reports["scaling.md"] = lambda effort: _scaling(effort, None if options.quick else _HERE)
    if options.only:
        reports = {name: _one(name) for name in options.only}
    for name, make in reports.items():
        with console.status(f"Measuring: {name.removesuffix('.md')}"):
            sheet = make(effort)
        sheet.show(console)
        if not options.only and not options.quick:
            (_HERE / name).write_text(f"# {TITLES[name]}\n\n{machine}\n\n{sheet.markdown()}", encoding="utf-8")
            console.print(f"Written to benchmarks/{name}.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    names = [*CASES, "floors", "scaling", *PEERS]
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--quick", action="store_true", help="short and rough; writes no results")
    parser.add_argument("--full", action="store_true", help="also the sweep over batch and qubits, with its plot")
    parser.add_argument("--peers", action="store_true", help="against other libraries, which must be installed")
    return parser


def _one(name: str) -> Callable[[Effort], Sheet]:
    """Return what measures the one thing of that name."""
    if name in PEERS:
        return lambda effort: _peers(effort, [name])
    return {"floors": _floors, "scaling": _scaling}.get(name) or (lambda effort: _cases(effort, [name]))


def _cases(effort: Effort, names: tuple[str, ...] | list[str] = CASES) -> Sheet:
    rows = [row for name in names for row in import_module(f"cases.{name}").measure(effort)]
    return ratio_sheet("Ratios, each of one run", rows)


def _peers(effort: Effort, names: tuple[str, ...] | list[str] = tuple(PEERS)) -> Sheet:
    return ratio_sheet(
        "Times as fast as other libraries", list(import_module("peers.comparison").measure(names, effort))
    )


def _floors(effort: Effort) -> Sheet:
    return import_module("roofline").measure(effort)


def _scaling(effort: Effort, folder: Path | None = None) -> Sheet:
    return import_module("scaling").measure(effort, folder)


if __name__ == "__main__":
    main()
