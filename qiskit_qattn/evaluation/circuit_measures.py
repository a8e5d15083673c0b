"""Measures of a model's circuits: trainability, entanglement, expressibility, and the dimension of the values."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from qiskit_qattn.backends.registry import get_backend
from qiskit_qattn.evaluation.state_measures import (
    haar_divergence,
    meyer_wallach,
    pair_meyer_wallach,
    participation_ratio,
    unary_meyer_wallach,
)
from qiskit_qattn.evaluation.text_metrics import spaced_windows
from qiskit_qattn.library.attention_circuit import AttentionCircuit
from qiskit_qattn.nn.attention import CausalSelfAttention
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.nn.heads import QuantumHead
from qiskit_qattn.simulation.compound import CompoundProgram
from qiskit_qattn.simulation.metric import States, state_program
from qiskit_qattn.simulation.unary import OrthogonalProgram

WINDOWS = 16  # windows of the text that are read
STATES = 512  # tokens whose states are compared in pairs
DRAWS = 512  # draws of random weights for the variance of gradients
PAIRS = 2048  # pairs of states at random weights
_LARGEST = 2**22  # amplitudes at a time


@dataclass(frozen=True)
class HeadMeasures:
    """The measures of the heads of one kind in one layer, averaged over them.

    Attributes:
        layer: Number of the layer.
        kind: Kind of the heads.
        heads: Number of heads.
        effective_dimension: Participation ratio of the values, of at most the head size.
        gradient_variance: The variance of the gradients of the circuit's expectations before training; this and the
            following are None for a kind without a circuit.
        meyer_wallach: Mean entanglement of the trained circuit's states.
        expressibility: Divergence from Haar of the trained circuit's states over the data.
        expressibility_random_weights: The same at random weights, as the paper defines it.
    """

    layer: int
    kind: str
    heads: int
    effective_dimension: float
    gradient_variance: float | None = None
    meyer_wallach: float | None = None
    expressibility: float | None = None
    expressibility_random_weights: float | None = None


def circuit_measures(model: GPT, tokens: Tensor, *, seed: int = 0) -> dict[str, Any]:
    r"""Measure a trained model's heads on a text, exactly and without noise, whatever backend they run on.

    gradient_variance
        The barren-plateau probe (McClean et al., Nat. Commun. 9, 4812 (2018)), by :func:`gradient_variance`: on the
        inputs of the circuits in an untrained model of the same shape.
    effective_dimension
        :func:`participation_ratio` of a head's values v over all tokens of the text: the number of directions over
        which they spread. It depends only on values, so it compares heads of every kind, including classical ones.
    meyer_wallach
        Mean of :func:`meyer_wallach` over the states
        :math:`|\psi(x, \theta)\rangle` that the trained circuit prepares from the data.
    expressibility
        :func:`haar_divergence` of the fidelities
        :math:`|\langle \psi(x, \theta) | \psi(x', \theta) \rangle|^2` of all pairs of inputs at the trained weights:
        how evenly the data covers the space of states; lower is more even. Weights that act after all data, as with
        amplitude encoding, cannot change it, because a unitary preserves fidelities; it then characterises the linear
        map that is encoded.
    expressibility_random_weights
        The same for pairs of random weights at one input x, :math:`|\langle \psi(x, \theta) | \psi(x, \theta')
        \rangle|^2`: expressibility as Sim et al. define it. It is a property of the ansatz; training changes
        only the inputs.

    States of unary circuits lie in n + 1 dimensions, without a 1 or with a single one, and those of pairs of qubits in
    n (n − 1) / 2 + 1; Haar is meant there. Each is the mean over all heads that have it, or None; ``layers`` has the
    values for each layer and kind.

    Args:
        model: The trained model; it is not changed.
        tokens: Text, shape ``(N,)``, of which 16 evenly spaced windows are read.
        seed: Seed of the untrained model (a run's seed gives its initial weights) and of all random draws; global
            generators are not changed.

    Raises:
        DataError: For a text shorter than a window.
    """
    x, _ = spaced_windows(tokens, model.config.block_size, WINDOWS)  # (W, T)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        start = GPT(model.config)
        trained = GPT(model.config)
    trained.load_state_dict(model.state_dict())
    before, after = _observe(start, x) if start.quantum_heads() else {}, _observe(trained, x)
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for (layer, kind), (inputs, values) in after.items():
        module = trained.attention_layers()[layer].maps[kind]
        row: dict[str, Any] = {"effective_dimension": float(participation_ratio(values).mean())}
        if isinstance(module, QuantumHead):
            row |= _measures(module, before[layer, kind][0], inputs, generator)
        rows.append(HeadMeasures(layer, kind, len(values), **row))
    return {**_means(rows), "layers": [asdict(row) for row in rows]}


def head_measures(
    start: nn.Module, trained: nn.Module, run: Callable[[nn.Module], object], *, seed: int = 0
) -> dict[str, float | None]:
    """Measure the quantum heads of any model: the means that :func:`circuit_measures` returns, over these heads.

    Args:
        start: The model before training.
        trained: The trained model, of the same modules; both run on the exact engine.
        run: Calls a model on data; heads that it does not call are left out.
        seed: Seed of the random draws; global generators are not changed.
    """
    generator = torch.Generator().manual_seed(seed)
    before, after = (_observe_heads(model, run) for model in (start, trained))
    rows: list[HeadMeasures] = []
    for name, (inputs, values) in after.items():
        module = trained.get_submodule(name)
        assert isinstance(module, QuantumHead)
        row = _measures(module, before[name][0], inputs, generator)
        row["effective_dimension"] = float(participation_ratio(values).mean())
        rows.append(HeadMeasures(len(rows), module.circuit.name, len(values), **row))
    return _means(rows)


def gradient_variance(circuit: AttentionCircuit, inputs: Tensor, generator: torch.Generator) -> float:
    r"""Return the variance of the gradients of a circuit's expectations over random weights.

    .. math:: \frac{1}{M P} \sum_{m=1}^{M} \sum_{j=1}^{P} \mathbb E_x \operatorname{Var}_\theta
              \left[ \frac{\partial \langle P_m \rangle(x, \theta)}{\partial \theta_j} \right]

    for angles uniform in [−π, π], as at initialisation. Over a full period the mean of each derivative is exactly 0,
    so the variance is the mean of squares, taken over one draw of all weights for each input. The squares of all M
    derivatives are estimated at once, without bias, by the square of their sum with random signs. Gains are not
    included. On a barren plateau the variance vanishes exponentially in the number of qubits.

    Args:
        circuit: The circuit, with P weights and M observables.
        inputs: One input per draw, shape ``(S, num_features)``.
        generator: Draws the weights and the signs.

    Source: McClean et al., Nat. Commun. 9, 4812 (2018), arXiv 1803.11173.
    """
    make = get_backend("statevector?method=dense").program
    assert make is not None
    program = make(circuit).double()
    weights = _angles(len(inputs), len(circuit.weight_params), generator).requires_grad_()
    with torch.enable_grad():
        values = program(inputs.double().unsqueeze(-2), weights).squeeze(-2)  # (S, M)
        signs = 2.0 * torch.randint(2, values.shape, generator=generator) - 1  # (S, M)
        (slopes,) = torch.autograd.grad((values * signs).sum(), weights)  # (S, P)
    return float(slopes.square().mean()) / values.shape[-1]


def _measures(module: QuantumHead, at_start: Tensor, inputs: Tensor, generator: torch.Generator) -> dict[str, float]:
    """Return the measures of a head's circuits, from its inputs ``(H, N, F)`` before and after training."""
    variance = gradient_variance(module.circuit, _sample(at_start, DRAWS, generator), generator)
    program = state_program(module.circuit).double()
    return {"gradient_variance": variance, **_state_measures(program, module.weight.cpu(), inputs, generator)}


def _state_measures(program: States, weights: Tensor, inputs: Tensor, generator: torch.Generator) -> dict[str, float]:
    """Return measures of the states that circuits with weights ``(..., P)`` prepare from inputs ``(H, N, F)``."""
    n, entangled, dimension = program.num_qubits, meyer_wallach, 2**program.num_qubits
    if isinstance(program, OrthogonalProgram):
        entangled, dimension = unary_meyer_wallach, n + 1
    elif isinstance(program, CompoundProgram):
        entangled, dimension = pair_meyer_wallach, n * (n - 1) // 2 + 1
    weights = weights.detach().double().reshape(-1, weights.shape[-1])  # (H, P)
    chosen = torch.randperm(inputs.shape[1], generator=generator)[:STATES]  # (S,)
    above = torch.triu_indices(len(chosen), len(chosen), 1)
    entanglement, divergence = [], []
    with torch.no_grad():
        for x, w in zip(inputs[:, chosen].double(), weights, strict=True):
            states = program.states(x, w)  # (S, dimension)
            entanglement.append(float(entangled(states).mean()))
            overlaps = (states @ states.mH)[above[0], above[1]]  # (S (S - 1) / 2,)
            divergence.append(haar_divergence(overlaps.abs().square(), dimension))
        fidelities = _random_weight_fidelities(program, _sample(inputs, PAIRS, generator), dimension, generator)
    return {
        "meyer_wallach": sum(entanglement) / len(weights),
        "expressibility": sum(divergence) / len(weights),
        "expressibility_random_weights": haar_divergence(fidelities, dimension),
    }


def _random_weight_fidelities(program: States, inputs: Tensor, dimension: int, generator: torch.Generator) -> Tensor:
    """Return the fidelities of two states per input ``(K, F)``, each at random weights, shape ``(K,)``."""
    found = []
    for x in inputs.double().unsqueeze(-2).split(max(1, _LARGEST // dimension)):  # (k, 1, F)
        one, other = (program.states(x, _angles(len(x), program.num_weights, generator)) for _ in range(2))
        found.append((one.conj() * other).sum(-1).abs().square().flatten())
    return torch.cat(found)


def _observe(model: GPT, x: Tensor) -> dict[tuple[int, str], tuple[Tensor, Tensor]]:
    """Run the model on windows ``(W, T)``; return the inputs and outputs of its value maps, by layer and kind.

    Returns:
        Inputs of circuits, ``(H, W * T, F)`` for H sets of weights, and values, ``(heads, W * T, h)``.
    """
    calls: dict[tuple[int, str], tuple[Tensor, Tensor]] = {}
    with ExitStack() as stack:
        for layer, attention in enumerate(model.attention_layers()):
            for kind, value_map in attention.maps.items():
                stack.callback(value_map.register_forward_hook(partial(_note, calls, (layer, kind))).remove)
        model.eval()(x)
    return {
        (layer, kind): _by_head(attention, kind, *calls[layer, kind])
        for layer, attention in enumerate(model.attention_layers())
        for kind in attention.maps
    }


def _observe_heads(model: nn.Module, run: Callable[[nn.Module], object]) -> dict[str, tuple[Tensor, Tensor]]:
    """Run a model; return the inputs ``(H, N, F)`` and outputs ``(H, N, M)`` of its quantum heads by name."""
    heads = {name: module for name, module in model.named_modules() if isinstance(module, QuantumHead)}
    calls: dict[str, tuple[Tensor, Tensor]] = {}
    with ExitStack() as stack:
        for name, head in heads.items():
            stack.callback(head.register_forward_hook(partial(_note, calls, name)).remove)
        run(model)
    shapes = {name: heads[name].weight.shape[:-1] for name in calls}
    return {name: (_rows(calls[name][0], shapes[name]), _rows(calls[name][1], shapes[name])) for name in calls}


def _rows(vectors: Tensor, heads: torch.Size) -> Tensor:
    """Return vectors ``(..., *heads, N, F)``, of which leading axes broadcast, as ``(H, K N, F)``."""
    full = vectors.expand(*torch.broadcast_shapes(vectors.shape[:-2], heads), *vectors.shape[-2:])
    full = full.reshape(-1, heads.numel(), *vectors.shape[-2:]).transpose(0, 1)  # (H, K, N, F)
    return full.flatten(1, 2).cpu()


def _note(calls: dict[Any, Any], key: tuple[int, str], _module: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
    if args:  # not by keyword
        calls[key] = args[0].detach(), out.detach()


def _by_head(attention: CausalSelfAttention, kind: str, inputs: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the inputs and outputs of one value map or mixer, with heads on the first axis."""
    if attention.kinds[kind].mixer is not None:  # (W, heads, T, ·)
        inputs, values = (each.transpose(0, 1).flatten(1, 2) for each in (inputs, values))
    module = attention.maps[kind]
    if isinstance(module, QuantumHead):
        inputs = inputs.expand(*module.weight.shape[:-1], -1, -1).flatten(0, -3)  # (H, N, F)
    return inputs, values[2] if attention.kinds[kind].projections == "qkv" else values


def _sample(inputs: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return ``count`` of the inputs ``(H, N, F)``, drawn with replacement, shape ``(count, F)``."""
    rows = inputs.flatten(0, -2)
    return rows[torch.randint(len(rows), (count,), generator=generator)]


def _angles(draws: int, count: int, generator: torch.Generator) -> Tensor:
    """Return angles uniform in [−π, π], shape ``(draws, count)``."""
    return math.pi * (2 * torch.rand(draws, count, generator=generator, dtype=torch.float64) - 1)


def _means(rows: list[HeadMeasures]) -> dict[str, float | None]:
    names = [name for name in HeadMeasures.__dataclass_fields__ if name not in ("layer", "kind", "heads")]
    return {name: _mean(rows, name) for name in names}


def _mean(rows: list[HeadMeasures], name: str) -> float | None:
    """Return the mean of a measure over all heads that have it."""
    found = [(value, row.heads) for row in rows if (value := getattr(row, name)) is not None]
    return sum(value * heads for value, heads in found) / sum(heads for _, heads in found) if found else None
