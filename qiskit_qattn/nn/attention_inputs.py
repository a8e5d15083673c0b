"""What torch's MultiheadAttention takes: inputs and masks of several shapes, and nested tensors; its errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Inputs = tuple[Tensor, Tensor, Tensor]  # query, key and value


@dataclass(frozen=True)
class Batch:
    """The inputs of a call, each ``(N, L or S, ·)``; which of them are one tensor is kept.

    Attributes:
        inputs: Query, key and value.
        key_padding_mask: As in the call, shape ``(N, S)``; for nested inputs, True where there is no key.
        attn_mask: As in the call.
        layout: How the inputs were given.
        num_heads: H.
        query: The query as it was given, if inputs are nested.
        present: The places of the padded query that it fills, shape ``(N, L)``.
    """

    inputs: Inputs
    key_padding_mask: Tensor | None
    attn_mask: Tensor | None
    layout: Literal["batch first", "sequence first", "unbatched", "nested"]
    num_heads: int
    query: Any = None
    present: Any = None

    @classmethod
    def of(
        cls,
        inputs: Inputs,
        key_padding_mask: Tensor | None,
        attn_mask: Tensor | None,
        num_heads: int,
        batch_first: bool,
        is_causal: bool,
    ) -> Batch:
        """Bring inputs into one layout.

        Raises:
            AssertionError, RuntimeError: As torch's own, for numbers of dimensions that do not fit, and for
                ``is_causal`` without a mask.
        """
        # torch's own check, so that errors are its own; its stubs lack it.
        is_batched = F._mha_shape_check(*inputs, key_padding_mask, attn_mask, num_heads)  # type: ignore[attr-defined]
        if is_causal and attn_mask is None:
            raise RuntimeError(
                "Need attn_mask if specifying the is_causal hint. You may use the Transformer module method "
                "`generate_square_subsequent_mask` to create this mask."
            )
        if any(x.is_nested for x in inputs):
            if key_padding_mask is not None or attn_mask is not None or not batch_first:
                raise AssertionError(
                    "MultiheadAttention takes NestedTensor inputs with batch_first=True and without key_padding_mask "
                    "and attn_mask."
                )
            return cls._of_nested(inputs, num_heads)
        if not is_batched:
            padding = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
            return cls(_change_each(lambda x: x.unsqueeze(0), inputs), padding, attn_mask, "unbatched", num_heads)
        if batch_first:
            return cls(inputs, key_padding_mask, attn_mask, "batch first", num_heads)
        swapped = _change_each(lambda x: x.transpose(0, 1), inputs)
        return cls(swapped, key_padding_mask, attn_mask, "sequence first", num_heads)

    @classmethod
    def _of_nested(cls, inputs: Inputs, num_heads: int) -> Batch:
        """Pad nested inputs with zeros."""
        if not all(x.is_nested for x in inputs):
            raise AssertionError("MultiheadAttention takes NestedTensor inputs as query, key and value alike.")
        of_each = {id(x): [len(row) for row in x.unbind()] for x in inputs}
        lengths = [of_each[id(x)] for x in inputs]
        if lengths[1] != lengths[2] or len(lengths[0]) != len(lengths[1]):
            raise AssertionError(
                f"NestedTensor inputs do not fit: their lengths are {lengths[0]}, {lengths[1]} and {lengths[2]}."
            )
        queries, keys, _ = (
            torch.arange(max(each, default=0), device=x.device) < torch.tensor(each, device=x.device)[:, None]
            for each, x in zip(lengths, inputs, strict=True)
        )
        padded = _change_each(lambda x: x.to_padded_tensor(0.0), inputs)
        return cls(padded, ~keys, None, "nested", num_heads, inputs[0], queries)

    def check_widths(self, widths: Sequence[int], *, packed: bool) -> None:
        """Refuse inputs of other widths than the projections take, or of different N or S.

        Args:
            widths: What the projections of query, key and value take.
            packed: Whether the projections are one matrix.

        Raises:
            AssertionError: As torch's own.
        """
        query, key, value = self.inputs
        if query.shape[-1] != widths[0]:
            raise AssertionError(f"was expecting embedding dimension of {widths[0]}, but got {query.shape[-1]}")
        if packed and key.shape != value.shape:
            raise AssertionError(f"key shape {key.shape} does not match value shape {value.shape}")
        if key.shape[:2] != value.shape[:2]:
            raise AssertionError(
                f"key's sequence and batch dims {key.shape[:2]} do not match value's {value.shape[:2]}"
            )
        for name, given, width in (("key", key, widths[1]), ("value", value, widths[2])):
            if given.shape[-1] != width:
                raise AssertionError(f"was expecting {name} dimension of {width}, but got {given.shape[-1]}")
            if given.shape[0] != query.shape[0]:
                raise AssertionError(f"was expecting {name} of batch size {query.shape[0]}, but got {given.shape[0]}")

    def masks(self, added: int, *, causal: bool) -> tuple[Tensor | None, Tensor | None]:
        """Return what is added to the softmax's arguments: for each key, ``(N, S)``, and by both masks together.

        The latter has the shape ``(N or 1, H or 1, L, S + added)``.

        Args:
            added: How many keys follow the given ones, which all queries see.
            causal: Whether a causal mask replaces ``attn_mask``.

        Raises:
            AssertionError, RuntimeError: As torch's own, for masks of other shapes or of whole numbers.
        """
        query, key, _ = self.inputs
        (batch, steps, _), total, heads = query.shape, key.shape[1], self.num_heads
        padding = F._canonical_mask(
            self.key_padding_mask, "key_padding_mask", F._none_or_dtype(self.attn_mask), "attn_mask", query.dtype
        )
        mask = None
        if self.attn_mask is not None and not causal:
            mask = F._canonical_mask(self.attn_mask, "attn_mask", None, "", query.dtype, check_other=False)
        if mask is not None:
            expected = (steps, total) if mask.ndim == 2 else (batch * heads, steps, total)
            if mask.shape != expected:
                raise RuntimeError(
                    f"The shape of the {mask.ndim}D attn_mask is {mask.shape}, but should be {expected}."
                )
            mask = mask[None, None] if mask.ndim == 2 else mask.unflatten(0, (batch, heads))
        if padding is not None:
            for axis, size in enumerate((batch, total)):
                if padding.shape[axis] != size:
                    raise AssertionError(
                        f"Expected key_padded_mask.shape[{axis}] to be {size}, but got {padding.shape[axis]}"
                    )
            mask = padding[:, None, None] if mask is None else mask + padding[:, None, None]
        return padding, mask if mask is None or not added else F.pad(mask, (0, added))

    def tokens(self, y: Tensor) -> Tensor:
        """Return what the heads give, ``(N, H, L, h)``, as tokens ``(N, L, E)``, or ``(L, N, E)`` as was given."""
        return (y.permute(2, 0, 1, 3) if self.layout == "sequence first" else y.transpose(1, 2)).flatten(2)

    def output(self, y: Tensor) -> Tensor:
        """Return tokens in the layout of the query."""
        if self.layout == "unbatched":
            return y.squeeze(0)
        if self.layout != "nested":
            return y
        if self.query.layout == torch.jagged:
            return torch.nested.nested_tensor_from_jagged(y[self.present], self.query.offsets())
        return torch.nested.as_nested_tensor([row[there] for row, there in zip(y, self.present, strict=True)])

    def weights(self, weights: Tensor) -> Tensor:
        """Return weights ``(N, L, S)`` or ``(N, H, L, S)`` as torch's class does: 0 where there is no query."""
        if self.layout == "nested":
            present = self.present[..., None] if weights.ndim == 3 else self.present[:, None, :, None]
            return weights.masked_fill(~present, 0.0)
        return weights.squeeze(0) if self.layout == "unbatched" else weights


def _change_each(change: Callable[[Tensor], Tensor], inputs: Inputs) -> Inputs:
    """Change each input; what was one tensor stays one."""
    changed: dict[int, Tensor] = {}
    for x in inputs:
        if id(x) not in changed:
            changed[id(x)] = change(x)
    query, key, value = (changed[id(x)] for x in inputs)
    return query, key, value
