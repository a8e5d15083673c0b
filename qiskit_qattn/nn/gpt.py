"""GPT: nanoGPT's model with attention heads of any kind."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qiskit_qattn.errors import ConfigError
from qiskit_qattn.nn.attention import CausalSelfAttention, KeyValueCache
from qiskit_qattn.nn.config import GPTConfig
from qiskit_qattn.nn.generation import check_tokens, outside_vocabulary, stream
from qiskit_qattn.nn.heads import QuantumHead, form_unitaries
from qiskit_qattn.nn.placement import Placement, ran_on
from qiskit_qattn.nn.pretrained import Pretrained
from qiskit_qattn.nn.sampling import number_layers
from qiskit_qattn.simulation.statevector import Fused
from qiskit_qattn.untrusted import shown


class LayerNorm(nn.Module):
    """Layer norm with an optional bias."""

    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis."""
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, 1e-5)


class MLP(nn.Module):
    """Two linear maps with a GELU between them."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, config.mlp_width, bias=config.bias)
        self.c_proj = nn.Linear(config.mlp_width, config.n_embd, bias=config.bias)
        self.dropout = config.dropout

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens one by one."""
        return F.dropout(self.c_proj(F.gelu(self.c_fc(x))), self.dropout, self.training)


class Block(nn.Module):
    """A transformer block: attention and MLP, each after a layer norm and with a residual."""

    def __init__(self, config: GPTConfig, counts: dict[str, int]) -> None:
        super().__init__()
        self.ln_1 = LayerNorm(config.n_embd, config.bias)
        self.attn = CausalSelfAttention(config, counts)
        self.ln_2 = LayerNorm(config.n_embd, config.bias)
        self.mlp = MLP(config)

    def forward(
        self,
        x: Tensor,
        unitaries: Mapping[str, Fused],
        cache: KeyValueCache | None = None,
        real: Tensor | None = None,
        rows: Tensor | None = None,
    ) -> Tensor:
        """Return the block's output, of the input's shape ``(B, T, d)``; arguments as for the attention."""
        x = x + self.attn(self.ln_1(x), cache, unitaries, real, rows)
        return x + self.mlp(self.ln_2(x))


