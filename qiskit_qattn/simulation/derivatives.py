"""Where torch records operations or values cannot be read, and second derivatives of our own autograd functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad


def is_traced() -> bool:
    """Return whether torch records every operation: ``torch.compile`` traces, or :func:`transforms` are active.

    Neither our own autograd functions nor compiled loops may be used then.
    """
    return torch.compiler.is_compiling() or transforms()  # in this order: the second is not traced


def transforms() -> bool:
    """Return whether a transform of ``torch.func``, which torch's vectorised derivatives use, or forward mode is on."""
    return forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()


def may_read(tensor: Tensor) -> bool:
    """Return whether Python may branch on the values of a tensor: on a CPU, while torch does not record operations.

    On a GPU a read waits until all that was launched is done, and it cannot be part of a CUDA graph.
    """
    return not is_traced() and tensor.device.type == "cpu"


def needs_autograd(grad: Tensor) -> bool:
    """Return whether a backward pass, given its incoming gradient, has to use torch's differentiable operations.

    These are needed for second derivatives, while torch records operations, and for a batch of gradients
    (``torch.autograd.grad(is_grads_batched=True)``), which has no memory of its own.
    """
    return torch.is_grad_enabled() or is_traced() or not torch._C._has_storage(grad)


def partial_gradients(
    function: Callable[..., Tensor], tensors: Sequence[Tensor | None], needed: Sequence[bool], grad: Tensor
) -> list[Tensor | None]:
    r"""Return :math:`\sum_m g_m \, \partial f_m / \partial t_i` for the tensors that need it, differentiable in turn.

    For the backward pass of f. Saved tensors carry their history, and one may be a function of another, as an angle's
    column :math:`x w` is a function of the weight w. Differentiating with respect to both, torch would count the path
    from w through the column twice: here, and in the calling pass. Views of the tensors have no path between them.

    Args:
        function: f, in torch's own operations.
        tensors: Its arguments; None is passed on.
        needed: Which of them need a gradient.
        grad: g, in the shape of f's result.
    """
    with torch.enable_grad():
        views = [tensor if tensor is None else tensor.view_as(tensor) for tensor in tensors]
        values = function(*views)
    wanted = [view for view, need in zip(views, needed, strict=True) if need and view is not None]
    if not (wanted and values.requires_grad):  # nothing here depends on what needs a gradient
        return [None] * len(tensors)
    again = torch.is_grad_enabled()
    found = iter(torch.autograd.grad(values, wanted, grad, create_graph=again, allow_unused=True))
    return [next(found) if need and t is not None else None for t, need in zip(tensors, needed, strict=True)]


def with_gradient_of(exact: Tensor, values: Tensor) -> Tensor:
    """Return ``values``, such as an estimator's, with the gradient going to ``exact``, those of an engine."""
    return _Replaced.apply(exact, values)


class _Replaced(torch.autograd.Function):
    """The second argument, values of an estimator, with the gradient going to the first, those of an engine."""

    generate_vmap_rule = True

    @staticmethod
    def forward(exact: Tensor, values: Tensor) -> Tensor:
        return values.to(exact, copy=True)  # an argument that is returned cannot be changed in place

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: Any) -> Tensor:
        return tangent.clone()
