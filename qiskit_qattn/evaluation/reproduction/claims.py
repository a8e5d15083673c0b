"""The claims by name, how one is run, and what comes out."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Protocol, cast

from qiskit_qattn.errors import unknown_name
from qiskit_qattn.training.progress import Progress

#: Each claim's name, and the module that runs it.
CLAIMS: Final = {
    "qisa-leak": "qisa_leak",
    "gpt-nano": "gpt_nano",
    "qisa-speed": "qisa_speed",
    "nanogpt": "nanogpt",
}


@dataclass(frozen=True)
class Options:
    """What a reproduction may be asked for.

    Attributes:
        out: The folder of the runs and the report.
        data: The corpus, as for ``qattn train``.
        steps: Training steps, or rounds of timing; None takes as many as the claim needs.
        seed: Of weights and batches.
    """

    out: Path
    data: str = "tinyshakespeare"
    steps: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Reproduction:
    """A claim beside what was found here.

    Attributes:
        claim: Its name.
        title: What it says, in a line.
        source: Who published it.
        head: The titles of the table's columns.
        rows: The table, published figures beside ours.
        reasons: Why they differ, and what follows.
        figures: Our figures as numbers.
        settings: What was run.
        shortened: That less was run than the claim needs, in a sentence; empty where all was.
    """

    claim: str
    title: str
    source: str
    head: list[str]
    rows: list[list[str]]
    reasons: list[str]
    figures: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)
    shortened: str = ""


def told_short(steps: int | None, full: int, what: str) -> str:
    """Return in a sentence that ``steps`` were run of the ``full`` number that a claim needs; empty if all were."""
    if steps is None or steps >= full:
        return ""
    return f"Shortened: {steps:,} of {full:,} {what}. These are not the figures of the claim; run it without --steps."


class Claim(Protocol):
    """A module of this package that runs a claim."""

    @staticmethod
    def run(options: Options, progress: Progress) -> Reproduction:
        """Run the claim again."""


def reproduce(name: str, options: Options, progress: Progress | None = None) -> Reproduction:
    """Run a published claim again.

    Training runs are kept in ``options.out``; one that is finished is not run again, one that was interrupted goes on.

    Raises:
        UnknownNameError: For a claim that is not in :data:`CLAIMS`.
        ConfigError: If ``options.out`` holds runs with other settings.
    """
    if name not in CLAIMS:
        raise unknown_name("claim", name, CLAIMS)
    module = cast(Claim, import_module(f"{__package__}.{CLAIMS[name]}"))
    return module.run(options, progress or Progress())
