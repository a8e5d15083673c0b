"""QASA's forecast of a chaotic map: a constant is closer to it than the quantum and the classical model are."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from qiskit_qattn.errors import ConfigError
from qiskit_qattn.evaluation.gradient_leakage import gradient_leaks
from qiskit_qattn.evaluation.rendering import write_json
from qiskit_qattn.evaluation.reproduction.runs import Options, Reproduction, shortened_note
from qiskit_qattn.library.catalog import attention_circuit
from qiskit_qattn.nn.connector import TorchConnector
from qiskit_qattn.training.pace import TIMED, WARM, measured
from qiskit_qattn.training.progress import Progress
from qiskit_qattn.untrusted import read_json

Kind = Literal["classical", "bottleneck", "qasa"]
WIDTH, HEADS, LAYERS, DATA_QUBITS, WINDOW = 64, 4, 4, 8, 20
EPOCHS, POINTS, TRAINED_ON = 200, 500, 400
STEPS = EPOCHS * (TRAINED_ON - WINDOW + 1)


@dataclass(frozen=True)
class Published:
    """Figures of the paper, means over five seeds; seconds are of its machine."""

    mae: float
    mse: float
    parameters: int
    seconds: float | None = None


PUBLISHED: dict[Kind, tuple[str, Published]] = {
    "classical": ("classical", Published(0.3729, 0.2044, 200_257, 1.4)),
    "bottleneck": ("classical bottleneck", Published(0.3742, 0.2072, 201_409)),
    "qasa": ("QASA", Published(0.3406, 0.1824, 201_405, 40.4)),
}


def logistic_map(points: int = POINTS, rate: float = 3.9, start: float = 0.2) -> Tensor:
    """Return x_0 = ``start`` and x_{t+1} = r x_t (1 - x_t) in float32, shape ``(points,)``."""
    values = [start]
    for _ in range(points - 1):
        values.append(rate * values[-1] * (1 - values[-1]))
    return torch.tensor(np.array(values, dtype=np.float32))


class Bottleneck(nn.Module):
    """tanh(V U x + b) of rank 2 in the place of the circuit, with 40 weights."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow, self.wide = nn.Linear(DATA_QUBITS, 2, bias=False), nn.Linear(2, DATA_QUBITS)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., 8)`` to the same shape."""
        return torch.tanh(self.wide(self.narrow(x)))


def circuit_values() -> nn.Module:
    """Return the expectations of QASA's circuit; angles start uniformly in [0, 2π), as in its code."""
    network = attention_circuit("qasa", DATA_QUBITS + 1, num_observables=DATA_QUBITS).qnn()
    return TorchConnector(network, 2 * math.pi * torch.rand(network.num_weights).numpy())


class LastLayer(nn.Module):
    r"""The encoder layer that holds the circuit f, after its attention and beside the residual path.

    .. math:: h = \mathrm{LN}(x + \mathrm{MHA}(x)), \quad v = h + W_o f(\mathrm{LN}(\tanh W_i h) + T), \quad
              y = \mathrm{LN}(v + \mathrm{FFN}(v))
    """

    def __init__(self, values: nn.Module) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.into, self.norm, self.values = nn.Linear(WIDTH, DATA_QUBITS), nn.LayerNorm(DATA_QUBITS), values
        self.out = nn.Linear(DATA_QUBITS, WIDTH)
        self.feed_forward = nn.Sequential(
            nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Dropout(0.1), nn.Linear(4 * WIDTH, WIDTH), nn.Dropout(0.1)
        )
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        for layer in (self.into, self.out):
            _kaiming(layer)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, T, d)`` to the same shape."""
        h = self.norm1(x + self.attention(x, x, x, need_weights=False)[0])
        angles = self.norm(torch.tanh(self.into(h))) + x.shape[1]  # (B, T, m)
        v = h + self.out(self.values(angles))
        return self.norm2(v + self.feed_forward(v))


class Forecaster(nn.Module):
    """The published transformer of four layers: from values ``(B, T, 1)`` to those one step later, at all positions."""

    positions: Tensor

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.embedding = nn.Sequential(nn.Linear(1, WIDTH), nn.LayerNorm(WIDTH), nn.Dropout(0.1))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, 0.1, batch_first=True) for _ in range(LAYERS - 1)
        )
        if kind == "classical":
            self.layers.append(nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, 0.1, batch_first=True))
        else:
            self.layers.append(LastLayer(circuit_values() if kind == "qasa" else Bottleneck()))
        self.output = nn.Linear(WIDTH, 1)
        if kind != "classical":
            _kaiming(self.embedding[0])
            _kaiming(self.output)
        waves = torch.arange(WINDOW)[:, None] * torch.exp(torch.arange(0, WIDTH, 2) * (-math.log(10000.0) / WIDTH))
        self.register_buffer("positions", torch.stack([waves.sin(), waves.cos()], -1).flatten(-2), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the forecast of each position."""
        x = self.embedding(x) + self.positions[: x.shape[1]]
        for layer in self.layers:
            x = layer(x)
        return self.output(x)


