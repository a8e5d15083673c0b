"""What a call, a training or any other run of a module's circuits sends to a backend, counted before that is sent."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor, nn

from qiskit_qattn.backends.counting import CountingEstimator
from qiskit_qattn.backends.ibm.isa import two_qubit_depth
from qiskit_qattn.backends.jobs.device import Cost
from qiskit_qattn.backends.place import Place
from qiskit_qattn.backends.registry import Backend
from qiskit_qattn.backends.several import Group
from qiskit_qattn.backends.tiling import TILES
from qiskit_qattn.errors import BackendError
from qiskit_qattn.nn.connector import TorchConnector
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.nn.placement import to_backend
from qiskit_qattn.training.config import TrainConfig
from qiskit_qattn.training.data import Corpus, random_batch
from qiskit_qattn.training.run import default_prompt
from qiskit_qattn.training.task import Task, drawn
from qiskit_qattn.training.validation import final_batches


@dataclass(frozen=True)
class RunCost:
    """The cost of a run of circuits, such as a generation or a forward pass.

    Attributes:
        total: All jobs.
        first: The first job, or None if there is none.
        depth: Layers of gates on two or more qubits of the deepest circuit, as it is sent.
        tiles: The most circuits that run side by side.
        devices: What each device's share of a group costs, by the device's name; empty elsewhere.
    """

    total: Cost
    first: Cost | None
    depth: int
    tiles: int = 1
    devices: Mapping[str, RunCost] = field(default_factory=dict)


def estimate(
    model: nn.Module,
    inputs: Tensor | tuple[Any, ...] | Mapping[str, Any],
    backend: Backend | Place | str,
    *,
    loss: Callable[[Any], Tensor] | None = None,
) -> RunCost:
    """Return what the jobs of one call of a model would cost on a backend, or those of a training step; none is sent.

    The model is run once with arbitrary expectations in place of measured ones, in the mode it is in, and is then as it
    was, with its buffers, gradients and torch's random state. Results that are already in the ledger are counted too.
    On an exact engine, which sends no jobs, circuits of exact values are counted.

    Args:
        model: Any torch module that holds quantum heads, connectors or replaced attention, at any depth.
        inputs: What the model is called with: a tensor, a tuple of positional or a mapping of keyword arguments.
        backend: Where it would run: a backend string, or the backend or place that one opened. Of a chain, its first
            link that can be opened, as if that answered all calls; devices of a group have their shares.
        loss: Computes a scalar from the model's output. Given, the forward and the backward pass of a training step are
            counted, by the backend's gradient rule; not given, a call without gradients.

    Returns:
        ``total``, with jobs, circuits, shots, seconds and US dollars, the same of the ``first`` job, and the ``depth``;
        for a group also the same for each of its ``devices``.

    Raises:
        ConfigError: For a model without a circuit, or a string that names no backend.
        BackendError: For circuits that do not fit on the device, or a job that the device does not accept.
    """
    place = Place.of(backend)
    if isinstance(inputs, Mapping):
        positional, named = (), {name: _separate(value) for name, value in inputs.items()}
    else:
        positional, named = tuple(map(_separate, inputs if isinstance(inputs, tuple) else (inputs,))), {}
    open_links = [link for _, link in place.links if not isinstance(link, BackendError)]
    if not open_links:
        raise next(link for _, link in place.links if isinstance(link, BackendError))

    def run() -> None:
        with torch.set_grad_enabled(loss is not None):
            output = model(*positional, **named)
            if loss is not None:
                loss(output).backward()

    return run_cost(model, open_links[0], run)


def run_cost(module: nn.Module, backend: Backend | Group, run: Callable[[], Any]) -> RunCost:
    """Count what a run of a module's circuits sends to a backend, or to the devices of a group; nothing is sent.

    Exact engines have no PUBs; the estimator's program counts for them, in circuits of exact values. Of a group, the
    backends that can be opened are counted.

    Args:
        module: Any module that holds circuits; it stays where it is and as it is.
        backend: Where it would run.
        run: Calls the module.

    Raises:
        BackendError: For circuits that do not fit on the device, or a job that the device does not accept.
    """
    backends = backend.backends if isinstance(backend, Group) else [backend]
    counted = [
        replace(
            each,
            estimator=CountingEstimator(getattr(each.estimator, "device", None), mitigation=each.mitigation),
            program=None,
            states=None,
            differentiable=False,
        )
        for each in backends
    ]
    members = tuple((each.name, each) for each in counted)
    place = Place(members if len(members) == 1 else ((backend.name, Group(members)),))
    with to_backend(module, place), _unchanged(module):
        run()
    costs = {each.name: _counted(each.estimator) for each in counted}
    if not isinstance(backend, Group):
        return costs[backend.name]
    found = list(costs.values())
    first = next((each.first for each in found if each.first is not None), None)
    total = reduce(add, (each.total for each in found))
    return RunCost(total, first, max(each.depth for each in found), max(each.tiles for each in found), devices=costs)


def _counted(counting: Any) -> RunCost:
    depth = max(map(two_qubit_depth, counting.circuits.values()), default=0)
    tiles = max((len((each.metadata or {}).get(TILES, [1])) for each in counting.circuits.values()), default=1)
    return RunCost(counting.total, counting.first, depth, tiles)


def _separate(value: Any) -> Any:
    """Return a tensor without the graph that it came from and without its gradient; other values as they are."""
    if not isinstance(value, Tensor):
        return value
    return value.detach().requires_grad_(value.requires_grad)


@contextmanager
def _unchanged(module: nn.Module) -> Iterator[None]:
    """Restore a module's buffers and gradients, and torch's random state, at the end of the block."""
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    gradients = [(parameter, parameter.grad) for parameter in module.parameters()]
    devices = {tensor.device.index for tensor, _ in (*buffers, *gradients) if tensor.device.type == "cuda"}
    for parameter, _ in gradients:
        parameter.grad = None
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        for parameter, gradient in gradients:
            parameter.grad = gradient
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


def generation_cost(model: GPT, backend: Backend | Group, prompt: Tensor, tokens: int) -> RunCost:
    """Count what ``model.stream(prompt, tokens)`` sends to a backend; nothing is sent.

    The model generates as it would on the backend, with arbitrary expectations in place of measured ones: every layer
    with quantum heads sends a job for the prompt, one for each token after it, and one for half a context each time the
    context is full. Results that are already in the ledger are counted too.

    Args:
        model: The model; its heads stay where they are.
        backend: Where it would run.
        prompt: Tokens, shape ``(B, T)``.
        tokens: Number of tokens to generate.

    Raises:
        BackendError: As :func:`run_cost` does.
    """

    def generate() -> None:
        for _ in model.stream(prompt, tokens, seed=0):
            pass

    return run_cost(model, backend, generate)


def step_cost(model: GPT, backend: Backend | Group, tokens: Tensor) -> Cost:
    """Count what the forward and the backward pass of one batch send to a backend; nothing is sent.

    Args:
        model: The model; its heads stay where they are.
        backend: Where it would run; its gradient rule decides the backward pass.
        tokens: A batch, shape ``(B, T + 1)``.

    Raises:
        BackendError: As :func:`run_cost` does.
    """

    def step() -> None:
        _, loss = model(tokens[:, :-1], tokens[:, 1:])
        loss.backward()

    return run_cost(model, backend, step).total


def forward_cost(layer: TorchConnector, backend: Backend | Group, samples: int) -> RunCost:
    """Count what a forward pass of different samples through a connector's network sends to a backend.

    Args:
        layer: The connector; it stays where it is.
        backend: Where it would run.
        samples: Number of samples.

    Raises:
        BackendError: As :func:`run_cost` does.
    """
    with torch.no_grad():
        return run_cost(layer, backend, lambda: layer(_samples(layer, samples)))


def network_step_cost(layer: TorchConnector, backend: Backend | Group, samples: int) -> Cost:
    """Count what the forward and the backward pass of different samples send to a backend; nothing is sent.

    Gradients go to the weights and, where the network has ``input_gradients``, to the samples too, as they do behind
    other layers.

    Args:
        layer: The connector; it stays where it is.
        backend: Where it would run; its gradient rule decides the backward pass.
        samples: Number of samples.

    Raises:
        BackendError: As :func:`run_cost` does.
    """

    def step() -> None:
        values = layer(_samples(layer, samples).requires_grad_())
        if values.requires_grad:
            values.sum().backward()

    return run_cost(layer, backend, step).total


def training_cost(
    config: TrainConfig, corpus: Corpus, backend: Backend, start: int = 0
) -> tuple[dict[str, Cost], Cost | None]:
    """Count what a run from step ``start`` on sends to a backend, by its parts, and its first job; nothing is sent.

    Args:
        config: The run's settings.
        corpus: Its text.
        backend: Where its quantum heads would run.
        start: Number of steps already done.

    Raises:
        BackendError: As :func:`run_cost` does.
    """
    model = GPT(replace(config.model, vocab_size=corpus.tokenizer.vocab_size))
    generator = torch.Generator().manual_seed(config.seed)
    x, y = random_batch(corpus.train, config.batch_size, config.model.block_size, generator)
    batch = torch.cat([x, y[:, -1:]], -1)  # (B, T + 1)
    steps = config.max_steps - start
    parts = {"training steps": step_cost(model, backend, batch) * steps} if steps else {}
    checks = sum(step % config.eval_interval == 0 for step in range(start, config.max_steps)) + 1
    forward = _forward_cost(model, backend, x)
    parts["validations"] = forward.total * (checks + 1) * config.eval_batches  # and one on training text
    count, batches = final_batches(corpus.val, config)
    parts["last validation"] = _forward_cost(model, backend, next(batches)[0]).total * count
    prompt = corpus.tokenizer.encode(default_prompt(config, corpus))[None]  # (1, P)
    parts["report's sample"] = generation_cost(model, backend, prompt, config.sample_tokens).total
    return parts, forward.first


def task_cost(config: TrainConfig, task: Task, backend: Backend) -> tuple[dict[str, Cost], Cost | None]:
    """Count what the training of a task sends to a backend, by its parts, and its first job; nothing is sent.

    Args:
        config: The settings of the training.
        task: The model, which holds circuits, and its data.
        backend: Where they would run.

    Raises:
        BackendError: As :func:`run_cost` does.
    """
    batch = drawn(task, task.train, config.seed, 0, config.batch_size)

    def forward() -> None:
        with torch.no_grad():
            task(task.model, batch)

    step = run_cost(task.model, backend, lambda: task(task.model, batch)[2].backward())
    validation = run_cost(task.model, backend, forward)
    checks = math.ceil(config.max_steps / config.eval_interval) + 2  # at the first and last step, and on training data
    batches = math.ceil(len(task.validation) / config.batch_size)
    parts = {
        "training steps": step.total * config.max_steps,
        "validations": validation.total * checks * min(config.eval_batches, batches),
        "last validation": validation.total * batches,
    }
    return parts, validation.first


def _forward_cost(model: GPT, backend: Backend, tokens: Tensor) -> RunCost:
    """Return the cost of a forward pass of tokens, shape ``(B, T)``."""
    with torch.no_grad():
        return run_cost(model, backend, lambda: model(tokens))


def _samples(layer: TorchConnector, samples: int) -> Tensor:
    """Return samples, shape ``(B, num_inputs)``, no two of them equal."""
    return torch.rand(samples, layer.neural_network.num_inputs, generator=torch.Generator().manual_seed(0))
