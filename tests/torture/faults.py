"""Faults × calls × providers: a process pays while a call fails, and another one goes on when the fault has passed."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from tests.providers.aws_faults import FAULTS, RESULT_FAULTS
from tests.providers.ibm_faults import ANSWERS

from .payer import TILED, Order, Outcome, Payer, keys
from .services import Services, own_folder
from .tally import Report, Tally, judge

#: The requests whose answers are faulty, by provider and call.
CALLS: dict[str, dict[str, str]] = {
    "ibm": {
        "open": r"GET /backends(/.*/configuration)?",
        "session": r"POST /sessions",
        "submit": r"POST /jobs",
        "find": r"GET /jobs",
        "status": r"GET /jobs/[\w-]+",
        "result": r"GET /jobs/.*/results",
        "usage": r"GET /jobs/.*/metrics",
        "cancel": r"POST /jobs/.*/cancel",
    },
    "braket": {
        "open": "GetDevice",
        "search": "SearchDevices",
        "submit": "CreateQuantumTask",
        "find": "SearchQuantumTasks",
        "status": "GetQuantumTask",
        "result": "GetObject",
        "cancel": "CancelQuantumTask",
        "abandon": "SearchQuantumTasks",
    },
}
_LIMITS = "budget=unlimited&timeout=5"
_NUMBER = 1


def names(provider: str, call: str) -> list[str]:
    """Return the faults of a call."""
    if provider == "ibm":
        return list(ANSWERS)
    return [*FAULTS, *(RESULT_FAULTS if CALLS[provider][call] == "GetObject" else ())]


def fault_scene(
    services: Services, folder: Path, provider: str, call: str, fault: str, rng: random.Random, report: Report
) -> None:
    """Let a process pay under a fault, another go on without it, and judge."""
    found, device = Tally(times=1), "plain" if call == "abandon" else provider
    if call != "search" and rng.random() < 0.5:
        device += TILED
    [wanted] = keys(services, device, [_NUMBER]).values()
    with own_folder(folder) as place:
        services("fresh", rng.randrange(2**32))

        def pay(options: str = _LIMITS, act: str = "run") -> Outcome:
            proxied = provider == "ibm" and call == "submit" and rng.random() < 0.5
            where = "named" if call == "search" else device
            order = Order(where, place / "ledger.sqlite", [_NUMBER], options, act=act, proxied=proxied)
            outcome = Payer(services, order).end()
            found.tracebacks += bool(outcome.trace)
            found.hangs += outcome.hung
            return outcome

        first: list[Outcome] = []
        if call in ("cancel", "abandon"):
            services("hold")
            if call == "abandon":
                services("lose", provider, "part")
            first.append(pay("budget=unlimited&timeout=1&retries=0"))
            services("arm", provider, CALLS[provider][call], fault)
            first.append(pay(act="cancel"))
            services("mend")
            first.append(pay(act="cancel"))
        else:
            services("arm", provider, CALLS[provider][call], fault)
            if call == "find":
                services("lose", provider, "answer")
            first.append(pay(_LIMITS + ("&mode=session" if call == "session" else "")))
        services("calm")
        last = pay("budget=unlimited&timeout=20")
        records = services("records", provider)
        found.lost, found.twice = judge([wanted], records, last.values)
    report.add(f"faulty answers, {provider}", found, f"{call}, {fault}: {[*first, last]} {records}")


def arm(server: Any, provider: str, request: str, fault: str) -> None:
    """Make all answers to a request faulty, in the process that serves."""
    if provider == "ibm":
        server.spoil(request, fault)
    else:
        server.answers[request] = (FAULTS | RESULT_FAULTS)[fault]


def lose(server: Any, provider: str, what: str) -> None:
    """Lose the answer to the next job that is sent, or refuse a part of it for now, in the process that serves."""
    if provider == "ibm":
        server.drop("POST /jobs", "after")
    elif what == "answer":
        server.faults.append(("CreateQuantumTask", "drop_answer"))
    else:
        server.faults.extend([("CreateQuantumTask", None), *[("CreateQuantumTask", "throttle")] * 9])
