"""Which backends of a chain computed a run, over all the processes that trained it."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qiskit_qattn.errors import CheckpointError
from qiskit_qattn.nn.placement import ran_on
from qiskit_qattn.training.files import write_text, writing

NAME = "audit.json"


@contextmanager
def backend_log(path: Path) -> Iterator[None]:
    """Append what backends warn of, such as each fall in a chain, to a file that appears with the first line."""
    logger = logging.getLogger("qiskit_qattn.backends")
    handler = logging.FileHandler(path, encoding="utf-8", delay=True)
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()


def read_audit(folder: Path, step: int) -> dict[str, Any]:
    """Return what earlier processes left in ``folder`` of a run up to ``step``; empty if that is not known.

    Raises:
        CheckpointError: If it is damaged.
    """
    try:
        found = json.loads((folder / NAME).read_text("utf-8"))
        return dict(found) if found["to_step"] == step else {}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{str(folder / NAME)!r} is damaged: {error}. Remove it to go on without.") from error


def write_audit(folder: Path, audit: dict[str, Any]) -> None:
    """Leave an audit in ``folder``, if there is anything in it.

    Raises:
        RunFolderError: If it cannot be written.
    """
    if audit:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / NAME, json.dumps(audit, indent=1) + "\n")


def joined(before: dict[str, Any], now: dict[str, Any], start: int, end: int) -> dict[str, Any]:
    """Return the audit of a run up to step ``end``: of what earlier processes did, and of this one from ``start`` on.

    ``from_step`` and ``to_step`` say which steps it covers. Calls of later processes count on from those before.
    """
    if not now:
        return before
    if not before:
        return {"from_step": start, "to_step": end, **now}
    heads = []
    shift = {}
    for old, new in zip(before["heads"], now["heads"], strict=True):
        shift[old["layer"], old["kind"]] = sum(old["calls"].values())
        heads.append({**new, **{key: _sum(old[key], new[key]) for key in ("calls", "gradients")}})
    falls = [{**fall, "call": fall["call"] + shift[fall["layer"], fall["kind"]]} for fall in now["falls"]]
    return {
        "from_step": before["from_step"],
        "to_step": end,
        "calls": _sum(before["calls"], now["calls"]),
        "gradients": _sum(before["gradients"], now["gradients"]),
        "heads": heads,
        "falls": before["falls"] + falls,
    }


def relabelled(head_backends: list[dict[str, Any]], audit: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the heads with the backends that computed them in all processes."""
    calls = {(head["layer"], head["kind"]): head["calls"] for head in audit["heads"]}
    rows = []
    for row in head_backends:
        found = calls.get((row["layer"], row["kind"]))
        rows.append({**row, "backend": ran_on(found), "calls": found} if found else row)
    return rows


def _sum(first: dict[str, int], second: dict[str, int]) -> dict[str, int]:
    return dict(Counter(first) + Counter(second))
