"""``make torture``: run the attacks on all cores, print a table, and exit with 1 if a promise did not hold."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import argparse
import random
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from . import machines
from .faults import CALLS, fault_scene, names
from .groups import group_budgets, group_faults, group_kills
from .kills import kill_round
from .payer import SAMPLED, TILED
from .services import FORK, Services
from .strings import KINDS, run_strings
from .tally import Report, Tally

KILLED = ("ibm", "braket", f"ibm{TILED}", f"plain{TILED}", f"ibm{SAMPLED}", f"plain{SAMPLED}")  # whose payers
KILLS, FAULTS = 160, 13  # SIGKILLs, about; faults of each call of each provider
LEAST = {"SIGKILL of a paying process": 100, "faulty answers": 190}
_TIMES = {
    machines.full_disk: 16,
    machines.interrupts: 16,
    machines.forks: 8,
    machines.processes: 6,
    machines.late_usage: 12,
    machines.clocks: 6,
    group_kills: 8,
    group_faults: 24,
    group_budgets: 6,
}
_STRINGS, _AT_ONCE = 1200, 200  # generated strings of each kind
Attack = Callable[[Services, Path, random.Random, Report], object]


def plan(seed: int) -> list[tuple[str, Attack]]:
    """Return the attacks of a seed by name, in the order in which they are tried: those of ``LEAST`` first."""
    rng = random.Random(seed)
    attacks: list[tuple[str, Attack]] = []
    every: list[tuple[str, Attack]] = []

    def add(name: str, attack: Callable[..., object], *arguments: Any) -> None:
        attacks.append((name, lambda services, folder, rng, report: attack(services, folder, *arguments, rng, report)))

    def shuffle() -> None:
        rng.shuffle(attacks)
        every.extend(attacks)
        attacks.clear()

    for provider, calls in CALLS.items():
        for call in calls:
            for fault in rng.sample(known := names(provider, call), min(FAULTS, len(known))):
                add(f"{provider} {call} {fault}", fault_scene, provider, call, fault)
    for number in range(KILLS // 4):
        add("kill", kill_round, KILLED[number % len(KILLED)])
    shuffle()
    for attack, times in _TIMES.items():
        for _ in range(times):
            add(attack.__name__, attack)
    shuffle()
    for kind in KINDS:
        for _ in range(_STRINGS // _AT_ONCE):
            add(f"strings {kind}", _strings, kind)
    shuffle()
    return every


def _strings(_: Services, folder: Path, kind: str, rng: random.Random, report: Report) -> None:
    run_strings(kind, folder, rng.randrange(2**32), _AT_ONCE, report)


def main() -> int:
    """Run the attacks, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--seed", type=int, help="that of the attacks; a new one by default")
    parser.add_argument("--minutes", type=float, default=9.5, help="when to stop, finished or not")
    parser.add_argument("--only", help="attacks by number, or by the beginning of their name, as failures print them")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    seed = secrets.randbelow(10**6) if given.seed is None else given.seed
    attacks = list(enumerate(plan(seed)))
    if given.only is not None:
        attacks = [each for each in attacks if given.only == str(each[0]) or each[1][0].startswith(given.only)]
    print(f"seed {seed}, {len(attacks)} attacks in {given.workers} processes", flush=True)
    folder, began = Path(tempfile.mkdtemp(prefix="torture-")), time.monotonic()
    deadline = began + 60 * given.minutes
    turn, workers = FORK.Value("i", 0), []
    for _ in range(given.workers):
        pipe, other = FORK.Pipe(duplex=False)
        process = FORK.Process(target=_work, args=(other, folder, seed, attacks, turn, deadline))
        process.start()
        other.close()
        workers.append((pipe, process))
    report = Report()
    try:
        _collect([pipe for pipe, _ in workers], report)
    finally:
        for _, process in workers:
            process.terminate()
            process.join()
        shutil.rmtree(folder, ignore_errors=True)
    print(report.table())
    skipped = max(0, len(attacks) - turn.value)
    held, minutes = report.held, (time.monotonic() - began) / 60
    print(f"\n{minutes:.1f} minutes" + (f"; {skipped} attacks were left out for lack of time" if skipped else ""))
    if given.only is None:
        for name, least in LEAST.items():
            count = sum(found.times for each, found in report.tallies.items() if each.startswith(name))
            if count < least:
                print(f"{name}: {count} times, but at least {least} are to be tried")
                held = False
    for note in report.notes:
        print(f"\n{note[:3000]}")
    if not held:
        print(f'\nRepeat with: make torture ARGS="--seed {seed}", and --only with the number or the name of an attack.')
    return 0 if held else 1


def _collect(pipes: list[Any], report: Report) -> None:
    """Read the workers' reports until the last has ended, and say how far they are."""
    said = time.monotonic()
    while pipes:
        for pipe in wait(pipes):
            try:
                report.join(pipe.recv())
            except EOFError:
                pipes.remove(pipe)
        if time.monotonic() - said > 30:
            said = time.monotonic()
            print(f"  {sum(found.times for found in report.tallies.values())} so far", flush=True)


def _work(
    pipe: Any, folder: Path, seed: int, attacks: list[tuple[int, tuple[str, Attack]]], turn: Any, deadline: float
) -> None:
    """Take attacks in turn, with services of this process's own, and report each."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    services = Services(folder)
    while time.monotonic() < deadline:
        with turn.get_lock():
            at = turn.value
            turn.value = min(at + 1, len(attacks))
        if at >= len(attacks):
            return
        number, (name, attack) = attacks[at]
        report = Report()
        try:
            attack(services, folder, random.Random(f"{seed} {number}"), report)
        except Exception as error:  # of the harness; counted, so that it is not overlooked
            report.add(name, Tally(times=1, tracebacks=1), f"the attack itself failed: {error!r}")
        report.notes = [f"[{number}] {note}" for note in report.notes]
        pipe.send(report)


if __name__ == "__main__":
    sys.exit(main())
