"""Published claims by name: running one again, and the report ``report.md`` and ``report.json`` of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Final

from qiskit_qattn.errors import unknown_name
from qiskit_qattn.evaluation.latex import write_document
from qiskit_qattn.evaluation.rendering import code, machine, pairs, table, versions, write_json
from qiskit_qattn.evaluation.reproduction import gpt_losses, qasa, qasa_circuit, qisa_leak, qisa_speed
from qiskit_qattn.evaluation.reproduction.runs import Options, Reproduction
from qiskit_qattn.training.progress import Progress

FORMAT = "qiskit-qattn/reproduction"
#: The function that runs each claim.
CLAIMS: Final[Mapping[str, Callable[[Options, Progress], Reproduction]]] = MappingProxyType(
    {
        "qisa-leak": qisa_leak.run,
        "gpt-nano": gpt_losses.gpt_nano,
        "qisa-speed": qisa_speed.run,
        "nanogpt": gpt_losses.nanogpt,
        "qasa": qasa.run,
        "qasa-circuit": qasa_circuit.run,
    }
)


def reproduce(name: str, options: Options, progress: Progress | None = None) -> Reproduction:
    """Run a published claim again.

    Training runs are stored in ``options.out``; finished ones are reused, interrupted ones are continued.

    Raises:
        UnknownNameError: For a claim that is not in :data:`CLAIMS`.
        ConfigError: If ``options.out`` contains runs with other settings.
    """
    if name not in CLAIMS:
        raise unknown_name("claim", name, CLAIMS)
    return CLAIMS[name](options, progress or Progress())


def write_report(folder: Path, found: Reproduction, command: str) -> None:
    """Write the report into ``folder``, which is created if it does not exist.

    Raises:
        RunFolderError: If it cannot be written.
    """
    created = datetime.now(UTC).isoformat(timespec="seconds")
    where = {"versions": versions(), "machine": machine()}
    report = {"format": FORMAT, "created": created, "command": command, **dataclasses.asdict(found), **where}
    write_json(folder / "report.json", report)
    parts = [
        f"# {found.title}",
        f"A published claim ({found.source}), run again {created} with {code(command)}.",
        *([f"**{found.shortened}**"] if found.shortened else []),
        table(found.head, found.rows),
        "## Why they differ",
        "\n".join(f"- {reason}" for reason in found.reasons),
        "## Settings",
        pairs({name: value for name, value in found.settings.items() if name != "out"}),
        "## Versions and machine",
        pairs({**where["versions"], **where["machine"]}),
    ]
    write_document(folder, "\n\n".join(parts) + "\n")
