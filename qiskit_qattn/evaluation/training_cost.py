"""What training on a backend takes, counted before anything is sent."""

from __future__ import annotations

import torch
from torch import Tensor

from qiskit_qattn.backends.jobs.device import Cost
from qiskit_qattn.backends.registry import Backend
from qiskit_qattn.evaluation.generation_cost import RunCost, generation_cost, run_cost
from qiskit_qattn.nn.connector import TorchConnector
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.training.config import TrainConfig
from qiskit_qattn.training.data import Corpus, random_batch
from qiskit_qattn.training.figures import model_config
from qiskit_qattn.training.run import default_prompt
from qiskit_qattn.training.validation import final_batches


def step_cost(model: GPT, backend: Backend, tokens: Tensor) -> Cost:
    """Count what the forward and the backward pass of one batch send to a backend; nothing is sent.

    Args:
        model: The model; its heads stay where they are, its gradients are cleared.
        backend: Where it would run, with the gradient rule that decides the backward pass.
        tokens: A batch, shape ``(B, T + 1)``.

    Raises:
        BackendError: For circuits that do not fit on the device, or a job that it does not take.
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
        samples: How many.

    Raises:
        BackendError: As :func:`step_cost` does.
    """
    with torch.no_grad():
        return run_cost(layer, backend, lambda: layer(_samples(layer, samples)))


def network_step_cost(layer: TorchConnector, backend: Backend, samples: int) -> Cost:
    """Count what the forward and the backward pass of different samples send to a backend; nothing is sent.

    Gradients go to the weights and, where the network has ``input_gradients``, to the samples too, as they do where
    other layers come first.

    Args:
        layer: The connector; it stays where it is, its gradients are cleared.
        backend: Where it would run, with the gradient rule that decides the backward pass.
        samples: How many.

    Raises:
        BackendError: As :func:`step_cost` does.
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
        start: Steps that are done.

    Raises:
        BackendError: As :func:`step_cost` does.
    """
    model = GPT(model_config(config, corpus.tokenizer.vocab_size, config.heads))
    x, y = random_batch(corpus.train, config.batch_size, config.block_size, torch.Generator().manual_seed(config.seed))
    batch = torch.cat([x, y[:, -1:]], -1)  # (B, T + 1)
    steps = config.max_steps - start
    parts = {"training steps": step_cost(model, backend, batch) * steps} if steps else {}
    checks = sum(step % config.eval_interval == 0 for step in range(start, config.max_steps)) + 1
    forward = _passed(model, backend, x)
    parts["validations"] = forward.total * (checks + 1) * config.eval_batches  # and one on training text
    count, batches = final_batches(corpus.val, config)
    parts["last validation"] = _passed(model, backend, next(batches)[0]).total * count
    prompt = corpus.tokenizer.encode(default_prompt(config, corpus))[None]  # (1, P)
    parts["report's sample"] = generation_cost(model, backend, prompt, config.sample_tokens).total
    return parts, forward.first


def _passed(model: GPT, backend: Backend, tokens: Tensor) -> RunCost:
    """Return the cost of a forward pass of tokens, shape ``(B, T)``."""
    with torch.no_grad():
        return run_cost(model, backend, lambda: model(tokens))


def _samples(layer: TorchConnector, samples: int) -> Tensor:
    """Return samples, shape ``(B, num_inputs)``, no two of them equal."""
    return torch.rand(samples, layer.neural_network.num_inputs, generator=torch.Generator().manual_seed(0))
