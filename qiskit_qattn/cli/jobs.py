"""``qattn jobs``: the ledger of jobs that were sent to devices."""

from __future__ import annotations

import time
from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from qiskit_qattn.cli.devices import seconds_text, usd_text, used_text
from qiskit_qattn.cli.help import HelpCommand, HelpGroup, say
from qiskit_qattn.errors import BackendError, counted, unknown_name
from qiskit_qattn.untrusted import one_line, printable

if TYPE_CHECKING:
    from qiskit_qattn.backends.jobs.device import Device, Pub
    from qiskit_qattn.backends.jobs.ledger import Ledger
    from qiskit_qattn.backends.jobs.rows import Row

app = typer.Typer(cls=HelpGroup, rich_markup_mode=None)
_Which = Annotated[
    str,
    typer.Argument(
        metavar="ID", help="The number, id or key of a job, or the first characters of one.", show_default=False
    ),
]
_Backend = Annotated[
    str | None,
    typer.Option(help="Backend string of the device.", show_default="the job's device, without options"),
]


@app.callback(invoke_without_command=True)
def jobs(ctx: typer.Context) -> None:
    """List, fetch, cancel or delete the jobs that were sent to devices. A ledger stores their results."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


@app.command("list", cls=HelpCommand)
def list_jobs(
    state: Annotated[
        str | None, typer.Option(help="sending, sent, done, failed or cancelled.", show_default="all")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="A device, or the first characters of its name, such as ibm:.", show_default="all"),
    ] = None,
) -> None:
    """List the jobs, newest first. Time and price are estimates (~) until the device reports its own."""
    from qiskit_qattn.backends.jobs.ledger import Ledger
    from qiskit_qattn.backends.jobs.rows import STATES

    if state is not None and state not in STATES:
        raise unknown_name("state of a job", state, STATES)
    ledger = Ledger()
    rows = ledger.rows(states=STATES if state is None else (state,), device=device)
    if not rows:
        say(_none(ledger, state, device))
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("id", "shots", "circuits"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("state", "changed", "time, price"):
        table.add_column(name, no_wrap=True)
    table.add_column("device", overflow="fold", min_width=12)
    for row in rows:
        cells = (row.id, f"{row.shots:,}", f"{row.estimate.circuits:,}", row.state, _date(row.updated), _cost(row))
        table.add_row(*(Text(printable(str(cell))) for cell in cells), Text(printable(row.device)))
    console = Console(highlight=False)
    console.print(table)
    counts = Counter(row.state for row in rows)
    console.print(Text(", ".join(f"{counts[name]} {name}" for name in STATES if counts[name]), style="dim"))
    if unsettled := sum(row.is_unsettled for row in rows):
        told = f"{unsettled} ended without a known cost; qattn jobs resume ID asks the device for it."
        console.print(Text(told, style="dim"))


@app.command("show", cls=HelpCommand)
def show(which: _Which) -> None:
    """Show the ledger's record of a job."""
    from qiskit_qattn.backends.jobs.ledger import Ledger

    ledger = Ledger()
    row = ledger.find(which)
    pubs = ledger.request(row.id).pubs
    lines = {
        "id": str(row.id),
        "state": row.state,
        "device": row.device,
        "job id": row.job_id or "not known yet",
        "tag": row.tag,
        "key": row.key,
        "created": _date(row.created),
        "changed": _date(row.updated),
        "settings": row.settings,
        "request": "; ".join(map(_asked, pubs)),
        "shots": f"{row.shots:,} per circuit",
        "estimate": used_text(row.estimate),
        "used": "not known" if row.used is None else used_text(row.used),
    }
    if row.error:
        lines["error" if row.state in ("failed", "cancelled") else "note"] = row.error
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for name, value in lines.items():
        table.add_row(Text(name), Text(printable(value)))
    Console(highlight=False).print(table)


@app.command("resume", cls=HelpCommand)
def resume(which: _Which, backend: _Backend = None) -> None:
    """Fetch the result of a job on its way if it has finished, and its cost if the ledger lacks it; nothing is sent."""
    from qiskit_qattn.backends.jobs.ledger import Ledger
    from qiskit_qattn.backends.jobs.rows import IN_FLIGHT

    ledger = Ledger()
    row = ledger.find(which)
    if row.state in IN_FLIGHT or row.is_unsettled:
        device = _device(row, backend)
        from qiskit_qattn.backends.jobs import client

        row = client.resume(ledger, row, device)
    typer.echo(_line(row))


