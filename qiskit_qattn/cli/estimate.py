"""``qattn estimate``: what a generation takes on a backend, before anything is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from qiskit_qattn.cli.cost import cost_table
from qiskit_qattn.cli.generate import load_model


def command(
    run: Annotated[Path, typer.Argument(help="A run folder, or a saved model's folder.", show_default=False)],
    backend: Annotated[str, typer.Option(help="Where the circuits would run, as a backend string.")],
    tokens: Annotated[int, typer.Option(help="How many tokens to add.", min=1)] = 100,
    prompt: Annotated[str, typer.Option(help="What the text starts with.", show_default="a line break")] = "\n",
) -> None:
    """Say what generating text with the model of RUN takes on a backend: jobs, circuits, shots, time and price.

    Nothing is sent. Prices are those the package was released with, and can be replaced by a file of your own named in
    the environment variable QATTN_PRICES.
    """
    from qiskit_qattn.backends.registry import get_backend
    from qiskit_qattn.evaluation.generation_cost import generation_cost

    model, _, ids = load_model(run, prompt)
    found = get_backend(backend)
    cost = generation_cost(model, found, ids, tokens)
    Console(highlight=False).print(cost_table(found, cost, ids.shape[1], tokens))
