"""Attacks on a group of two devices: SIGKILL, faulty answers and budgets while its rows are shared out."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import torch

import qiskit_qattn as qa
from qiskit_qattn.backends.place import Place, wait_until_closed
from qiskit_qattn.errors import QattnError
from tests.providers.ibm_faults import ANSWERS

from .payer import ACTS, Order, Outcome, Payer, enter
from .services import Services, own_folder
from .tally import Report, Tally

NUMBERS = [0, 1, 2]
_DEVICES = ("ibm:test_manila", "ibm:test_nairobi")
_OPTIONS = "optimization=0&resilience=0&shots=64&retries=2"
_TILES = ("", "&tiles=2&tile_spacing=0")  # half of the attacks send circuits side by side
_ROWS = 6
_JOB = 2.1  # seconds of a job, at most, as estimated
#: Requests whose answers are faulty; jobs are numbered as they come, and the first device's job is the first.
_REQUESTS = (
    r"GET /backends/test_manila/.*",
    r"GET /backends",
    r"POST /jobs",
    r"GET /jobs",
    r"GET /jobs/job-0",
    r"GET /jobs/job-1",
    r"GET /jobs/job-0/results",
    r"GET /jobs/.*/metrics",
    r"POST /sessions",
)
_WARM: list[bool] = []


def group_kills(services: Services, folder: Path, rng: random.Random, report: Report) -> None:
    """Kill processes that pay on a group, two at a time on one ledger, while queues change; the last one ends."""
    found, outcomes, tiles = Tally(), list[Outcome](), rng.choice(_TILES)
    _warm(services)
    with own_folder(folder) as place:
        services("fresh", rng.randrange(2**32))
        services("pace", *sorted((rng.uniform(0, 0.1), rng.uniform(0.02, 0.3))))
        alive: list[Payer] = []
        for _ in range(4):
            alive = [payer for payer in alive if payer.alive]
            for _ in range(2 - len(alive)):
                services("queues", rng.randrange(50), rng.randrange(50))
                alive.append(_start(services, place, rng, tiles))
            time.sleep(rng.uniform(0.3, 1.5))
            victim = rng.choice(alive)
            victim.signal(signal.SIGKILL)
            outcomes.append(victim.end())
            found.times += outcomes[-1].killed
        outcomes += [payer.end() for payer in alive if payer.alive]
        _judge(services, place, rng, "SIGKILL of a paying process, group", found, outcomes, report, tiles)


def group_faults(services: Services, folder: Path, rng: random.Random, report: Report) -> None:
    """Let a process pay on a group while answers of one kind are faulty, once or always; another goes on in peace."""
    found, outcomes, tiles = Tally(times=1), list[Outcome](), rng.choice(_TILES)
    request, fault, always = rng.choice(_REQUESTS), rng.choice(list(ANSWERS)), rng.random() < 0.5
    _warm(services)
    with own_folder(folder) as place:
        services("fresh", rng.randrange(2**32))
        services("spoil", request, fault, always)
        outcomes.append(_start(services, place, rng, tiles, options="budget=unlimited&timeout=5").end())
        services("queues", rng.randrange(50), rng.randrange(50))
        name = "faulty answers, group"
        _judge(services, place, rng, name, found, outcomes, report, tiles, f"{request} {fault} {always}")


def group_budgets(services: Services, folder: Path, rng: random.Random, report: Report) -> None:
    """Run more on a group than the budgets of its devices allow; each passes its own by one job at most."""
    found, limit, tiles = Tally(times=1), rng.choice([3, 5, 7]), rng.choice(_TILES)
    _warm(services)
    with own_folder(folder) as place:
        services("fresh", rng.randrange(2**32))
        services("charge", 2.0 / (2 * 64))
        options = f"budget={limit}s&timeout=20"
        payers = [_start(services, place, rng, tiles, options, range(i, 12, 2)) for i in range(2)]
        outcomes = [payer.end() for payer in payers]
        charges = services("charges")
        found.passed = sum(total > limit + _JOB * _ROWS for total in charges.values())
        found.tracebacks = sum(bool(outcome.trace) for outcome in outcomes)
        found.hangs = sum(outcome.hung for outcome in outcomes)
        report.add("budgets, group", found, f"{charges} of {limit} s each: {outcomes}")


def _judge(
    services: Services,
    place: Path,
    rng: random.Random,
    name: str,
    found: Tally,
    outcomes: list[Outcome],
    report: Report,
    tiles: str,
    note: str = "",
) -> None:
    """Let a last process end in peace: as many jobs must have run as it had shares."""
    services("calm")
    outcomes.append(_start(services, place, rng, tiles).end())
    for outcome in outcomes:
        found.tracebacks += bool(outcome.trace)
        found.hangs += outcome.hung
    last, records = outcomes[-1], services("records", "ibm")
    ran = sum(record.ran for record in records)
    wrong = sum(not last.values.get(str(number), False) for number in NUMBERS)
    found.lost, found.twice = max(0, last.requests - ran) + wrong, max(0, ran - last.requests)
    report.add(name, found, f"{note}{tiles} {last.requests} shares, {ran} jobs ran: {outcomes} {records}")


def _start(
    services: Services,
    place: Path,
    rng: random.Random,
    tiles: str,
    options: str = "budget=unlimited&timeout=20",
    numbers: range | None = None,
) -> Payer:
    mine = rng.sample(NUMBERS, len(NUMBERS)) if numbers is None else list(numbers)
    return Payer(services, Order("ibm", place / "ledger.sqlite", mine, options + tiles, act="group"))


def _warm(services: Services) -> None:
    """Transpile in this process, which forked ones could not, and load what is loaded when it is first used."""
    if _WARM:
        return
    services("calm")
    with own_folder(Path("/tmp")) as place:
        for tiles in _TILES:
            order = Order("ibm", place / "ledger.sqlite", NUMBERS[:1], f"budget=unlimited{tiles}")
            enter(services, order)
            _group(None, order, Outcome())
            wait_until_closed()
    _WARM.append(True)


def _group(_: object, order: Order, found: Outcome) -> None:
    """Compute the rows of each number on the group; an error ends only its own number."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    head = qa.QuantumHead(qa.attention_circuit("angle", 2))
    text = " + ".join(f"{device}?{_OPTIONS}&{order.options}" for device in _DEVICES)
    exact = {number: head(_rows(number)).detach() for number in order.numbers}
    with Place.open(text) as place:
        head.to_backend(place)
        for number in order.numbers:
            try:
                values = head(_rows(number)).detach()
                found.values[str(number)] = bool(((values - exact[number]).abs() < 1.2 * head.gain.abs().max()).all())
            except QattnError as error:
                found.error = f"{type(error).__name__}: {error}"
        for _, each in place.devices:
            found.requests += each.jobs_sent + each.jobs_cached + each.jobs_attached


def _rows(number: int) -> torch.Tensor:
    return torch.rand(_ROWS, 2, generator=torch.Generator().manual_seed(number))


ACTS["group"] = _group  # type: ignore[assignment]