@app.command("cancel", cls=HelpCommand)
def cancel(which: _Which, backend: _Backend = None) -> None:
    """Cancel a job on its way."""
    from qiskit_qattn.backends.jobs.ledger import Ledger
    from qiskit_qattn.backends.jobs.rows import IN_FLIGHT

    ledger = Ledger()
    row = ledger.find(which)
    if row.state not in IN_FLIGHT:
        raise BackendError(f"Job {row.id} on {row.device} is {row.state}; only a job on its way can be cancelled.")
    device = _device(row, backend)
    from qiskit_qattn.backends.jobs import client

    row = client.cancel(ledger, row, device)
    asked = f" The device was asked to stop it; check with: qattn jobs resume {row.id}." if row.state == "sent" else ""
    typer.echo(_line(row) + asked)


@app.command("clear", cls=HelpCommand)
def clear(
    before: Annotated[
        float | None,
        typer.Option(help="Delete only jobs that have not changed for this many days.", min=0, show_default="all"),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="A device, or the first characters of its name.", show_default="all")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Delete jobs on their way too, which may still cost money.")
    ] = False,
) -> None:
    """Delete jobs and their results from the ledger; the same requests are then sent again."""
    from qiskit_qattn.backends.jobs.ledger import Ledger
    from qiskit_qattn.backends.jobs.rows import IN_FLIGHT

    limit = None if before is None else time.time() - before * 86400
    ledger = Ledger()
    deleted = ledger.clear(device=device, before=limit, force=force)
    left = ledger.rows(states=IN_FLIGHT, device=device, before=limit)
    stay = f" {len(left)} on their way stay; --force deletes them." if left else ""
    typer.echo(f"Deleted {deleted} of the jobs in {ledger.path}.{stay}")


def _none(ledger: Ledger, state: str | None, device: str | None) -> str:
    """Say that no job is listed, and why."""
    if not (all_of_them := len(ledger.rows())):
        return f"No jobs have been sent to devices yet; the ledger {ledger.path} is empty."
    asked = [f"state {state}"] if state is not None else []
    asked += [f"a device whose name begins with {device!r}"] if device is not None else []
    return f"None of the {counted(all_of_them, 'job')} in {ledger.path} has {' and '.join(asked)}."


def _device(row: Row, backend: str | None) -> Device:
    """Return the device of a row, by the backend string, or by the device's own name.

    Raises:
        BackendError: If there is no such device; the message says how to name it.
    """
    from qiskit_qattn.backends.registry import get_backend

    if backend is None and any(letter in row.device for letter in " ?"):
        raise BackendError(f"{row.device!r} is not a backend string; give the one the job was sent with as --backend.")
    found = getattr(get_backend(row.device if backend is None else backend).estimator, "device", None)
    if found is None:
        raise BackendError(f"{backend!r} runs in this process and has no jobs; job {row.id} is on {row.device}.")
    return found


def _line(row: Row) -> str:
    known = f", {used_text(row.used)}" if row.used is not None and row.used.seconds else ""
    error = f": {row.error}" if row.error else ""
    return one_line(f"Job {row.id} ({row.job_id or row.tag}) on {row.device}: {row.state}{known}{error}")


def _asked(pub: Pub) -> str:
    """Return in a phrase what a PUB asks for."""
    observables = getattr(pub, "observables", None)  # a Sampler's has none
    what = (
        f"{counted(pub.circuit.num_clbits, 'classical bit')}"
        if observables is None
        else counted(observables.size, "observable")
    )
    return f"{counted(pub.circuit.num_qubits, 'qubit')}, {counted(pub.parameter_values.size, 'parameter set')}, {what}"


def _cost(row: Row) -> str:
    cost = row.cost
    price = "" if cost.usd is None else f", {usd_text(cost.usd)}"
    return ("~" if row.used is None else "") + seconds_text(cost.seconds) + price


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")
