"""The audit of a run on a chain or a group of backends, in ``audit.json``: what each backend computed, and why."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, TypedDict

from qiskit_qattn.errors import CheckpointError
from qiskit_qattn.nn.placement import ran_on
from qiskit_qattn.training.files import write_text, writing
from qiskit_qattn.untrusted import read_json

AUDIT = "audit.json"


class FallRecord(TypedDict):
    """A fallback in an audit."""

    layer: int | None
    kind: str
    call: int
    during: str
    link: str
    to: str
    reason: str


class _Rows(TypedDict, total=False):
    rows: dict[str, int]
    devices: list[str]
    last_rows: list[int]


class HeadRecord(_Rows):
    """The calls of the heads of one kind in a layer, in an audit, and on a group of devices the rows."""

    layer: int | None
    kind: str
    calls: dict[str, int]
    gradients: dict[str, int]


class AuditRecord(TypedDict):
    """The calls and fallbacks of all heads on a chain or a group."""

    calls: dict[str, int]
    gradients: dict[str, int]
    heads: list[HeadRecord]
    falls: list[FallRecord]


class AuditOfSteps(AuditRecord):
    """The content of ``audit.json``: the audit of a training, and the steps that it covers."""

    from_step: int
    to_step: int


def read_audit(folder: Path, step: int) -> dict[str, Any]:
    """Return the audit of earlier processes up to ``step`` from ``folder``; empty if there is none.

    Raises:
        CheckpointError: If it is damaged.
    """
    try:
        found = read_json(folder / AUDIT, AuditOfSteps)
        return dict(found) if found["to_step"] == step else {}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{str(folder / AUDIT)!r} is damaged: {error}. Remove it to continue without it."
        ) from error


def write_audit(folder: Path, audit: dict[str, Any]) -> None:
    """Write an audit into ``folder``, unless it is empty.

    Raises:
        RunFolderError: If it cannot be written.
    """
    if audit:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / AUDIT, json.dumps(audit, indent=1) + "\n")


def join_audits(before: dict[str, Any], now: dict[str, Any], start: int, end: int) -> dict[str, Any]:
    """Return the audit of a run up to step ``end``: of earlier processes, and of this one from ``start`` on.

    ``from_step`` and ``to_step`` are the steps that it covers. The calls of this process are numbered after those of
    earlier ones.

    Raises:
        CheckpointError: If the audit of earlier processes is of a model with other heads.
    """
    if not now:
        return before
    if not before:
        return {"from_step": start, "to_step": end, **now}
    if [(head["layer"], head["kind"]) for head in before["heads"]] != [(h["layer"], h["kind"]) for h in now["heads"]]:
        raise CheckpointError(f"{AUDIT} is of a model with other heads. Remove it to continue without it.")
    heads = []
    shift = {}
    for old, new in zip(before["heads"], now["heads"], strict=True):
        shift[old["layer"], old["kind"]] = sum(old["calls"].values())
        sums = {key: _sum(old.get(key, {}), new.get(key, {})) for key in ("calls", "gradients", "rows")}
        heads.append({**old, **new, **{key: found for key, found in sums.items() if found or key != "rows"}})
    falls = [{**fall, "call": fall["call"] + shift[fall["layer"], fall["kind"]]} for fall in now["falls"]]
    return {
        "from_step": before["from_step"],
        "to_step": end,
        "calls": _sum(before["calls"], now["calls"]),
        "gradients": _sum(before["gradients"], now["gradients"]),
        "heads": heads,
        "falls": before["falls"] + falls,
    }


def label_heads(head_backends: list[dict[str, Any]], audit: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the heads with the backends that computed them in all processes."""
    calls = {(head["layer"], head["kind"]): head["calls"] for head in audit["heads"]}
    rows = []
    for row in head_backends:
        found = calls.get((row["layer"], row["kind"]))
        rows.append({**row, "backend": ran_on(found), "calls": found} if found else row)
    return rows


def _sum(first: dict[str, int], second: dict[str, int]) -> dict[str, int]:
    return dict(Counter(first) + Counter(second))
