"""What training, generation or any other run of circuits sends to a backend, counted before anything is sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from qiskit_qattn.backends.counting import CountingEstimator
from qiskit_qattn.backends.ibm.isa import two_qubit_depth
from qiskit_qattn.backends.jobs.device import Cost
from qiskit_qattn.backends.registry import Backend
from qiskit_qattn.nn.connector import TorchConnector
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.nn.placement import Placement
from qiskit_qattn.training.config import TrainConfig
from qiskit_qattn.training.data import Corpus, random_batch
from qiskit_qattn.training.run import default_prompt
from qiskit_qattn.training.validation import final_batches


@dataclass(frozen=True)
class RunCost:
    """The cost of a run of circuits, such as a generation or a forward pass.

    Attributes:
        total: All jobs.
        first: The first job, or None if there is none.
        depth: Layers of gates on two or more qubits of the deepest circuit, as it is sent.
    """

    total: Cost
    first: Cost | None
    depth: int


def run_cost(module: Placement, backend: Backend, run: Callable[[], Any]) -> RunCost:
    """Count what a run of a module's circuits sends to a backend; nothing is sent.

    Exact engines have no PUBs; the estimator's program counts for them, in circuits of exact values.

    Args:
        module: A model, or a connector; it stays where it is.
        backend: Where it would run.
        run: Calls the module.

    Raises:
        BackendError: For circuits that do not fit on the device, or a job that the device does not accept.
    """
    counting = CountingEstimator(getattr(backend.estimator, "device", None))
    with module.to_backend(replace(backend, estimator=counting, program=None, differentiable=False)):
        run()
    depth = max(map(two_qubit_depth, counting.circuits.values()), default=0)
    return RunCost(counting.total, counting.first, depth)


def generation_cost(model: GPT, backend: Backend, prompt: Tensor, tokens: int) -> RunCost:
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


def step_cost(model: GPT, backend: Backend, tokens: Tensor) -> Cost:
    """Count what the forward and the backward pass of one batch send to a backend; nothing is sent.

    Args:
        model: The model; its heads stay where they are, its gradients are cleared.
        backend: Where it would run; its gradient rule decides the backward pass.
        tokens: A batch, shape ``(B, T + 1)``.

    Raises:
        BackendError: As :func:`run_cost` does.
    """

    def step() -> None:
        _, loss = model(tokens[:, :-1], tokens[:, 1:])
        loss.backward()

    cost = run_cost(model, backend, step).total
    model.zero_grad(set_to_none=True)
    return cost


def forward_cost(layer: TorchConnector, backend: Backend, samples: int) -> RunCost:
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


def network_step_cost(layer: TorchConnector, backend: Backend, samples: int) -> Cost:
    """Count what the forward and the backward pass of different samples send to a backend; nothing is sent.

    Gradients go to the weights and, where the network has ``input_gradients``, to the samples too, as they do behind
    other layers.

    Args:
        layer: The connector; it stays where it is, its gradients are cleared.
        backend: Where it would run; its gradient rule decides the backward pass.
        samples: Number of samples.

    Raises:
        BackendError: As :func:`run_cost` does.
    """

    def step() -> None:
        values = layer(_samples(layer, samples).requires_grad_())
        if values.requires_grad:
            values.sum().backward()

    cost = run_cost(layer, backend, step).total
    layer.zero_grad(set_to_none=True)
    return cost


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


def _forward_cost(model: GPT, backend: Backend, tokens: Tensor) -> RunCost:
    """Return the cost of a forward pass of tokens, shape ``(B, T)``."""
    with torch.no_grad():
        return run_cost(model, backend, lambda: model(tokens))


def _samples(layer: TorchConnector, samples: int) -> Tensor:
    """Return samples, shape ``(B, num_inputs)``, no two of them equal."""
    return torch.rand(samples, layer.neural_network.num_inputs, generator=torch.Generator().manual_seed(0))
