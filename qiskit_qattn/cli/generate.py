"""``qattn generate``: text from a trained model, printed as it is generated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from qiskit_qattn.cli.devices import Quote, cost_table, open_devices, text_row
from qiskit_qattn.cli.messages import counting, shown_text, watch_jobs
from qiskit_qattn.errors import CheckpointError, DataError

if TYPE_CHECKING:
    from torch import Tensor

    from qiskit_qattn.backends.registry import Backend
    from qiskit_qattn.nn.gpt import GPT
    from qiskit_qattn.training.tokenizer import CharTokenizer


def command(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run folder, or a saved model's folder.", show_default=False)
    ],
    prompt: Annotated[str, typer.Option(help="The beginning of the text.", show_default="a line break")] = "\n",
    tokens: Annotated[int, typer.Option(help="Number of tokens to generate.", min=1, max=10**6)] = 500,
    backend: Annotated[
        str | None,
        typer.Option(
            help="Where the circuits run: a backend string, or a chain of them, 'A -> B'.", show_default="statevector"
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the sampling.", show_default="a new one")] = None,
    temperature: Annotated[float, typer.Option(help="Sampling temperature; 0: the most likely token.")] = 0.8,
    top_k: Annotated[
        int | None, typer.Option(help="Sample from the k most likely tokens.", min=1, show_default="all")
    ] = None,
    quantize: Annotated[
        Literal["int8"] | None,
        typer.Option(help="Round the classical weights to 8 bits; circuits stay exact.", show_default="no rounding"),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Agree to any cost of a paid device.")] = False,
) -> None:
    """Continue a prompt with the model of RUN, character by character.

    On a paid device, the cost is shown first, and nothing is sent without a budget in the backend string, as in
    ?budget=5usd, or --yes.
    """
    model, tokenizer, ids = load_model(run, prompt)
    with _moved(model, backend, ids, tokens, yes) as has_messages:
        if quantize is not None:
            from qiskit_qattn.nn import quantize as forms

            model = forms.quantize(model, quantize)
        options = {"temperature": temperature, "top_k": top_k, "seed": seed}
        stream = model.stream(ids, tokens, **options)  # checks the options
        try:
            with watch_jobs() if has_messages else nullcontext(_write) as write:
                write(prompt)
                try:
                    token_done = counting(tokens)
                    for token in stream:  # (1, 1)
                        write(tokenizer.decode(token[0]))
                        token_done()
                finally:
                    write("\n")
        finally:
            calls = model.audit().get("calls", {})
            if calls:
                typer.echo("Calls: " + "; ".join(f"{count} on {name}" for name, count in calls.items()), err=True)


def load_model(run: Path, prompt: str) -> tuple[GPT, CharTokenizer, Tensor]:
    """Return a run's model, its tokenizer, and a prompt as tokens, shape ``(1, P)``.

    Raises:
        RunFolderError: If there is no model.
        CheckpointError: If the model cannot be loaded, or does not match the tokenizer.
        DataError: For an empty prompt, or one with characters outside the tokenizer's vocabulary.
    """
    model, tokenizer = load_run(run)
    if not prompt:
        raise DataError("The prompt is empty; give at least one character.")
    return model, tokenizer, tokenizer.encode(prompt)[None]


def load_run(run: Path) -> tuple[GPT, CharTokenizer]:
    """Return a run's model and its tokenizer.

    Raises:
        RunFolderError: If there is no model.
        CheckpointError: If the model cannot be loaded, or does not match the tokenizer.
    """
    from qiskit_qattn.nn.gpt import GPT
    from qiskit_qattn.training.checkpoint import find_model
    from qiskit_qattn.training.tokenizer import CharTokenizer

    folder = find_model(run)
    tokenizer = CharTokenizer.load(folder / "tokenizer.json")
    model = GPT.from_pretrained(folder)
    if tokenizer.vocab_size != (size := model.config.vocab_size):
        raise CheckpointError(
            f"The tokenizer of {str(folder)!r} has {tokenizer.vocab_size} characters, but its model {size}."
        )
    return model, tokenizer


@contextmanager
def _moved(model: GPT, backend: str | None, ids: Tensor, tokens: int, yes: bool) -> Iterator[bool]:
    """Run a model on a backend, or a chain, while the block lasts; yield whether that may take long or fall."""
    if backend is None:
        yield False
        return
    from qiskit_qattn.evaluation.device_cost import generation_cost

    def cost(link: Backend) -> Quote:
        counted = generation_cost(model, link, ids, tokens)
        return cost_table(link, counted, text_row(ids.shape[1], tokens)), counted.first

    with open_devices(backend, yes=yes, cost=cost) as (target, _):
        model.to_backend(target)
        yield True


def _write(text: str) -> None:
    typer.echo(shown_text(text), nl=False)