class Decoder(Placement, nn.Module):
    """The modules of a GPT and what they compute, for :class:`GPT` and for other libraries' classes of models.

    A subclass sets ``config``, of which sizes, ``dropout`` and ``sampling`` are used later, and calls :meth:`_build`.
    """

    config: Any

    def _build(self, config: GPTConfig) -> None:
        """Make the modules, with weights drawn from torch's global generator."""
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.blocks = nn.ModuleList(Block(config, counts) for counts in config.layers())
        self.ln_f = LayerNorm(config.n_embd, config.bias)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        _tie(self)
        self.register_load_state_dict_post_hook(_tie)
        number_layers(self)
        self.apply(init_weights)
        for name, parameter in self.named_parameters():
            if name.endswith("c_proj.weight"):
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * config.n_layer))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        _tie(self)
        return self

    def forward(
        self,
        idx: Tensor,
        targets: Tensor | None = None,
        *,
        caches: list[KeyValueCache] | None = None,
        position: int = 0,
        positions: Tensor | None = None,
        real: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return logits for every position and, with targets, their mean cross-entropy in nats.

        Args:
            idx: Tokens, shape ``(B, T)``, T at most ``block_size``.
            targets: Next tokens, shape ``(B, T)``; −1 is ignored.
            caches: One cache per layer, which the tokens follow and are appended to.
            position: Position of the first token, with caches.
            positions: The position of each token, shape ``(B or 1, T)``; None counts from ``position``.
            real: Which tokens are not padding, those in the caches too, shape ``(B, position + T)``; None for all.

        Returns:
            Logits, shape ``(B, T, vocab_size)``, and the loss or None.

        Raises:
            ConfigError: For tokens of another shape or type, targets of another shape, or a context longer than
                ``block_size``.
            TokenError: For a token that is not in the vocabulary, on a CPU; CUDA has an error of its own.
        """
        check_tokens(idx)
        steps = idx.shape[1]
        if position + steps > self.config.block_size:
            raise ConfigError(
                f"A context of {position + steps} tokens is longer than block_size={self.config.block_size}."
            )
        if positions is None:
            positions = torch.arange(position, position + steps, device=idx.device)
        # Of sampled attention: rows of equal tokens at equal places of two sequences share their random numbers.
        rows = positions * self.config.vocab_size + idx if self.config.sampling is not None else None
        x = F.dropout(self._embedded(idx) + self.wpe(positions), self.config.dropout, self.training)  # (B, T, d)
        for i, (block, unitaries) in enumerate(zip(self.blocks, self.unitaries(), strict=True)):
            x = block(x, unitaries, None if caches is None else caches[i], real, rows)
        logits = self.lm_head(self.ln_f(x))  # (B, T, vocab_size)
        if targets is None:
            return logits, None
        if targets.numel() != idx.numel():
            raise ConfigError(f"targets must have the shape of idx, {tuple(idx.shape)}, got {tuple(targets.shape)}.")
        loss = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1), ignore_index=-1)
        return logits, loss

    def _embedded(self, idx: Tensor) -> Tensor:
        """Return the embeddings of tokens, shape ``(B, T, d)``."""
        try:
            return cast(Tensor, self.wte(idx))
        except IndexError as error:
            raise outside_vocabulary(idx, self.config.vocab_size) from error

    def unitaries(self) -> list[dict[str, Fused]]:
        """Form the unitaries of all layers' circuits, one batched product per circuit; by kind for each layer."""
        return form_unitaries([attention.maps for attention in self.attention_layers()])

    def _blocks(self) -> list[Block]:
        return cast(list[Block], list(self.blocks))

    def attention_layers(self) -> list[CausalSelfAttention]:
        """Return the attention of every layer."""
        return [block.attn for block in self._blocks()]

    def quantum_heads(self) -> list[tuple[int, str, QuantumHead]]:
        """Return the quantum heads as (layer, kind, module)."""
        return [
            (layer, kind, module)
            for layer, attention in enumerate(self.attention_layers())
            for kind in attention.counts
            for module in attention.circuits(kind)
        ]

    def part_labels(self) -> dict[int, tuple[int, str]]:
        """Return the layer and kind of each quantum head, by ``id``."""
        return {id(head): (layer, kind) for layer, kind, head in self.quantum_heads()}

    def head_backends(self) -> list[dict[str, Any]]:
        """Return, for every head, its layer, number, kind and the backend it runs on (``torch`` if classical).

        On a chain, that is where its calls were computed, and ``calls`` says how many each backend computed; before
        the first call it is the chain. ``outside_bounds`` says how many mitigated values lay outside their observables'
        bounds, if any did; ``mitigation`` what was mitigated and what that costs in circuits; ``tiles`` how many
        circuits were measured on which qubits, where they ran side by side.
        """
        rows = []
        for layer, attention in enumerate(self.attention_layers()):
            number = 0
            for kind, count in attention.counts.items():
                where: dict[str, Any] = {"backend": "torch"}
                if circuits := attention.circuits(kind):
                    place, calls = circuits[0].place, _sum(each.ran_on for each in circuits)
                    where = {"backend": ran_on(calls) or place.name, **({"calls": calls} if calls else {})}
                    where |= (
                        {"outside_bounds": outside}
                        if (outside := sum(each.outside_bounds for each in circuits))
                        else {}
                    )
                    mitigations = {link.name: link.mitigation for link in place.backends if link.mitigation}
                    if where["backend"] in mitigations:
                        where["mitigation"] = mitigations[where["backend"]].description
                    where |= {"tiles": tiles} if (tiles := _sum(each.tiles for each in circuits)) else {}
                for _ in range(count):
                    rows.append({"layer": layer, "head": number, "kind": kind, **where})
                    number += 1
        return rows

    def circuit_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the circuits' angles, frozen ones included."""
        for _, _, head in self.quantum_heads():
            yield head.weight


class GPT(Decoder, Pretrained):
    r"""A decoder-only transformer whose attention mixes quantum and classical heads.

    Weights are tied between the token embedding and the output, and initialised as in nanoGPT: N(0, 0.02²), with the
    last map of each residual branch scaled by :math:`1/\sqrt{2 L}`. Circuit angles start uniformly in [−π, π]. All
    draws come from torch's global generator: call ``torch.manual_seed`` first for a reproducible model.

    Args:
        config: The model's shape.

    Raises:
        ConfigError: For something else than a :class:`GPTConfig`.
    """

    config: GPTConfig

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        if not isinstance(config, GPTConfig):
            raise ConfigError(f"GPT takes a GPTConfig, got {shown(config)}; GPT.from_pretrained loads a saved model.")
        self.config = config
        self._build(config)

    def generate(self, idx: Tensor, max_new_tokens: int = 100, **options: Any) -> Tensor:
        """Return ``idx`` followed by ``max_new_tokens`` sampled tokens, shape ``(B, T + max_new_tokens)``.

        Args:
            idx: Prompt, shape ``(B, T)``, at least one token.
            max_new_tokens: How many tokens to add.
            options: ``temperature``, ``top_k``, ``seed`` and ``use_cache``, as for
                :func:`qiskit_qattn.nn.generation.stream`.
        """
        return torch.cat([idx, *self.stream(idx, max_new_tokens, **options)], 1)

    def stream(self, idx: Tensor, max_new_tokens: int, **options: Any) -> Iterator[Tensor]:
        """Sample tokens one by one, each of shape ``(B, 1)``; options as for :meth:`generate`."""
        return stream(self, idx, max_new_tokens, **options)

    def num_parameters(self) -> dict[str, int]:
        """Return the number of circuit angles, of all other parameters, and of both."""
        quantum = sum(p.numel() for p in self.circuit_parameters())
        total = sum(p.numel() for p in self.parameters())
        return {"quantum": quantum, "classical": total - quantum, "total": total}


def _sum(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Return the sums of counts by name."""
    return dict(sum(map(Counter, counts), Counter[str]()))


def init_weights(module: nn.Module) -> None:
    """Draw the weights of a linear map or an embedding from N(0, 0.02²); biases are 0."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def _tie(model: Decoder, *_: Any) -> None:
    """Tie the output's weights to the embedding's, also where torch made new ones: out of ``meta``, or to assign."""
    model.lm_head.weight = model.wte.weight
