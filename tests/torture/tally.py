"""What became of attacks: counted, judged by the services' own records, and printed as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields


@dataclass
class Tally:
    """What a kind of attack did; everything but ``times`` must be 0.

    Attributes:
        times: How often it was tried.
        lost: Jobs that were paid for and whose results cannot be had.
        twice: Jobs that ran although the same request had been run before.
        passed: Budgets that were passed by more than a job.
        hangs: Processes that did not end within 30 seconds.
        tracebacks: Errors that are none of ours.
    """

    times: int = 0
    lost: int = 0
    twice: int = 0
    passed: int = 0
    hangs: int = 0
    tracebacks: int = 0

    @property
    def held(self) -> bool:
        """Whether every promise held."""
        return not any(getattr(self, each.name) for each in fields(self) if each.name != "times")

    def __iadd__(self, other: Tally) -> Tally:
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))
        return self


@dataclass
class Report:
    """The tallies of a worker, and what is needed to understand what did not hold.

    Attributes:
        tallies: By name of the attack.
        notes: A line for each promise that did not hold.
    """

    tallies: dict[str, Tally] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, found: Tally, note: str = "") -> None:
        self.tallies.setdefault(name, Tally())
        self.tallies[name] += found
        if not found.held:
            self.notes.append(f"{name}: {note or found}")

    def join(self, other: Report) -> None:
        for name, found in other.tallies.items():
            self.tallies.setdefault(name, Tally())
            self.tallies[name] += found
        self.notes += other.notes

    @property
    def held(self) -> bool:
        return all(found.held for found in self.tallies.values())

    def table(self) -> str:
        """Return the tallies, one attack per line."""
        heads = ("attack", "times", "jobs lost", "paid twice", "budgets passed", "hangs", "tracebacks")
        rows = [
            (name, *(str(getattr(found, each.name)) for each in fields(found))) for name, found in self.tallies.items()
        ]
        widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
        lines = [heads, tuple("-" * width for width in widths), *rows]
        return "\n".join("  ".join([name.ljust(widths[0]), *map(str.rjust, rest, widths[1:])]) for name, *rest in lines)


@dataclass(frozen=True)
class Paid:
    """A job, or a task of one, as the service has it.

    Attributes:
        tag: The tag it was sent with.
        part: Which part of the job it is.
        ran: Whether the device ran it, so that it is charged; a copy that was cancelled before did not.
        seconds: What it is charged.
    """

    tag: str
    part: str
    ran: bool
    seconds: float = 0.0


def judge(wanted: Iterable[str], records: Iterable[Paid], delivered: Mapping[str, bool]) -> tuple[int, int]:
    """Return how many requests are lost, and how many were paid for more than once.

    Args:
        wanted: The keys of the requests.
        records: The service's jobs.
        delivered: For each key whether the last process returned its values.
    """
    lost = twice = 0
    ran = Counter((record.tag.split("-")[1], record.part) for record in records if record.ran)
    for key in wanted:
        counts = [count for (start, _), count in ran.items() if key.startswith(start)]
        twice += sum(count - 1 for count in counts)
        lost += not counts or not delivered.get(key, False)
    return lost, twice
