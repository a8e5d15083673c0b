"""``qattn draw``: a head's circuit as a picture or as code."""

from __future__ import annotations

import shutil
import sys
import warnings
from pathlib import Path
from typing import Annotated, Literal, get_args

import typer

from qiskit_qattn.errors import ConfigError

Format = Literal["txt", "svg", "png", "pdf", "latex", "qasm", "qpy"]
SUFFIXES = {"tex": "latex"}
BINARY = ("png", "pdf", "qpy")


def command(
    circuit: Annotated[
        str | None,
        typer.Argument(metavar="CIRCUIT", help="A circuit of the catalog, for example qisa.", show_default=False),
    ] = None,
    num_qubits: Annotated[int, typer.Option("--num-qubits", "-n", help="Number of qubits.")] = 4,
    reps: Annotated[int | None, typer.Option(help="Ansatz layers.", show_default="the circuit's own")] = None,
    format: Annotated[  # noqa: A002 - the flag's name
        Format | None,
        typer.Option("--format", "-f", help="Output format.", show_default="by the suffix, else txt"),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write instead of stdout.")] = None,
    gallery: Annotated[
        Path | None, typer.Option(help="Write pictures and code of all circuits into this folder.")
    ] = None,
) -> None:
    """Draw a circuit of the catalog, or the whole gallery."""
    from qiskit_qattn.library.catalog import attention_circuit, list_circuits
    from qiskit_qattn.library.gallery import render, write_gallery
    from qiskit_qattn.nn.kinds import HEAD_KINDS
    from qiskit_qattn.training.files import write_bytes, writing

    if gallery is not None:
        with writing(gallery):
            write_gallery(gallery, {kind.name: kind.circuits for kind in HEAD_KINDS.values()})
        typer.echo(str(gallery))
        return
    if circuit is None:
        raise ConfigError(f"Nothing to draw: give a circuit ({', '.join(list_circuits())}) or --gallery FOLDER.")
    chosen = format or _format_of(output)
    if output is None and chosen in BINARY:
        raise ConfigError(f"{chosen} is binary; give the file to write with -o FILE.")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The encoding .* has a limited charset")  # main replaces what it lacks
        made = attention_circuit(circuit, num_qubits=num_qubits, reps=reps)
        if output is None and chosen == "txt" and sys.stdout.isatty():
            drawn: str | bytes = str(made.draw("text", fold=shutil.get_terminal_size().columns))
        else:
            drawn = render(made, chosen)
    if output is None:
        typer.echo(drawn)
    else:
        write_bytes(output, drawn.encode("utf-8") if isinstance(drawn, str) else drawn)


def _format_of(output: Path | None) -> str:
    """Return the format of a file's suffix; txt without a file."""
    if output is None:
        return "txt"
    suffix = output.suffix.removeprefix(".").lower()
    chosen = SUFFIXES.get(suffix, suffix)
    if chosen not in get_args(Format):
        raise ConfigError(
            f"{str(output)!r} has no suffix of a known format; give --format {'|'.join(get_args(Format))}."
        )
    return chosen