def run(options: Options, progress: Progress) -> Reproduction:
    """Train the three models on the chaotic map, and compare their forecasts with a constant."""
    series = logistic_map()
    steps = min(options.steps or STEPS, STEPS)
    waiting = [kind for kind in PUBLISHED if not _file(options, kind).is_file()]
    progress.forecast(lambda: _seconds(waiting, series, steps))
    progress.planned(len(waiting), 0.0)
    figures: dict[str, Any] = {kind: _trained(kind, series, steps, options, progress) for kind in PUBLISHED}
    truth, past = series[TRAINED_ON + 1 :], series[:TRAINED_ON]
    figures["constant"] = _errors(past.mean().expand_as(truth), truth)
    generator = torch.Generator().manual_seed(options.seed)
    draws = [past[torch.randint(len(past), truth.shape, generator=generator)] for _ in range(2000)]
    found = [_errors(draw, truth) for draw in draws]
    figures["random"] = {name: float(np.mean([each[name] for each in found])) for name in ("mae", "mse")}
    slower = figures["qasa"]["seconds"] / figures["classical"]["seconds"]
    rows = [
        [
            label,
            *(f"{each.mae:.4f}", f"{figures[kind]['mae']:.4f}", f"{each.mse:.4f}", f"{figures[kind]['mse']:.4f}"),
            *(f"{each.parameters:,}", f"{figures[kind]['parameters']:,}"),
            *("–" if each.seconds is None else f"{each.seconds:.1f}", f"{figures[kind]['seconds']:.1f}"),
        ]
        for kind, (label, each) in PUBLISHED.items()
    ]
    for kind, label in (("constant", "the training data's mean"), ("random", "random values of the past")):
        mae, mse = figures[kind]["mae"], figures[kind]["mse"]
        rows.append([label, "–", f"{mae:.4f}", "–", f"{mse:.4f}", *"––––"])
    return Reproduction(
        claim="qasa",
        title="A circuit as value projection forecasts a chaotic signal better than a classical transformer",
        source="QASA, arXiv 2504.05336, versions 3 and 4, and its code",
        head=[
            "Model",
            *("MAE, published", "ours", "MSE, published", "ours"),
            *("Parameters, published", "ours", "Seconds per epoch, published", "ours"),
        ],
        rows=rows,
        reasons=[
            "Each of 99 forecasts is fed back into the model. The map doubles an error about every step and a half, so"
            " after some 10 steps a model that fits the training data to 0.01 knows nothing of the state any more.",
            f"The mean of the training data has a mean absolute error of {figures['constant']['mae']:.4f}, and values"
            f" drawn at random from the past have {figures['random']['mae']:.4f}: the published errors of all models"
            " are those of forecasts that know nothing, and the differences between them are chance.",
            "The published evaluation compares each forecast with the value one step after the one it is of, and so"
            f" does ours. With the right one QASA's mean absolute error is {figures['qasa']['aligned_mae']:.4f}, the"
            f" classical model's {figures['classical']['aligned_mae']:.4f}.",
            "Attention is not masked, and the loss is over all positions of a window: all but the last have their"
            f" target in their input. A gradient of {figures['qasa']['leak']:.2g} from later inputs to earlier ones"
            " shows it, so the training loss says little about forecasts.",
            "The circuit is not the value projection of attention: in the code it follows attention, on a residual"
            " path beside it.",
            f"QASA takes {slower:.1f} times as long per epoch here, 29 times as published: its code runs the circuit"
            " token by token.",
            "One of the published circuit's 36 weights enters no gate; ours has 35. Ours are figures of one seed; the"
            " published ones are means of five.",
        ],
        figures=figures,
        settings={"steps": steps, "seed": options.seed, "threads": torch.get_num_threads()},
        shortened=shortened_note(options.steps, STEPS, "training steps"),
    )


