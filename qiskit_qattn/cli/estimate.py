"""``qattn estimate``: what a generation and a training step take on a backend, before anything is sent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from qiskit_qattn.cli.cost import cost_table, parts_table
from qiskit_qattn.cli.generate import load_model
from qiskit_qattn.errors import BackendError

if TYPE_CHECKING:
    from torch import Tensor

    from qiskit_qattn.backends.jobs.device import Cost
    from qiskit_qattn.backends.registry import Backend
    from qiskit_qattn.nn.gpt import GPT

_LARGEST = 2**27  # numbers in the displaced angles of a backward pass; a step beyond is not counted


def command(
    run: Annotated[Path, typer.Argument(help="A run folder, or a saved model's folder.", show_default=False)],
    backend: Annotated[str, typer.Option(help="Where the circuits would run: a backend string, or a chain of them.")],
    tokens: Annotated[int, typer.Option(help="How many tokens to add.", min=1)] = 100,
    prompt: Annotated[str, typer.Option(help="What the text starts with.", show_default="a line break")] = "\n",
    batch_size: Annotated[
        int | None, typer.Option(help="Sequences of a training step.", min=1, show_default="the run's, else 12")
    ] = None,
) -> None:
    """Say what generating text with the model of RUN takes on a backend, and what a step of training it takes.

    Of a chain, each backend is estimated as if it had to answer all calls. Nothing is sent. Prices are those the
    package was released with, and can be replaced by a file of your own named in the environment variable QATTN_PRICES.
    """
    from qiskit_qattn.backends.registry import Backend
    from qiskit_qattn.evaluation.generation_cost import generation_cost
    from qiskit_qattn.nn.fallback import open_backend

    model, _, ids = load_model(run, prompt)
    size = _batch_size(run) if batch_size is None else batch_size
    target = open_backend(backend)
    links = [(target.name, target)] if isinstance(target, Backend) else list(target.links)
    console = Console(highlight=False)
    for number, (name, link) in enumerate(links, start=1):
        if len(links) > 1:
            console.print(f"{'' if number == 1 else chr(10)}{number} of {len(links)}, if it answers all calls")
        if isinstance(link, BackendError):
            console.print(f"{name} cannot be opened: {link}", markup=False)
            continue
        console.print(cost_table(link, generation_cost(model, link, ids, tokens), ids.shape[1], tokens))
        if not link.differentiable and model.quantum_heads():
            title = f"A training step of {size:,} × {model.config.block_size:,} tokens, by the option gradient"
            console.print()
            console.print(parts_table(title, link, _steps(model, link, size), total=False))
    if not isinstance(target, Backend) and target.end == "classical":
        console.print("\nThen the classical twin of each head, which sends nothing.")


def _batch_size(run: Path) -> int:
    """Return the batch size of a run folder; of another folder the default."""
    from qiskit_qattn.training.config import TrainConfig
    from qiskit_qattn.training.run import saved_config

    return (saved_config(run) if (run / "config.toml").is_file() else TrainConfig()).batch_size


def _steps(model: GPT, link: Backend, batch_size: int) -> dict[str, Cost | str]:
    """Return the cost of a training step by gradient rule, or why it has none."""
    import torch

    from qiskit_qattn.backends.gradients import GRADIENTS, gradient_option
    from qiskit_qattn.backends.spec import BackendSpec
    from qiskit_qattn.evaluation.training_cost import step_cost

    config = model.config
    shape = (batch_size, config.block_size + 1)
    batch: Tensor = torch.randint(config.vocab_size, shape, generator=torch.Generator().manual_seed(0))  # (B, T + 1)
    angles = max(head.circuit.circuit.num_parameters for _, _, head in model.quantum_heads())
    steps: dict[str, Cost | str] = {}
    for name in GRADIENTS:
        if name == "parameter_shift" and 2 * angles**2 * batch.numel() > _LARGEST:
            steps[name] = f"two circuits for each of {angles:,} angles of each token; too many to count here"
            continue
        rule = gradient_option(BackendSpec("", options={"gradient": name}))
        try:
            steps[name] = step_cost(model, replace(link, gradient=rule), batch)
        except BackendError as error:
            steps[name] = str(error)
    return steps
