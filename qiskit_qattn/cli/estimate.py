"""``qattn estimate``: the cost of circuits and of a training step on a backend, before anything is sent."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from qiskit_qattn.cli.devices import cost_table, parts_table, text_row
from qiskit_qattn.cli.generate import load_model
from qiskit_qattn.errors import BackendError, CircuitError, ConfigError, counted
from qiskit_qattn.untrusted import one_line

if TYPE_CHECKING:
    from torch import Tensor

    from qiskit_qattn.backends.jobs.device import Cost
    from qiskit_qattn.backends.registry import Backend
    from qiskit_qattn.backends.several import Group
    from qiskit_qattn.evaluation.device_cost import RunCost

_LARGEST = 2**27  # numbers in the shifted angles of a backward pass; a larger step is not counted
_TOKENS = 100


@dataclass(frozen=True)
class _Work:
    """What is estimated.

    Attributes:
        row: What runs, for the table.
        cost: Counts it on a backend.
        title: The size of a training step.
        step: Counts a training step on a backend, by its gradient rule; None where there is no circuit.
        angles: The largest number of angles of a circuit.
        rows: Rows of data of a step.
        is_network: Whether it is a network, not a model of text.
    """

    row: tuple[str, str]
    cost: Callable[[Backend | Group], RunCost]
    title: str
    step: Callable[[Backend], Cost] | None
    angles: int
    rows: int
    is_network: bool = False


def command(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="A run folder, a saved model's folder, or the folder of a network that TorchConnector.save_pretrained "
            "wrote.",
            show_default=False,
        ),
    ],
    backend: Annotated[str, typer.Option(help="Where the circuits would run: a backend string, or a chain of them.")],
    tokens: Annotated[
        int | None, typer.Option(help="Number of tokens to generate.", min=1, max=10**6, show_default=str(_TOKENS))
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="The beginning of the text.", show_default="a line break")] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Sequences per training step; for a network, samples per forward pass and per step.",
            min=1,
            show_default="the run's, else 12",
        ),
    ] = None,
) -> None:
    """Estimate the cost of generating text with the model of RUN on a backend, and that of a training step.

    For a network, the estimate is of a forward pass and of a training step. Each link of a chain is estimated as if it
    answered all calls; each device of a group gets a share of the text by its present queue and speed. Nothing is sent.
    Prices are those of this release; the environment variable QATTN_PRICES names a file that replaces them.
    """
    from qiskit_qattn.backends.place import Place
    from qiskit_qattn.backends.several import Group
    from qiskit_qattn.nn.networks import is_network

    if is_network(run):
        if tokens is not None or prompt is not None:
            raise ConfigError(f"--tokens and --prompt are for models of text, but {str(run)!r} is a network.")
        work = _network_work(run, batch_size)
    else:
        work = _model_work(run, "\n" if prompt is None else prompt, tokens or _TOKENS, batch_size)
    place = Place.open(backend)
    links = place.links
    if work.is_network and place.end == "classical":
        raise ConfigError("A network has no classical twin: end the chain with statevector, the exact engine, instead.")
    console = Console(highlight=False)
    for number, (name, link) in enumerate(links, start=1):
        if len(links) > 1:
            console.print(f"{'' if number == 1 else chr(10)}{number} of {len(links)}, if it answers all calls")
        if isinstance(link, BackendError):
            console.print(one_line(f"{name} cannot be opened: {link}"), markup=False)
            continue
        cost = work.cost(link)
        if isinstance(link, Group):
            for text in _group_lines(link):
                console.print(text, markup=False)
            for member in link.backends:
                console.print()
                console.print(cost_table(member, cost.devices[member.name], work.row))
            continue
        alone = replace(link, tiling=None) if cost.tiles > 1 else None
        console.print(cost_table(link, cost, work.row, None if alone is None else work.cost(alone).total))
        if not link.differentiable and work.step is not None:
            title = f"A training step of {work.title}, by the option gradient"
            console.print()
            steps = _steps(work, work.step, link)
            if alone is not None:
                steps |= {f"{name}, one at a time": each for name, each in _steps(work, work.step, alone).items()}
            console.print(parts_table(title, link, steps, total=False))
    if place.end == "classical":
        console.print("\nThen the classical twin of each head, which sends nothing.")


def _group_lines(group: Group) -> list[str]:
    """Return what precedes the tables of a group's devices."""
    closed = [
        one_line(f"{name} cannot be opened; the other devices get its share: {each}")
        for name, each in group.members
        if isinstance(each, BackendError)
    ]
    return [f"{len(group.backends)} devices at once, each with its share", *closed]


