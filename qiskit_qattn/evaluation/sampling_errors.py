r"""What sampling costs a model in accuracy: the variance of each estimate, itself estimated from the samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qiskit_qattn.errors import ConfigError
from qiskit_qattn.evaluation.attention_calls import plain_calls
from qiskit_qattn.evaluation.attention_maps import call_model
from qiskit_qattn.nn.draws import Draw
from qiskit_qattn.nn.inference import evaluating
from qiskit_qattn.nn.sampling import SampledMean


@dataclass(frozen=True, eq=False)
class SampledCall:
    r"""One call of sampled attention, for heads that are scored alike.

    Attributes:
        name: The path of the sampling module in the model.
        sampling: The string that asks for it.
        samples: Samples per row, on average; None on a backend, where they are its shots.
        estimate: :math:`\hat\mu`, shape ``(B, H, L, h)``.
        variance: An estimate of :math:`\mathrm{E}\lVert\hat\mu - \mu\rVert^2`, shape ``(B, H, L)``: unbiased for
            independent samples, never too small on average for strata; NaN for a single sample. None for ``systematic``
            and on places without one number of shots. It does not include what noise changes on a device.
        discarded: The share of this call's outcomes on a backend that were discarded, since the row does not see their
            key.
    """

    name: str
    sampling: str
    samples: float | None
    estimate: Tensor
    variance: Tensor | None
    discarded: float

    @property
    def relative_error(self) -> float | None:
        r"""The root of mean variance by mean :math:`\lVert\hat\mu\rVert^2`; None where the variance is not known."""
        if self.variance is None:
            return None
        return float((self.variance.mean() / self.estimate.square().sum(-1).mean()).sqrt())


def sampling_errors(model: nn.Module, tokens: Any) -> list[SampledCall]:
    """Return what one call of a model draws in each layer, with variances, without gradients and in evaluation mode.

    Args:
        model: A model with sampled attention.
        tokens: What the model takes, as for :func:`~qiskit_qattn.evaluation.attention_maps.attention_maps`.

    Raises:
        ConfigError: For a model without sampled attention.
    """
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model must be a torch.nn.Module, got {type(model).__name__}.")
    found = {name: part for name, part in model.named_modules() if isinstance(part, SampledMean)}
    if not found:
        raise ConfigError(f"{type(model).__name__} has no sampled attention; its sampling is None.")
    calls: list[SampledCall] = []

    def watch(name: str, module: SampledMean) -> None:
        # Circuits count the outcomes of all calls since they were moved.
        before = (0, 0.0) if module.circuits is None else (module.circuits.rows, module.circuits.discarded)

        def take(draw: Draw, p: Tensor, v: Tensor, y: Tensor) -> None:
            nonlocal before
            drawn: float | None = float(torch.count_nonzero(draw.weights) / draw.weights[..., 0].numel())
            share = 0.0
            if module.circuits is not None and module.circuits.moved:
                rows, discarded = before
                drawn, before = None, (module.circuits.rows, module.circuits.discarded)
                share = (before[1] - discarded) / max(1, before[0] - rows)
            calls.append(SampledCall(name, module.scheme.text, drawn, y, module.estimated_variance(draw, p, v), share))

        module.watch = take

    try:
        for name, module in found.items():
            watch(name, module)
        with evaluating(model), torch.no_grad(), plain_calls(model):
            call_model(model, tokens)
    finally:
        for module in found.values():
            module.watch = None
    return calls
