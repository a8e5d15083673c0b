"""Quantum attention heads as a module of transformers' attention, and the function that is called for attention.

It is registered with transformers' ``AttentionInterface`` as ``quantum``, so that any model that takes its attention
from there can have it.
"""

from __future__ import annotations

import inspect
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, EncoderDecoderCache
from transformers.integrations.sdpa_attention import create_position_bias_mask, repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from qiskit_qattn.errors import ConfigError
from qiskit_qattn.nn.heads import QuantumHead
from qiskit_qattn.nn.placement import Placement
from qiskit_qattn.nn.projected import ProjectedHeads
from qiskit_qattn.nn.sampling import places

IMPLEMENTATION = "quantum"
HEADS = "qattn_heads"  # the name of the module in each attention
_PLACES = "qattn_places"  # the argument that tells sampled cross-attention the places of its queries


class QattnHeads(ProjectedHeads, Placement, nn.Module):
    """The heads of one attention of a Hugging Face model, which take what its projections give.

    Args:
        num_heads: H.
        head_dim: Width of each query, key and value, h.
        heads: A kind, for all heads, or ``kind:count,…`` that sums to H.
        num_qubits: Qubits of every circuit; None takes the fewest, ⌈log₂ h⌉.
        reps: Ansatz layers of every circuit; None takes each kind's own.
        sampling: How attention is sampled; None for exact attention.

    Raises:
        UnknownNameError, ConfigError, CircuitError: For heads, qubits, layers or sampling that cannot be.
    """

    def __init__(
        self, num_heads: int, head_dim: int, heads: str, num_qubits: Any = None, reps: Any = None, sampling: Any = None
    ) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, head_dim
        self._build_projected(heads, num_heads, head_dim, num_qubits, reps, sampling)

    def extra_repr(self) -> str:
        """Return the heads and their size, for ``print(model)``."""
        return f"heads={self.heads!r}, head_dim={self.head_dim}"

    def observables(self) -> dict[str, list[str]]:
        """Return the Pauli strings that each kind measures."""
        quantum = {name: head for name, head in self.maps.items() if isinstance(head, QuantumHead)}
        return {name: list(head.circuit.outputs) for name, head in quantum.items()}

    def forward(self, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> tuple[Tensor, Tensor | None]:
        """Return the heads' outputs, ``(B, H, L, h)``, and weights; inputs ``(B, H, L or S, h)``."""
        q, k, v = (x.transpose(1, 2) for x in (query, key, value))
        return self._mix((q, k, v), **options)


def put_heads(module: nn.Module, heads: QattnHeads) -> None:
    """Make heads a part of an attention, which says to those of sampled attention where its queries are."""
    module.add_module(HEADS, heads)
    if heads.sampling is not None:
        module.register_forward_pre_hook(_with_places, with_kwargs=True)


def _with_places(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
    """Add the places of the queries to a call of cross-attention, whose keys and mask do not tell them.

    The attention hands them on to :func:`quantum_attention`. In a layer self-attention comes first, so its cache counts
    the tokens up to the last query. Padding in front of the queries counts too: nothing tells cross-attention of it.
    """
    signature = inspect.signature(module.forward)
    given = signature.bind(*args, **kwargs).arguments
    passed_on = any(each.kind is each.VAR_KEYWORD for each in signature.parameters.values())
    if not passed_on or all(given.get(name) is None for name in ("key_value_states", "encoder_hidden_states")):
        return None
    queries = next(iter(given.values()))  # (B, L, d)
    steps, before = queries.shape[1], 0
    cache = next((each for each in given.values() if isinstance(each, EncoderDecoderCache)), None)
    if cache is not None:
        before = cache.get_seq_length(cast(int, module.layer_idx)) - steps
    return args, kwargs | {_PLACES: torch.arange(steps, device=queries.device)[None] + before}


def quantum_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    position_bias: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Return attention's output, ``(B, L, H, h)``, and its weights where ``output_attentions`` asks for them.

    Attention without circuits is computed as ``sdpa`` does it. Values come from the cache as they were projected, and
    circuits map all of them: so every cache of transformers fits.

    Args:
        module: The attention, with its heads.
        query: Shape ``(B, H, L, h)``.
        key: Shape ``(B, G, S, h)``, where G divides H.
        value: Shape ``(B, G, S, h)``.
        attention_mask: As ``sdpa`` takes it, or None.
        dropout: Probability of dropping a weight.
        scaling: The factor of products of queries and keys; None takes 1 / √h.
        is_causal: Whether a query sees no later key, where there is no mask; None asks the module.
        position_bias: What is added to the softmax's arguments, ``(1, H, L, S)``.
        kwargs: Arguments of other implementations.

    Raises:
        ConfigError: For ``softcap`` and attention sinks, which no kind of head has.
    """
    heads = module._modules.get(HEADS)
    if heads is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, is_causal, position_bias, **kwargs
        )
    for name in ("softcap", "s_aux"):
        if kwargs.get(name) is not None:
            raise ConfigError(f"Quantum attention has no {name}, which {type(module).__name__} asks for.")
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    steps = query.shape[2]
    decodes = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
    causal = steps > 1 and attention_mask is None and decodes
    if causal:  # a cache may hold places for later keys
        key, value = key[:, :, :steps], value[:, :, :steps]
    if position_bias is not None:
        bias = position_bias[..., : key.shape[2]]
        attention_mask, causal = create_position_bias_mask(bias, attention_mask, causal, query, key), False
    rows = None
    if heads.sampling is not None:  # of a sliding window the mask does not tell the place
        rows = kwargs.get("position_ids") if kwargs.get("sliding_window") else kwargs.get(_PLACES)
        rows = places(steps, key.shape[2], attention_mask, causal=decodes) if rows is None else rows
    y, weights = heads(
        query,
        key,
        value,
        mask=attention_mask,
        causal=causal,
        dropout=dropout,
        scale=scaling,
        need_weights=bool(kwargs.get("output_attentions", False)),
        rows=rows,
    )
    return y.transpose(1, 2).contiguous(), weights


AttentionInterface.register(IMPLEMENTATION, quantum_attention)
AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)
