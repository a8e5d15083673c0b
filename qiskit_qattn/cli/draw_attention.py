"""``qattn draw-attention``: the attention maps of a trained model on a text, as a picture and as figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from qiskit_qattn.cli.generate import load_model
from qiskit_qattn.cli.options import TRAINING, require
from qiskit_qattn.errors import ConfigError

if TYPE_CHECKING:
    from qiskit_qattn.evaluation.attention_maps import AttentionMaps

Format = Literal["svg", "png", "pdf"]


def command(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run folder, or a saved model's folder.", show_default=False)
    ],
    text: Annotated[
        str, typer.Option(help="The text that the model reads, at most as long as its context.", show_default=False)
    ],
    layer: Annotated[
        int | None, typer.Option(help="Only this layer; the first is 0.", min=0, show_default="all")
    ] = None,
    head: Annotated[int | None, typer.Option(help="Only this head; the first is 0.", min=0, show_default="all")] = None,
    format: Annotated[  # noqa: A002 - the flag's name
        Format | None, typer.Option("--format", "-f", help="Output format.", show_default="by the suffix, else svg")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The picture to write.", show_default="RUN-attention.FORMAT")
    ] = None,
) -> None:
    """Draw how much each position of a text attends to each earlier one, quantum heads beside classical ones.

    A CSV file beside the picture lists the figures of each head; a JSON file has the attention weights too. RUN is not
    changed.
    """
    require(TRAINING, "train")
    from qiskit_qattn.evaluation.attention_figure import COLUMNS, attention_figure, attention_record
    from qiskit_qattn.evaluation.attention_maps import attention_maps
    from qiskit_qattn.evaluation.drawing import drawn
    from qiskit_qattn.evaluation.rendering import csv_text, write_json
    from qiskit_qattn.training.files import write_bytes, write_text

    chosen = format or _format_of(out)
    path = out or run.parent / f"{run.resolve().name}-attention.{chosen}"
    model, tokenizer, ids = load_model(run, text)
    maps = attention_maps(model, ids).select(layer, head)
    tokens = [tokenizer.decode(token[None]) for token in ids[0]]
    record = attention_record(maps, tokens)
    write_bytes(path, drawn(attention_figure(maps, tokens), chosen))
    write_text(path.with_suffix(".csv"), csv_text(COLUMNS, record["heads"]))
    write_json(path.with_suffix(".json"), {"text": text, **record})
    console = Console(highlight=False)
    console.print(_table(maps))
    for each in record["quantum_from_classical"]:
        if each["divergence"] is not None:
            largest = f"{each['divergence']:.4f} of at most 0.6931"
            typer.echo(f"layer {each['layer']}: divergence of quantum from classical heads {largest}")
    typer.echo(f"picture: {path}")


def _table(maps: AttentionMaps) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("layer", "head"):
        table.add_column(name, justify="right")
    table.add_column("kind", style="bold")
    table.add_column("ran on")
    for name in ("entropy, nats", "of uniform", "distance"):
        table.add_column(name, justify="right")
    for row in maps.figures():
        numbers = [row["entropy"], row["relative_entropy"], row["distance"]]
        forms = ("{:.3f}", "{:.1%}", "{:.2f}")
        shown = ["–" if n is None else form.format(n) for n, form in zip(numbers, forms, strict=True)]
        table.add_row(*(Text(str(row[key])) for key in ("layer", "head", "kind", "backend")), *map(Text, shown))
    return table


def _format_of(out: Path | None) -> Format:
    """Return the format of a file's suffix; svg without a file."""
    if out is None:
        return "svg"
    for known in get_args(Format):
        if out.suffix.lower() == f".{known}":
            return known
    raise ConfigError(f"{str(out)!r} has no suffix of a known format; give --format {'|'.join(get_args(Format))}.")