def train(model: nn.Module, series: Tensor, steps: int, progress: Progress) -> float:
    """Train as published: window by window in order, keeping the epoch with the lowest loss; return seconds per epoch.

    Args:
        model: A :class:`Forecaster`.
        series: The values.
        steps: Optimizer steps, one per window.
        progress: Told of each step.
    """
    windows = series[: TRAINED_ON + 1].unfold(0, WINDOW + 1, 1).unsqueeze(-1)  # (N, T + 1, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    best, kept, total, begin = math.inf, model.state_dict(), 0.0, time.perf_counter()
    model.train()
    for step in range(steps):
        window = windows[step % len(windows)][None]  # (1, T + 1, 1)
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(window[:, :-1]), window[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        total += loss.item()
        rate = (step + 1) * WINDOW / (time.perf_counter() - begin)
        progress.step_done(step + 1, loss.item() if (step + 1) % 100 == 0 else None, rate)
        if (step + 1) % len(windows) == 0:
            schedule.step()
            if total < best:
                best, kept = total, {name: value.clone() for name, value in model.state_dict().items()}
            total = 0.0
    seconds = (time.perf_counter() - begin) * len(windows) / steps
    model.load_state_dict(kept)
    return seconds


@torch.no_grad()
def forecast(model: nn.Module, past: Tensor, count: int) -> Tensor:
    """Return ``count`` values after ``past``, shape ``(T,)``, each of which is fed back, shape ``(count,)``."""
    model.eval()
    values = past.clone()
    for _ in range(count):
        values = torch.cat([values, model(values[None, -len(past) :, None])[0, -1]])
    return values[len(past) :]


def _trained(kind: Kind, series: Tensor, steps: int, options: Options, progress: Progress) -> dict[str, Any]:
    """Return the figures of a model, trained now or by an earlier call of the same settings.

    Raises:
        ConfigError: If the folder holds a model of other settings.
    """
    path, settings = _file(options, kind), {"steps": steps, "seed": options.seed}
    if path.is_file():
        try:
            stored = read_json(path, dict[str, dict[str, float]])
            if stored["settings"] == settings:
                return stored["figures"]
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(f"{str(path)!r} cannot be read; give another --out.") from error
        raise ConfigError(f"{str(path)!r} is of other settings than {settings}; give another --out.")
    torch.manual_seed(options.seed)
    model = Forecaster(kind)
    progress.phase_started(kind, 0, steps)
    seconds = train(model, series, steps, progress)
    found = forecast(model, series[TRAINED_ON - WINDOW : TRAINED_ON], POINTS - TRAINED_ON - 1)  # of x_400 to x_498
    figures = {**_errors(found, series[TRAINED_ON + 1 :]), "parameters": sum(p.numel() for p in model.parameters())}
    figures |= {f"aligned_{name}": value for name, value in _errors(found, series[TRAINED_ON:-1]).items()}
    leaks = gradient_leaks(
        model, model, series[None, :WINDOW, None], lambda each: each, torch.Generator().manual_seed(options.seed)
    )
    assert isinstance(leaks, Tensor), "windows are vectors"
    figures |= {"leak": float(leaks.max()), "seconds": seconds}
    write_json(path, {"settings": settings, "figures": figures})
    progress.phase_finished(kind, figures["mse"], None)
    return figures


def _seconds(kinds: Sequence[Kind], series: Tensor, steps: int) -> list[float]:
    """Return how long the model of each kind will take, from a few steps of it; empty for few steps."""
    if steps <= WARM + TIMED:
        return []
    trainings = [partial(train, Forecaster(kind), series, steps) for kind in kinds]
    return [measured(training, whole=False).seconds(steps) for training in trainings]


def _file(options: Options, kind: Kind) -> Path:
    """Return the file of a model's figures."""
    return options.out / "runs" / f"{kind}.json"


def _errors(found: Tensor, truth: Tensor) -> dict[str, float]:
    """Return the mean absolute and the mean square error."""
    return {"mae": float((found - truth).abs().mean()), "mse": float((found - truth).square().mean())}


def _kaiming(layer: nn.Module) -> None:
    """Initialise a linear map as QASA's code does."""
    assert isinstance(layer, nn.Linear)
    nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)
