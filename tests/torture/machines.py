"""What machines and people do to paying processes: full disks, Ctrl-C, forks, wrong clocks, usage that comes late."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .payer import TILED, Order, Outcome, Payer, keys, provider_of
from .services import LIES, Services, own_folder
from .tally import Paid, Report, Tally, judge

NUMBERS = [0, 1, 2]
_SHOTS = 2 * 64  # of a job: two measurement bases
_ESTIMATE = 2.1  # seconds of a job on IBM's device, at most


class Scene:
    """An attack: what its processes did, and what is wrong with it."""

    def __init__(self, services: Services, folder: Path, provider: str, rng: random.Random) -> None:
        self.services, self.provider, self.rng = services, provider, rng
        self.ledger = folder / "ledger.sqlite"
        self.found, self.outcomes = Tally(times=1), list[Outcome]()
        self.wanted = keys(services, provider, NUMBERS)
        services("fresh", rng.randrange(2**32))

    def start(self, ledger: Path | None = None, **order: object) -> Payer:
        numbers = order.pop("numbers", NUMBERS)
        return Payer(self.services, Order(self.provider, ledger or self.ledger, numbers, **order))  # type: ignore[arg-type]

    def end(self, payer: Payer) -> Outcome:
        outcome = payer.end()
        self.outcomes.append(outcome)
        self.found.tracebacks += bool(outcome.trace)
        self.found.hangs += outcome.hung
        return outcome

    def judge(self, name: str, report: Report, ledger: Path | None = None) -> None:
        """Let a last process go on in peace, and report."""
        self.services("calm")
        last = self.end(self.start(ledger))
        records = self.services("records", provider_of(self.provider))
        self.found.lost, self.found.twice = judge(self.wanted.values(), records, last.values)
        report.add(name, self.found, f"{self.outcomes} {records}")

    def judge_budget(self, name: str, report: Report, limit: float, job: float) -> None:
        """Report whether the service charged more than a budget and one job."""
        records: list[Paid] = self.services("records", provider_of(self.provider))
        total = sum(record.seconds for record in records)
        self.found.passed = int(total > limit + max(job, _ESTIMATE) + 1e-9)
        report.add(name, self.found, f"{total} s of {limit} s are charged: {self.outcomes}")


def full_disk(services: Services, folder: Path, rng: random.Random, report: Report) -> None:
    """Let the disk be full from some moment on, on a small file system where one can be mounted."""
    with own_folder(folder) as place:
        scene = Scene(services, place, rng.choice(["ibm", "braket", f"ibm{TILED}", f"braket{TILED}"]), rng)
        with _small_disk(place, rng.randint(40, 400)) as disk:
            ledger = None if disk is None else disk / "ledger.sqlite"
            limit = rng.choice([0, rng.randint(1, 200_000)]) if disk is None else None
            if rng.random() < 0.7:
                scene.end(scene.start(ledger, numbers=NUMBERS[:1]))
            if disk is not None and rng.random() < 0.8:
                _fill(disk, rng.randint(0, 8))
            scene.end(scene.start(ledger, file_size=limit))
            if disk is not None:
                subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
            scene.judge("full disk", report, ledger)


def interrupts(services: Services, folder: Path, rng: random.Random, report: Report) -> None:
    """Press Ctrl-C, and again; then the same process goes on, and another."""
    with own_folder(folder) as place:
        scene = Scene(services, place, rng.choice(["ibm", "braket", f"ibm{TILED}", f"braket{TILED}"]), rng)
        services("pace", 0.05, 0.3)
        payer = scene.start(act="stop")
        if rng.random() < 0.5:
            services("strike", rng.randint(1, 20), rng.uniform(0, 0.05))
            services.struck.wait(1.0)
        else:
            time.sleep(rng.uniform(0, 0.8))
        payer.signal(signal.SIGINT)
        time.sleep(rng.choice([0.0, rng.uniform(0, 0.05)]))
        payer.signal(signal.SIGINT)
        scene.end(payer)
        scene.judge("Ctrl-C twice", report)


def forks(services: Services, folder: Path, rng: random.Random, report: Report) -> None:
    """Fork workers on one estimator; they share its budget."""
    with own_folder(folder) as place:
        scene = Scene(services, place, "ibm", rng)
        services("charge", 2.0 / _SHOTS)
        limit = rng.choice([3, 5, 7])
        options = f"budget={limit}s&timeout=20"
        payer = scene.start(numbers=list(range(12)), options=options, act="share", workers=rng.randint(2, 4))
        scene.end(payer)
        scene.judge_budget("forked workers, one budget", report, limit, 2.0)


def processes(services: Services, folder: Path, rng: random.Random, report: Report) -> None:
    """Start processes at once on one ledger; they share a budget."""
    with own_folder(folder) as place:
        scene = Scene(services, place, "ibm", rng)
        services("charge", 2.0 / _SHOTS)
        limit, begin = rng.choice([3, 5, 7]), time.monotonic() + 2.5
        orders = [list(range(first, 12, 3)) for first in range(3)]
        payers = [scene.start(numbers=own, options=f"budget={limit}s&timeout=20", begin=begin) for own in orders]
        for payer in payers:
            scene.end(payer)
        scene.judge_budget("processes at once, one budget", report, limit, 2.0)


def late_usage(services: Services, folder: Path, rng: random.Random, report: Report) -> None:
    """Charge more than was estimated, and tell so late, or nonsense first."""
    with own_folder(folder) as place:
        scene = Scene(services, place, "ibm", rng)
        seconds, limit = rng.choice([6.0, 15.0, 60.0]), rng.choice([8, 20])
        services("charge", seconds / _SHOTS)
        services("lie", rng.choice(list(LIES)), 1)
        scene.end(scene.start(numbers=list(range(12)), options=f"budget={limit}s&timeout=20"))
        scene.judge_budget("usage late or nonsense", report, limit, seconds)


def clocks(services: Services, folder: Path, rng: random.Random, report: Report) -> None:
    """Let one process send, slowly, while another one's clock says that the first has long ended."""
    with own_folder(folder) as place:
        scene = Scene(services, place, "ibm", rng)
        services("slow", "POST /jobs", 1.5)
        first = scene.start()
        time.sleep(rng.uniform(0.2, 0.8))
        second = scene.start(clock=rng.choice([-1, 1]) * rng.choice([3.0, 3600.0, 1e7]))
        scene.end(first)
        scene.end(second)
        scene.judge("stepped clock", report)


def _fill(disk: Path, leave: int) -> None:
    """Fill a small disk but for some blocks."""
    try:
        with (disk / "filler").open("wb", buffering=0) as stream:
            while True:
                stream.write(b"x" * 4096)
    except OSError:
        pass
    with (disk / "filler").open("r+b") as stream:
        stream.truncate(max(0, (disk / "filler").stat().st_size - 4096 * leave))


@contextmanager
def _small_disk(folder: Path, kilobytes: int) -> Iterator[Path | None]:
    """Yield a file system of its own in memory, or None where none can be mounted."""
    disk = folder / "disk"
    disk.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(["mount", *options], capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    try:
        yield disk if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(disk)], capture_output=True, check=False)
