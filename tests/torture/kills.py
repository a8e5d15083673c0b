"""SIGKILLs of paying processes: two at a time on one ledger, and after each kill a new one goes on."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

from .payer import Order, Payer, keys, provider_of
from .services import Services, own_folder
from .tally import Report, Tally, judge

REQUESTS = 4
_KILLS = 4  # per ledger


def kill_round(services: Services, folder: Path, provider: str, rng: random.Random, report: Report) -> int:
    """Kill processes that share a ledger at random moments, let the last end, and judge; return the number of kills."""
    numbers = list(range(REQUESTS))
    wanted = keys(services, provider, numbers)
    found, note, kills = Tally(), "", 0
    with own_folder(folder) as place:
        services("fresh", rng.randrange(2**32))
        services("pace", *sorted((rng.uniform(0, 0.1), rng.uniform(0.02, 0.3))))

        def start() -> Payer:
            order = rng.sample(numbers, len(numbers))
            proxied = provider_of(provider) == "ibm" and rng.random() < 0.25
            return Payer(services, Order(provider, place / "ledger.sqlite", order, proxied=proxied))

        alive: list[Payer] = []
        for _ in range(_KILLS):
            alive = [payer for payer in alive if payer.alive]
            alive += [start() for _ in range(2 - len(alive))]
            if rng.random() < 0.5:
                time.sleep(rng.uniform(0, 0.8))
            else:  # as a request arrives, which is answered when the process is gone
                services("strike", rng.randint(1, 30), rng.uniform(0, 0.05))
                services.struck.wait(1.0)
            victims = alive if rng.random() < 0.25 else [rng.choice(alive)]
            for victim in victims:
                victim.signal(signal.SIGKILL)
            for victim in victims:
                outcome = victim.end()
                kills += outcome.killed
                note = note or outcome.trace or ("hung" if outcome.hung else "")
                found.tracebacks += bool(outcome.trace)
                found.hangs += outcome.hung
        last = [*(payer for payer in alive if payer.alive), start()]
        outcomes = [payer.end() for payer in last]
        for outcome in outcomes:
            note = note or outcome.trace or outcome.error or ("hung" if outcome.hung else "")
            found.tracebacks += bool(outcome.trace)
            found.hangs += outcome.hung
        services("calm")
        records = services("records", provider_of(provider))
        found.lost, found.twice = judge(wanted.values(), records, outcomes[-1].values)
    found.times = kills
    if not found.held:
        note = f"{note} {outcomes} {records}"
    report.add(f"SIGKILL of a paying process, {provider.replace('plain', 'braket')}", found, note)
    return kills
