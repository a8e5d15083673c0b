r"""Inference with linear maps of 8-bit integers: weights are rounded once, each row of inputs when it is multiplied.

.. math:: y_{i} = s_i\, t \sum_j q_{ij} p_j + b_i, \qquad
          s_i = \max_j |W_{ij}| / 127,\; q_{ij} = \mathrm{round}(W_{ij} / s_i), \qquad
          t = \max_j |x_j| / 127,\; p_j = \mathrm{round}(x_j / t)

The sums are exact integers, and a row has a scale of its own: what a token gives depends neither on the other tokens
nor on the batch that it is in.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qiskit_qattn.errors import ConfigError, unknown_name
from qiskit_qattn.nn.attention import CausalSelfAttention
from qiskit_qattn.nn.inference import FixedAmplitudeHead, inference, is_plain
from qiskit_qattn.simulation.derivatives import is_traced

Quantization = Literal["int8"]
M = TypeVar("M", bound=nn.Module)
_LEVELS = 127


class Int8Linear(nn.Module):
    """A linear map whose weights are integers of 8 bits, with a scale for each output.

    On a CPU and in float32 integers are multiplied. Elsewhere, for gradients and in exported graphs the weights are
    converted back, and inputs are not rounded.

    Args:
        weight: The map's weights, shape ``(out, in)``.
        bias: The map's bias, shape ``(out,)``, or None.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        scale = weight.detach().abs().amax(-1).clamp_min(torch.finfo(weight.dtype).tiny) / _LEVELS
        self.register_buffer("weight", (weight.detach() / scale.unsqueeze(-1)).round().to(torch.int8))
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if bias is None else bias.detach().clone())

    def extra_repr(self) -> str:
        """Return the sizes, for ``print(model)``."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, shape ``(..., out)``, of inputs ``(..., in)``."""
        differentiated = torch.is_grad_enabled() and x.requires_grad
        if is_traced() or differentiated or x.device.type != "cpu" or x.dtype != torch.float32 or not x.numel():
            weight = self.weight.to(x.dtype) * self.scale.unsqueeze(-1).to(x.dtype)
            return F.linear(x, weight, None if self.bias is None else self.bias.to(x.dtype))
        scale = x.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny) / _LEVELS
        rows = (x / scale).round().to(torch.int8).reshape(-1, self.in_features)  # (N, in)
        y = torch._int_mm(rows, self.weight.t()).reshape(*x.shape[:-1], -1) * scale * self.scale
        return y if self.bias is None else y + self.bias


def quantize(model: M, form: Quantization = "int8") -> M:
    """Return a copy of a model for inference whose linear maps are :class:`Int8Linear`.

    Only classical weights are rounded. Projections that hold circuits, embeddings, maps that share their weights with
    another part, such as a GPT's output, and the circuits themselves stay as :func:`inference` makes them.

    Args:
        model: As for :func:`~qiskit_qattn.inference`.
        form: ``int8``.

    Raises:
        ConfigError: For another form, or a model without a linear map that can be quantised.
    """
    if form not in get_args(Quantization):
        raise unknown_name("quantization", str(form), get_args(Quantization))
    twin = inference(model)
    uses = Counter(id(part) for module in twin.modules() for part in module._parameters.values() if part is not None)
    found = 0
    for owner in list(twin.modules()):
        if isinstance(owner, nn.TransformerEncoderLayer):  # its fast path reads the weights itself
            continue
        for name, child in list(owner.named_children()):
            weight = _weight(child)
            kept = name == "base_layer" or (name == "c_attn" and _holds_circuits(owner))  # adapters read that
            if weight is not None and uses[id(child._parameters["weight"])] == 1 and not kept:
                setattr(owner, name, Int8Linear(weight, child._parameters["bias"]).train(False))
                found += 1
    if not found:
        raise ConfigError(f"{type(model).__name__} has no linear map of its own weights that could be quantised.")
    return twin


def _weight(module: nn.Module) -> Tensor | None:
    """Return the weights of a plain linear map, shape ``(out, in)``; None for another module."""
    transposed: Any = getattr(sys.modules.get("transformers.pytorch_utils"), "Conv1D", None)
    if not is_plain(module) or type(module) not in (nn.Linear, transposed):
        return None
    weight = module._parameters["weight"]
    return weight if weight is None or type(module) is nn.Linear else weight.T


def _holds_circuits(attention: nn.Module) -> bool:
    """Tell whether circuits are part of an attention's input projection."""
    maps = attention.maps.values() if isinstance(attention, CausalSelfAttention) else ()
    return any(isinstance(part, FixedAmplitudeHead) and part.matrix is None for part in maps)
