"""``qattn generate``: text from a trained model, as it is made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qiskit_qattn.errors import CheckpointError, DataError, RunFolderError


def command(
    run: Annotated[Path, typer.Argument(help="A run folder, or a saved model's folder.", show_default=False)],
    prompt: Annotated[str, typer.Option(help="What the text starts with.", show_default="a line break")] = "\n",
    tokens: Annotated[int, typer.Option(help="How many tokens to add.", min=1)] = 500,
    backend: Annotated[
        str | None, typer.Option(help="Where the circuits run, as a backend string.", show_default="statevector")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the sampling.", show_default="a new one")] = None,
    temperature: Annotated[float, typer.Option(help="Below 1: likelier tokens; above 1: bolder ones.")] = 0.8,
    top_k: Annotated[
        int | None, typer.Option(help="Sample among the k likeliest tokens.", min=1, show_default="all")
    ] = None,
) -> None:
    """Continue a prompt with the model of RUN, character by character."""
    from qiskit_qattn.nn.gpt import GPT
    from qiskit_qattn.training.tokenizer import CharTokenizer

    folder = find_model(run)
    tokenizer = CharTokenizer.load(folder / "tokenizer.json")
    if not prompt:
        raise DataError("The prompt is empty; give at least one character.")
    ids = tokenizer.encode(prompt)[None]  # (1, P)
    model = GPT.from_pretrained(folder)
    if tokenizer.vocab_size != (size := model.config.vocab_size):
        raise CheckpointError(
            f"The tokenizer of {str(folder)!r} has {tokenizer.vocab_size} characters, but its model {size}."
        )
    if backend is not None:
        model.to_backend(backend)
    stream = model.stream(ids, tokens, temperature=temperature, top_k=top_k, seed=seed)  # checks the options
    typer.echo(prompt, nl=False)
    for token in stream:  # (1, 1)
        typer.echo(tokenizer.decode(token[0]), nl=False)
    typer.echo()


def find_model(run: Path) -> Path:
    """Return the folder of a run's model: the finished one, else the newest checkpoint's, else ``run`` itself.

    Raises:
        RunFolderError: If there is no model.
    """
    from qiskit_qattn.training.checkpoint import list_checkpoints

    checkpoints = [path / "model" for path in reversed(list_checkpoints(run / "checkpoints"))]
    for folder in (run / "model", *checkpoints, run):
        if (folder / "tokenizer.json").is_file():
            return folder
    raise RunFolderError(f"No model in {str(run)!r}: neither a run folder with a checkpoint nor a saved model.")
