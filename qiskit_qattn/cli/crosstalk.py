"""``qattn crosstalk``: whether circuits that run side by side on a device disturb each other."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from qiskit_qattn.cli.devices import Quote, open_devices, parts_table
from qiskit_qattn.cli.progress import device_messages, make_progress
from qiskit_qattn.errors import ConfigError, counted

if TYPE_CHECKING:
    from qiskit_qattn.backends.registry import Backend
    from qiskit_qattn.evaluation.crosstalk import Crosstalk


def command(
    backend: Annotated[
        str,
        typer.Argument(
            metavar="BACKEND", help="A backend string with tiles, for example 'ibm:ibm_fez?tiles=auto&budget=60s'."
        ),
    ],
    circuit: Annotated[str, typer.Option(help="A circuit of the catalog.")] = "qisa",
    num_qubits: Annotated[int, typer.Option("--num-qubits", "-n", help="Number of qubits.")] = 4,
    rows: Annotated[int, typer.Option(help="Random parameter sets to compare on each tile.", min=1)] = 4,
    seed: Annotated[int, typer.Option(help="Seed of the parameters.", min=0)] = 0,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Agree to any cost of a paid device.")] = False,
) -> None:
    """Compare a circuit's values on each tile of a device, alone and while all tiles run.

    On a paid device, the cost is shown first, and nothing is sent without a budget in the backend string or --yes.
    """
    from qiskit_qattn.backends.counting import CountingEstimator
    from qiskit_qattn.evaluation.crosstalk import crosstalk
    from qiskit_qattn.library.catalog import attention_circuit

    head = attention_circuit(circuit, num_qubits=num_qubits)

    def quote(link: Backend) -> Quote:
        counting = CountingEstimator(getattr(link.estimator, "device", None))
        crosstalk(head, replace(link, estimator=counting), rows=rows, seed=seed)
        cost = {"alone and side by side": counting.total}
        return parts_table(
            f"{link.name}: {circuit} on {counted(num_qubits, 'qubit')}", link, cost, total=False
        ), counting.first

    with open_devices(backend, yes=yes, cost=quote) as (place, _):
        if place.single is None:
            raise ConfigError(f"This check takes one backend string, not a chain or a group; got {backend!r}.")
        with make_progress(Console(stderr=True)) as progress, device_messages(progress.device_message):
            found = crosstalk(head, place.single, rows=rows, seed=seed, progress=progress)
    console = Console(highlight=False)
    console.print(_table(found))
    disturbed = len(found.disturbed)
    if not disturbed:
        console.print("Shot noise explains the differences on all tiles.")
        return
    console.print(
        f"On {disturbed} of {counted(len(found.tiles), 'tile')} (*) shot noise does not explain the difference. Leave"
        f" qubits idle between tiles (tile_spacing=1), or give fewer tiles."
    )


def _table(found: Crosstalk) -> Table:
    """Return a row per tile, those first whose difference is the least likely."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("qubits", style="bold")
    for name in ("largest difference", "standard error", "p by shot noise"):
        table.add_column(name, justify="right")
    for tile in sorted(found.tiles, key=lambda tile: tile.p):
        mark = " *" if tile in found.disturbed else ""
        numbers = (f"{tile.difference:.4f}", f"{tile.error:.4f}", f"{tile.p:.2g}{mark}")
        table.add_row(Text(" ".join(map(str, tile.qubits))), *map(Text, numbers))
    return table
