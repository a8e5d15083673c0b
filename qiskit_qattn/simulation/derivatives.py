"""Backward passes written out: where they apply, and how they are differentiated in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad


def torch_must_see() -> bool:
    """Tell whether torch must see every operation, so that neither Functions of our own nor loops will do.

    That is while ``torch.compile`` traces, and inside :func:`transforms`.
    """
    return torch.compiler.is_compiling() or transforms()  # in this order: the second is not traced


def transforms() -> bool:
    """Tell whether a transform of ``torch.func`` is active, as in torch's vectorised derivatives, or forward mode."""
    return forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()


def torch_must_differentiate(grad: Tensor) -> bool:
    """Tell whether a backward pass has to leave the derivative to torch, given the gradient that comes in.

    So it is where a second derivative may follow, where torch must see every operation, and where the gradient stands
    for several at once (``torch.autograd.grad(is_grads_batched=True)``) and has no memory of its own.
    """
    return torch.is_grad_enabled() or torch_must_see() or not torch._C._has_storage(grad)


def partial_gradients(
    function: Callable[..., Tensor], tensors: Sequence[Tensor | None], needed: Sequence[bool], grad: Tensor
) -> list[Tensor | None]:
    r"""Return :math:`\sum_m g_m \, \partial f_m / \partial t_i` for the tensors that need it, differentiable in turn.

    For the backward pass of f. What was saved there brings its history along, and one tensor may be a function of
    another, as an angle's column :math:`x w` is of the weight w. With respect to both, torch would count the path
    from w through the column twice, since the pass that called goes along it too. Views of the tensors have no path
    between them.

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