def _model_work(run: Path, prompt: str, tokens: int, batch_size: int | None) -> _Work:
    """Return the generation and the training step of a model of text."""
    import torch

    from qiskit_qattn.evaluation.device_cost import generation_cost, step_cost
    from qiskit_qattn.nn.config import check_memory

    model, _, ids = load_model(run, prompt)
    size, config = _batch_size(run) if batch_size is None else batch_size, model.config
    shape = (size, config.block_size + 1)
    check_memory(f"A batch of {size:,} × {config.block_size:,} tokens", 8 * math.prod(shape))
    batch: Tensor = torch.randint(config.vocab_size, shape, generator=torch.Generator().manual_seed(0))  # (B, T + 1)
    heads = [head for _, _, head in model.quantum_heads()]
    return _Work(
        row=text_row(ids.shape[1], tokens),
        cost=lambda link: generation_cost(model, link, ids, tokens),
        title=f"{size:,} × {config.block_size:,} tokens",
        step=(lambda link: step_cost(model, link, batch)) if heads else None,
        angles=max((head.circuit.circuit.num_parameters for head in heads), default=0),
        rows=batch.numel(),
    )


def _network_work(folder: Path, samples: int | None) -> _Work:
    """Return the forward pass and the training step of a network."""
    from qiskit_qattn.backends.unroll import unroll
    from qiskit_qattn.evaluation.device_cost import forward_cost, network_step_cost
    from qiskit_qattn.nn.config import check_memory
    from qiskit_qattn.nn.connector import TorchConnector
    from qiskit_qattn.nn.networks import load_network
    from qiskit_qattn.training.config import TrainConfig

    network = load_network(folder)
    layer, size = TorchConnector(network, backend="statevector?shots=1"), samples or TrainConfig.batch_size
    check_memory(f"A batch of {counted(size, 'sample')}", 4 * size * max(1, layer.neural_network.num_inputs))
    qubits, count = network.circuit.num_qubits, f"{size:,} {'sample' if size == 1 else 'samples'}"
    return _Work(
        row=("network", f"a forward pass of {count} on {qubits:,} {'qubit' if qubits == 1 else 'qubits'}"),
        cost=lambda link: forward_cost(layer, link, size),
        title=count,
        step=lambda link: network_step_cost(layer, link, size),
        angles=len(unroll(network.circuit)[1]),
        rows=size,
        is_network=True,
    )


def _batch_size(run: Path) -> int:
    """Return the batch size of a run folder; the default for another folder."""
    from qiskit_qattn.training.config import TrainConfig
    from qiskit_qattn.training.run import saved_config

    return (saved_config(run) if (run / "config.toml").is_file() else TrainConfig).batch_size


def _steps(work: _Work, step: Callable[[Backend], Cost], link: Backend) -> dict[str, Cost | str]:
    """Return the cost of a training step by gradient rule, or why it has none."""
    from qiskit_qattn.backends.gradients import GRADIENTS, gradient_option
    from qiskit_qattn.backends.spec import BackendSpec

    steps: dict[str, Cost | str] = {}
    for name in GRADIENTS:
        if name == "parameter_shift" and 2 * work.angles**2 * work.rows > _LARGEST:
            each = "sample" if work.is_network else "token"
            steps[name] = f"two circuits for each of {work.angles:,} angles of each {each}; too many to count here"
            continue
        rule = gradient_option(BackendSpec("", options={"gradient": name}))
        try:
            steps[name] = step(replace(link, gradient=rule))
        except (BackendError, CircuitError) as error:  # the exact engine may be too narrow for gradient=simulated
            steps[name] = str(error)
    return steps
