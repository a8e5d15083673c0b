"""QuantumMultiheadAttention: torch's MultiheadAttention with heads of any kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qiskit_qattn.backends.place import Place
from qiskit_qattn.backends.registry import Backend
from qiskit_qattn.errors import ConfigError
from qiskit_qattn.nn.attention_inputs import Batch, Inputs
from qiskit_qattn.nn.config import integer
from qiskit_qattn.nn.placement import Placement
from qiskit_qattn.nn.projected import ProjectedHeads
from qiskit_qattn.untrusted import shown

_PROJECTIONS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight", "in_proj_bias", "bias_k", "bias_v")


class QuantumMultiheadAttention(ProjectedHeads, Placement, nn.MultiheadAttention):
    r"""Multi-head attention of heads of any kind, in place of ``torch.nn.MultiheadAttention``.

    .. math:: \mathrm{Concat}(\mathrm{head}_1, \ldots, \mathrm{head}_H) W^O, \qquad
        \mathrm{head}_i = \mathrm{attention}_i(Q W_i^Q, K W_i^K, V W_i^V)

    Constructor, call, masks, defaults, errors and the keys of the ``state_dict`` are torch's; the parameters of heads
    that are not classical have keys of their own, under ``maps`` and ``encodings``. With classical heads alone the
    values are torch's too, dropout included.

    Each head takes its own part of torch's projections, vectors of ``head_dim`` numbers: kinds with linear queries and
    keys map the projected value, others map all three, each by its own circuit. Amplitude-encoded circuits and
    classical kinds take the vector as it is, padded with zeros; angles are a learned linear map of it. ``bias_k`` and
    ``bias_v`` are projected vectors like others. The zero of ``add_zero_attn`` is a key and a value as they are mixed.
    Keys and values that ``key_padding_mask`` excludes reach no circuit and may hold anything, even NaN; queries are
    never excluded.

    Nested tensors are taken in training too.

    Args:
        embed_dim: Width of the queries and of the output, E.
        num_heads: H; ``head_dim`` is E / H.
        dropout: Probability of dropping a weight, in training.
        bias: Whether the projections have a bias.
        add_bias_kv: Whether a learned key and value follow all others.
        add_zero_attn: Whether a key and value of zeros follow all others.
        kdim: Width of the keys; None takes E.
        vdim: Width of the values; None takes E.
        batch_first: Whether inputs are ``(N, L, E)`` instead of ``(L, N, E)``.
        device: Device of the parameters.
        dtype: Type of the parameters.
        heads: A kind, for all heads, or ``kind:count,…`` in the order of the heads, which sums to ``num_heads``.
        num_qubits: Qubits of every circuit; None takes the fewest, ⌈log₂ head_dim⌉.
        reps: Ansatz layers of every circuit; None takes each kind's own.
        sampling: How attention is sampled, such as ``stratified?samples=32``; None for exact attention. The weights
            that a call returns are those that keys are drawn by.
        backend: Where the circuits run, as for :meth:`to_backend`.

    Raises:
        ValueError, AssertionError: As torch's class, for sizes that cannot be.
        UnknownNameError, ConfigError: For heads, qubits or layers that cannot be.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        heads: str = "qisa",
        num_qubits: int | None = None,
        reps: int | None = None,
        sampling: str | None = None,
        backend: Backend | Place | str | None = None,
    ) -> None:
        embed_dim, num_heads = _size("embed_dim", embed_dim, least=None), _size("num_heads", num_heads, least=None)
        kdim, vdim, num_qubits = _size("kdim", kdim), _size("vdim", vdim), _size("num_qubits", num_qubits)
        reps = _size("reps", reps, least=0)
        if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout <= 1:
            raise ConfigError(f"dropout must be a number from 0 to 1, got {shown(dropout)}.")
        if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise ConfigError(f"dtype must be a floating type of torch such as torch.float32, got {shown(dtype)}.")
        super().__init__(
            embed_dim, num_heads, dropout, bias, add_bias_kv, add_zero_attn, kdim, vdim, batch_first, device, dtype
        )
        self._build_projected(heads, num_heads, self.head_dim, num_qubits, reps, sampling)
        for part in (self.maps, self.scores, self.encodings):
            part.to(device=self.out_proj.weight.device, dtype=self.out_proj.weight.dtype)
        # In evaluation torch's layers read the weights of attention and never call it, unless they find this.
        self._qkv_same_embed_dim &= list(self.counts) == ["classical"] and sampling is None
        if backend is not None:
            self.to_backend(backend)

    @classmethod
    def from_classical(
        cls,
        mha: nn.MultiheadAttention,
        heads: str = "qisa",
        *,
        num_qubits: int | None = None,
        reps: int | None = None,
        sampling: str | None = None,
        backend: Backend | Place | str | None = None,
    ) -> Self:
        """Return attention with the projections of another, trained or not, in the same mode and place.

        Projections are shared, as by ``SyncBatchNorm.convert_sync_batchnorm``, so that an optimizer of the other's
        parameters still holds them; copy the other first to keep it as it is.

        Args:
            mha: The other.
            heads: As for the constructor, as the further options are.
            num_qubits: Qubits.
            reps: Ansatz layers.
            sampling: How attention is sampled.
            backend: Where the circuits run.

        Raises:
            ConfigError: If ``mha`` is no ``torch.nn.MultiheadAttention``, has another ``forward`` or is parametrized.
        """
        if not isinstance(mha, nn.MultiheadAttention):
            raise ConfigError(f"mha must be a torch.nn.MultiheadAttention, got a {type(mha).__name__}.")
        own = type(mha).forward not in (nn.MultiheadAttention.forward, QuantumMultiheadAttention.forward)
        found = {name: each for name in _PROJECTIONS if (each := getattr(mha, name, None)) is not None}
        plain = all(mha._parameters.get(name) is each for name, each in found.items())
        if own or "forward" in vars(mha) or not plain:
            raise ConfigError(
                f"mha must compute attention as torch.nn.MultiheadAttention does, with plain parameters, but this "
                f"{type(mha).__name__} has a forward of its own or is quantized, pruned or parametrized."
            )
        weight = mha.q_proj_weight if mha.in_proj_weight is None else mha.in_proj_weight
        attention = cls(
            mha.embed_dim,
            mha.num_heads,
            mha.dropout,
            mha.in_proj_bias is not None,
            mha.bias_k is not None,
            mha.add_zero_attn,
            mha.kdim,
            mha.vdim,
            mha.batch_first,
            weight.device,
            weight.dtype,
            heads=heads,
            num_qubits=num_qubits,
            reps=reps,
            sampling=sampling,
            backend=backend,
        )
        for name in (*_PROJECTIONS, "out_proj"):
            setattr(attention, name, getattr(mha, name))
        return attention.train(mha.training)

    def _reset_parameters(self) -> None:
        for name in _PROJECTIONS[:4]:
            if (weight := getattr(self, name)) is not None:
                nn.init.xavier_uniform_(weight)
        if self.in_proj_bias is not None:
            nn.init.zeros_(self.in_proj_bias)
            nn.init.zeros_(self.out_proj.bias)
        for bias in (self.bias_k, self.bias_v):
            if bias is not None:
                nn.init.xavier_normal_(bias)

    def extra_repr(self) -> str:
        """Return the sizes and heads, for ``print(model)``."""
        return f"embed_dim={self.embed_dim}, num_heads={self.num_heads}, heads={self.heads!r}"

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return attention's output and weights; arguments and shapes as for ``torch.nn.MultiheadAttention``.

        Args:
            query: Shape ``(L, N, E)``, ``(N, L, E)`` with ``batch_first``, or ``(L, E)``.
            key: Shape ``(S, N, kdim)``, ``(N, S, kdim)`` or ``(S, kdim)``.
            value: Shape ``(S, N, vdim)``, ``(N, S, vdim)`` or ``(S, vdim)``.
            key_padding_mask: Shape ``(N, S)`` or ``(S,)``: True where a key is excluded, or what is added to the
                softmax's arguments.
            need_weights: Whether to return weights.
            attn_mask: Shape ``(L, S)`` or ``(N * H, L, S)``: True where a query does not see a key, or what is added.
            average_attn_weights: Whether to average weights over the heads.
            is_causal: A hint that ``attn_mask`` is causal; it is then not read where that saves time.

        Returns:
            The output, of the query's shape, and weights, shape ``(N, L, S)``, ``(N, H, L, S)`` if not averaged,
            without N for inputs without it; or None.

        Raises:
            AssertionError, RuntimeError: As torch's class, for shapes and masks that do not fit.
            EncodingError: For NaN or infinity.
        """
        inputs = query, key, value
        batch = Batch.of(inputs, key_padding_mask, attn_mask, self.num_heads, self.batch_first, is_causal)
        y, weights = self._batched(batch, is_causal, need_weights)
        y = batch.output(self.out_proj(batch.tokens(y)))
        if weights is not None:
            weights = batch.weights(weights.mean(1) if average_attn_weights else weights)
        return y, weights

    def _batched(self, batch: Batch, is_causal: bool, need_weights: bool) -> tuple[Tensor, Tensor | None]:
        """Return what the heads give, ``(N, H, L, h)``, and their weights, ``(N, H, L, S)``."""
        batch.check_widths((self.embed_dim, self.kdim, self.vdim), packed=self.in_proj_weight is not None)
        # As in torch, the hint alone is enough where nothing else needs the mask.
        causal = is_causal and batch.key_padding_mask is None and not need_weights
        padding, mask = batch.masks((self.bias_k is not None) + self.add_zero_attn, causal=causal)
        q, k, v = self._project(batch.inputs)  # each (N, L or S, H, h)
        return self._mix(
            (q, k, v),
            mask,
            padding,
            rows=torch.arange(q.shape[1], device=q.device)[None],
            zeros=int(self.add_zero_attn),
            causal=causal,
            dropout=self.dropout if self.training else 0.0,
            need_weights=need_weights,
        )

    def _project(self, inputs: Inputs) -> Sequence[Tensor]:
        """Return queries ``(N, L, H, h)``, keys and values ``(N, S, H, h)`` of all heads."""
        query, key, value = inputs
        weight, size = self.in_proj_weight, self.embed_dim
        bias = None if self.in_proj_bias is None else self.in_proj_bias.to(self.out_proj.weight.dtype)
        if weight is not None and query is key and key is value:
            parts = F.linear(query, weight, bias).split(size, -1)
        else:
            separate = self.q_proj_weight, self.k_proj_weight, self.v_proj_weight
            weights = separate if weight is None else weight.split(size)
            parts = tuple(map(F.linear, inputs, weights, [None] * 3 if bias is None else bias.split(size)))
        q, k, v = (part.unflatten(-1, (self.num_heads, self.head_dim)) for part in parts)
        if self.bias_k is None or self.bias_v is None:
            return q, k, v
        added = (bias.view(1, 1, *q.shape[2:]).expand(len(q), -1, -1, -1) for bias in (self.bias_k, self.bias_v))
        return q, *(torch.cat([x, bias.to(x.dtype)], 1) for x, bias in zip((k, v), added, strict=True))


def _size(name: str, value: Any, least: int | None = 1) -> Any:
    """Return a whole number as an int, or None; torch says what is the least where ``least`` is None."""
    if value is None or (least is None and isinstance(value, int) and value < 1):
        return value
    return integer(name, value, least=1 if least is None else least)
