"""Gradients from earlier outputs to later inputs: zero, exactly, for a causal model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from qiskit_qattn.errors import ConfigError
from qiskit_qattn.nn.placement import Movable

COSTS_CIRCUITS = "on its backend, gradients would require running circuits"
NOT_WANTED = "they were not requested"
NO_MODULE = "the model is not a torch module"
NO_EMBEDDING = "no nn.Embedding of the model receives the token ids"
NO_GRAPH = "autograd finds no path from the outputs to the inputs' vectors"


def gradient_leaks(
    call: Callable[[Tensor], Any],
    model: nn.Module | None,
    inputs: Tensor,
    logits: Callable[[Any], Tensor],
    generator: torch.Generator,
) -> Tensor | str:
    r"""Return :math:`\max_i |\partial (u_s \cdot f(x)_s) / \partial e_{t,i}|` for outputs s and tokens t > s.

    The vectors e are the inputs, or for token ids the output of the model's ``nn.Embedding`` for them; u is drawn from
    the normal distribution, so that a dependence that cancels in a sum over logits is found. Entries with s ≥ t are
    zero.

    Args:
        call: Calls the model.
        model: The module behind it, in evaluation mode, or None where there is none.
        inputs: Tokens, shape ``(B, T)``, or vectors, shape ``(B, T, d)``. The first sequence is f's; the others must
            not matter.
        logits: Extracts the logits, shape ``(B, T, ...)``, from the model's output.
        generator: Draws u.

    Returns:
        The leaks, shape ``(T, T)``, by t and s; or the reason why there are none.

    Raises:
        ConfigError: If an output of the first sequence has a gradient to another.
    """
    if inputs.is_floating_point():
        found = [inputs.detach().requires_grad_()]
        with torch.enable_grad():
            outputs = logits(call(found[0])).flatten(2)  # (B, T, V)
    elif model is None:
        return NO_MODULE
    else:
        with torch.enable_grad(), _embeddings(model, inputs) as found:
            outputs = logits(call(inputs)).flatten(2)  # (B, T, V)
    if not found:
        return NO_EMBEDDING
    if not outputs.requires_grad:
        return NO_GRAPH
    length = inputs.shape[1]
    direction = torch.randn(outputs.shape[2], generator=generator).to(outputs)  # (V,)
    sums = outputs[0] @ direction  # (T,)
    leaks, reached = torch.zeros(length, length, dtype=torch.float64), False
    for s in range(length):
        gradients: Sequence[Tensor | None] = torch.autograd.grad(sums[s], found, retain_graph=True, allow_unused=True)
        for gradient in gradients:
            if gradient is None:
                continue
            if gradient[1:].any():
                raise ConfigError(
                    "Outputs of one sequence depend on the other sequences of the batch. leakage() gives a batch as "
                    "(B, T) or (B, T, width); torch's layers take it so with batch_first=True."
                )
            sizes = gradient[0].abs().amax(-1).double().cpu()  # (T,)
            reached = reached or bool(sizes[: s + 1].any())
            leaks[s + 1 :, s] = torch.maximum(leaks[s + 1 :, s], sizes[s + 1 :])
    return leaks if reached or bool(leaks.any()) else NO_GRAPH


def gradients_cost_circuits(model: nn.Module) -> bool:
    """Return whether a circuit of the model runs where gradients are computed by running circuits."""
    return any(isinstance(part, Movable) and not part.execution.differentiable for part in model.modules())


@contextmanager
def _embeddings(model: nn.Module, ids: Tensor) -> Iterator[list[Tensor]]:
    """Yield a list to which each embedding of the ids is added as a leaf that requires gradients."""
    found: list[Tensor] = []

    def make_leaf(_: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
        is_ids = bool(inputs) and isinstance(inputs[0], Tensor) and inputs[0].shape == ids.shape
        if not (is_ids and torch.equal(inputs[0], ids) and torch.is_grad_enabled()):
            return None
        found.append(output.detach().requires_grad_())  # (B, T, d)
        return found[-1]

    hooks = [part.register_forward_hook(make_leaf) for part in model.modules() if isinstance(part, nn.Embedding)]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
