"""What a training step of preset gpt-nano asks of an estimator, against Qiskit ML's networks and connectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from qiskit.primitives import BaseEstimatorV2
from qiskit_ml import ConnectorHeads
from rows import Goal, Row, at_least, at_most
from steps import make_model, random_tokens
from timing import Effort, Spread

from qiskit_qattn import GPT
from qiskit_qattn.backends.counting import CountingEstimator
from qiskit_qattn.backends.gradients import SPSA, Gradient, ParameterShift, Simulated
from qiskit_qattn.backends.registry import Backend
from qiskit_qattn.simulation.estimator import TorchEstimator
from qiskit_qattn.training.config import TrainConfig, resolve

_PRECISION = 1 / 64  # Qiskit ML's default, 4,096 shots
_AGAINST = "Qiskit ML EstimatorQNN, TorchConnector"
_NOTE = (
    "Counted, forward + backward, by the same wrapper around the same sampling estimator. An executed circuit is one "
    "with one set of parameters, measured in one basis. The same model with exact values was compared first: losses "
    "agree to 1e-5, and the gradients of a layer's heads on two tokens to 1e-4."
)
_QUANTITIES: dict[str, Goal | None] = {"circuits executed": at_least(8), "PUBs": None, "jobs": None, "shots": None}
_CHEAPER: dict[str, Gradient] = {"spsa": SPSA(), "simulated": Simulated()}
Move = Callable[[GPT, BaseEstimatorV2, float], None]


def measure(effort: Effort) -> Iterator[Row]:
    config = resolve({}, preset="gpt-nano")
    _check_agreement(config)
    ours, theirs = _count(config, _ours(ParameterShift())), _count(config, _theirs)
    for quantity, goal in _QUANTITIES.items():
        yield _row(quantity, ours, theirs, goal)
    for name, gradient in _CHEAPER.items():
        counts = _count(config, _ours(gradient))
        yield _row("circuits executed", counts, theirs, suffix=f", gradient={name}")
    layers = make_model(config, str(config.model.heads)).config.n_layer
    a_layer = {who: max(counts["jobs"]) / layers for who, counts in (("ours", ours), ("theirs", theirs))}
    yield Row(
        "gpt-nano, training step, jobs per layer and pass",
        _AGAINST,
        f"{a_layer['ours']:g}",
        f"{a_layer['theirs']:g}",
        Spread(*[a_layer["ours"]] * 3),
        at_most(1),
        _NOTE,
        unit="",
    )


def _row(
    quantity: str,
    ours: dict[str, list[int]],
    theirs: dict[str, list[int]],
    goal: Goal | None = None,
    suffix: str = "",
) -> Row:
    mine, other = ours[quantity], theirs[quantity]
    texts = (" + ".join(f"{count:,}" for count in counts) for counts in (mine, other))
    ratio = sum(other) / sum(mine)
    case = f"gpt-nano, training step, {quantity}{suffix}"
    return Row(case, _AGAINST, *texts, Spread(ratio, ratio, ratio), goal, _NOTE)


def _ours(gradient: Gradient) -> Move:
    """Return what moves a model's heads to an estimator."""

    def move(model: GPT, estimator: BaseEstimatorV2, precision: float) -> None:
        model.to_backend(Backend("counted", estimator, precision=precision, gradient=gradient))

    return move


def _theirs(model: GPT, estimator: BaseEstimatorV2, precision: float) -> None:
    """Put Qiskit ML's networks and connectors in the place of a model's heads."""
    for layer, kind, heads in model.quantum_heads():
        model.attention_layers()[layer].maps[kind] = ConnectorHeads(heads, estimator, precision)


def _count(config: TrainConfig, move: Move) -> dict[str, list[int]]:
    """Return each quantity of a forward and of a backward pass."""
    counting = CountingEstimator(estimator=TorchEstimator(seed=0), default_precision=_PRECISION)
    model = make_model(config, str(config.model.heads))
    move(model, counting, _PRECISION)
    _, loss = model(*random_tokens(config))
    seen = [_totals(counting)]
    loss.backward()
    seen.append(_totals(counting))
    return {quantity: [before, after - before] for quantity, before, after in zip(_QUANTITIES, *seen, strict=True)}


def _totals(counting: CountingEstimator) -> tuple[int, int, int, int]:
    total = counting.total
    return total.circuits, sum(map(len, counting.pubs)), total.jobs, total.shots


def _check_agreement(config: TrainConfig) -> None:
    """Compare the losses of both with exact values, and the gradients of one layer's heads on two tokens."""
    exact, losses = TorchEstimator(), []
    for move in (_ours(ParameterShift()), _theirs):
        model = make_model(config, str(config.model.heads))
        move(model, exact, 0.0)
        with torch.no_grad():
            losses.append(model(*random_tokens(config))[1])
    torch.testing.assert_close(*losses, rtol=0, atol=1e-5)
    heads = make_model(config, str(config.model.heads)).quantum_heads()[0][2]
    x = torch.randn(len(heads.weight), 2, heads.num_features)
    slope = torch.randn(len(x), 2, len(heads.circuit.labels))
    peer = ConnectorHeads(heads, exact, 0.0)
    heads.to_backend(Backend("exact", exact))
    x.requires_grad_()
    ours = torch.autograd.grad(heads(x), (x, heads.gain, heads.weight), slope)
    weights = [connector.weight for connector in peer.connectors]
    of_x, of_gain, *of_weights = torch.autograd.grad(peer(x), (x, peer.gain, *weights), slope)
    torch.testing.assert_close(ours, (of_x, of_gain, torch.stack(of_weights)), rtol=1e-4, atol=1e-5)
