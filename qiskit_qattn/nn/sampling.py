"""Sampled attention: the string that asks for it, and the module that mixes values by drawn keys."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal, Self, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qiskit_qattn.backends.spec import BackendSpec
from qiskit_qattn.errors import ConfigError, unknown_name
from qiskit_qattn.library.ansatzes import MAX_QUBITS
from qiskit_qattn.nn import draws
from qiskit_qattn.nn.amplitude_sampling import AmplitudeSampler
from qiskit_qattn.nn.draws import Draw, pilot_counts, random_words
from qiskit_qattn.nn.estimates import Gradient, estimate, estimated_variance, frequency_variance, taken
from qiskit_qattn.nn.head_kind import HeadKind
from qiskit_qattn.untrusted import shown

Strategy = Literal["naive", "stratified", "systematic", "hybrid", "adaptive", "amplitude"]
OPTIONS = {
    "samples": "keys drawn for each row, 32 by default; 8..64 doubles them from 8 to 64 within the steps of steps=",
    "steps": "training steps over which the samples of a schedule are doubled",
    "top": "hybrid: how many of the samples are the likeliest keys, each with its own weight; a quarter by default",
    "pilot": "adaptive: samples of each row that choose its number and are not reported, such as 8; without it the"
    " entropy of the weights chooses",
    "control": "keys of a block whose mean value is the control variate, such as 16",
    "qubits": "amplitude: of the circuits, for rows of up to 2^qubits keys; 6 by default",
    "gradient": "of the weights: score, the score function's, from the drawn keys, or exact, that of exact attention",
    "seed": "seed of the random numbers, 0 by default",
}
_OWNERS = {"top": "hybrid", "pilot": "adaptive", "qubits": "amplitude"}  # options of one strategy alone
_QUBITS = 6
_BASELINE = 8  # independent samples whose mean is the baseline of the score function
_GATHERED = 8  # times as many keys as samples: from there it is faster to read the drawn values alone
_MOST = 2**20  # samples of a row


class _SamplingSpec(BackendSpec):
    """A parsed sampling string, ``strategy[?key=value&…]``."""

    noun: ClassVar[str] = "sampling"
    example: ClassVar[str] = "stratified?samples=32"


@dataclass(frozen=True)
class Scheme:
    """How attention is sampled.

    Attributes:
        text: The normal form of the string that asks for it.
        strategy: How keys are drawn: a function of :mod:`qiskit_qattn.nn.draws`, or ``amplitude``, by measuring
            circuits.
        samples: Keys drawn for each row, S; with a schedule, at its start.
        last: Keys drawn for each row at the end of the schedule.
        steps: Training steps of the schedule; 0 without one.
        top: The number of exact keys of ``hybrid``.
        pilot: The number of samples by which ``adaptive`` chooses each row's number; 0 to choose by entropy.
        control: Keys per block of the control variate, or None.
        qubits: Qubits of the circuits of ``amplitude``; 0 for the others.
        gradient: How gradients of the weights are estimated.
        seed: Seed of the random numbers.
    """

    text: str
    strategy: Strategy
    samples: int
    last: int
    steps: int
    top: int
    pilot: int
    control: int | None
    qubits: int
    gradient: Gradient
    seed: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a string such as ``stratified?samples=32``.

        Raises:
            UnknownNameError: For another strategy or option.
            ConfigError: For a string of another form, or a value that cannot be.
        """
        if not isinstance(text, str):
            raise ConfigError(f"sampling must be a string such as 'stratified?samples=32', or None; got {shown(text)}.")
        spec = _SamplingSpec.parse(text)
        if spec.name not in get_args(Strategy):
            raise unknown_name("sampling", spec.name, get_args(Strategy))
        spec.check_options(OPTIONS)
        samples, last = _samples(spec)
        steps = spec.integer("steps", minimum=1)
        if (steps is None) != (samples == last):
            raise ConfigError(f"A schedule has samples=8..64 and steps=1000, say, but {text!r} has only one of them.")
        gradient = spec.options.get("gradient", "score")
        if gradient not in get_args(Gradient):
            raise unknown_name("gradient of sampling", gradient, get_args(Gradient))
        for name, owner in _OWNERS.items():
            if name in spec.options and spec.name != owner:
                raise ConfigError(
                    f"Sampling option {name} is for {owner}, but the strategy of {text!r} is {spec.name}."
                )
        top = spec.integer("top", minimum=1)
        top = max(1, samples // 4) if top is None and spec.name == "hybrid" else top or 0
        if top >= samples:
            raise ConfigError(f"Of the samples of {text!r}, {samples}, more than top={top} must be drawn.")
        control = spec.integer("control", minimum=2)
        if control is not None and spec.name == "amplitude":
            raise ConfigError(f"Sampling option control is not for amplitude, but {text!r} has it.")
        qubits = spec.integer("qubits", minimum=1, maximum=MAX_QUBITS)
        qubits = _QUBITS if qubits is None and spec.name == "amplitude" else qubits or 0
        return cls(
            str(spec),
            cast(Strategy, spec.name),
            samples,
            last,
            steps or 0,
            top,
            spec.integer("pilot", minimum=2, maximum=_MOST) or 0,
            control,
            qubits,
            cast(Gradient, gradient),
            spec.integer("seed", minimum=0, maximum=2**32 - 1) or 0,
        )

    def samples_at(self, step: int) -> int:
        """Return S in a training step: of a schedule, doubled at equal intervals, so that there are few sizes."""
        if not self.steps or step >= self.steps:
            return self.last
        doublings = max(1, (self.last // self.samples).bit_length())
        return min(self.last, self.samples << (step * doublings // self.steps))

    def draw(self, p: Tensor, words: Tensor, counts: Tensor | None = None) -> Draw:
        """Return S keys of each row, by random words, both ``(B, H, L, ·)``; of ``adaptive``, counts of them."""
        if self.strategy == "hybrid":
            return draws.hybrid(p, words[..., self.top :], self.top)
        if self.strategy == "adaptive":
            counts = draws.entropy_counts(p, words.shape[-1]) if counts is None else counts
            return draws.stratified(p, words, counts)
        if self.strategy == "stratified":
            return draws.stratified(p, words)
        return draws.systematic(p, words) if self.strategy == "systematic" else draws.naive(p, words)


def _samples(spec: BackendSpec) -> tuple[int, int]:
    """Return the samples at first and at last."""
    text = spec.options.get("samples", "32")
    match = re.fullmatch(r"(\d{1,7})(?:\.\.(\d{1,7}))?", text)
    found = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= found[0] <= found[1] <= _MOST:
        raise ConfigError(
            f"Sampling option samples must be a whole number from 1 to {_MOST}, or two such as 8..64, got {text!r}."
        )
    return found


class SampledMean(nn.Module):
    r"""Estimates :math:`\sum_j p_j v_j` from keys drawn by p.

    The random numbers of a row are a function of the seed, the step, the layer, the head and the row alone: the other
    rows, their order and the length of a sequence do not count. In training the step is a random number of torch's
    generator, as dropout's are, so that ``torch.manual_seed`` and checkpoints repeat it; in evaluation it is 0.

    Args:
        scheme: How keys are drawn.

    Attributes:
        layer: The number of its layer in the model: each has random numbers of its own.
        samples: S, as of the training step that :func:`set_sampling_step` was told last.
        circuits: Measures the circuits of ``amplitude`` once it is moved to a backend with shots or noise. Until then
            outcomes are drawn as ``naive`` draws them, from the same distribution.
        watch: Called with each draw, weights, values and estimate, where it is not None.
    """

    def __init__(self, scheme: Scheme) -> None:
        super().__init__()
        self.scheme = scheme
        self.layer = 0
        self.samples: int | None = None if scheme.steps else scheme.last
        self.watch: Callable[[Draw, Tensor, Tensor, Tensor], None] | None = None
        self.circuits = AmplitudeSampler(scheme.qubits) if scheme.strategy == "amplitude" else None

    def extra_repr(self) -> str:
        """Return the scheme, for ``print(model)``."""
        return f"{self.scheme.text!r}, layer={self.layer}"

    def forward(
        self, p: Tensor, v: Tensor, rows: Tensor | None = None, first_head: int = 0, dropout: float = 0.0
    ) -> Tensor:
        """Return an estimate, shape ``(B, H, L, h)``.

        Args:
            p: Weights of exact attention, shape ``(B, H, L, T)``.
            v: Values, shape ``(B, H, T, h)``.
            rows: A number of each row, its position and what else tells it apart, shape ``(B or 1, L)``; None counts
                so that the last row has that of the last key.
            first_head: The number of the first head.
            dropout: Probability of dropping a sample.

        Raises:
            ConfigError: In training with a schedule, before :func:`set_sampling_step`.
        """
        scheme, samples = self.scheme, self.scheme.last
        step: Tensor | int = 0
        if self.training:
            if self.samples is None:
                raise ConfigError(
                    f"The samples of {scheme.text!r} depend on the training step: call "
                    f"qiskit_qattn.set_sampling_step(model, step) before each."
                )
            samples = self.samples
            step = torch.randint(2**32, (), device=p.device)
        if rows is None:
            rows = torch.arange(p.shape[-1] - p.shape[-2], p.shape[-1])[None]
        rows = rows.to(p.device)
        if self.circuits is not None and self.circuits.moved:
            draw = self.circuits.draw(p)
        else:
            counts = None
            if scheme.pilot:
                pilot = draws.naive(p, self._words(scheme.pilot, p, rows, first_head, step, stream=2))
                counts = pilot_counts(taken(v, pilot.indices).masked_fill(pilot.weights[..., None] == 0, 0.0), samples)
            draw = scheme.draw(p, self._words(samples, p, rows, first_head, step, stream=0), counts)
        baseline = None
        if scheme.gradient == "score" and scheme.control is None and p.requires_grad:
            apart = draws.naive(p, self._words(_BASELINE, p, rows, first_head, step, stream=1))
            baseline = estimate(p.detach(), v.detach(), apart)
        if dropout:
            draw = draw._replace(weights=F.dropout(draw.weights, dropout))
        y = estimate(
            p,
            v,
            draw,
            gradient=scheme.gradient,
            baseline=baseline,
            control=scheme.control,
            gather=not torch.is_grad_enabled() and p.shape[-1] >= _GATHERED * draw.indices.shape[-1],
        )
        if self.watch is not None:
            self.watch(draw, p, v, y)
        return y

    def estimated_variance(self, draw: Draw, p: Tensor, v: Tensor) -> Tensor | None:
        """Return an estimate of the variance, shape ``(B, H, L)``; None where there is none."""
        if self.circuits is not None and self.circuits.moved:
            return None if draw.counts is None else frequency_variance(draw, v, draw.counts[..., 0])
        return None if self.scheme.strategy == "systematic" else estimated_variance(draw, v, self.scheme.control, p)

    def _words(
        self, count: int, p: Tensor, rows: Tensor, first_head: int, step: Tensor | int, *, stream: int
    ) -> Tensor:
        heads = torch.arange(first_head, first_head + p.shape[1], device=p.device) + (self.layer << 16)
        return random_words(count, rows, heads, seed=self.scheme.seed, step=step, stream=stream)


def sampled_mean(sampling: str | None, kinds: Iterable[HeadKind]) -> SampledMean | None:
    """Return the module that a sampling string asks for, or None.

    Raises:
        UnknownNameError, ConfigError: As :meth:`Scheme.parse`, and for a kind without weights that are probabilities.
    """
    if sampling is None:
        return None
    for kind in kinds:
        if kind.mixer is not None or kind.score == "complex":
            raise ConfigError(
                f"{kind.name} heads have no probabilities of keys, so that {sampling!r} has none to draw."
            )
    return SampledMean(Scheme.parse(sampling))


def places(steps: int, keys: int, mask: Tensor | None, *, causal: bool) -> Tensor | None:
    """Return the place of each query in its sequence, not counting padding on the left, shape ``(B or 1, L)``.

    Args:
        steps: L.
        keys: S, of which there may be more than queries, for tokens in a cache.
        mask: Which keys each query sees, or what is added, shape ``(B or 1, H or 1, L, S)``.
        causal: Whether the last key that a query sees is its own.
    """
    if mask is None:
        return None if causal else torch.arange(steps)[None]
    seen = (mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min)[:, 0]  # (B or 1, L, S)
    first = seen.any(1).long().argmax(-1, keepdim=True)
    if not causal:
        return torch.arange(steps, device=mask.device) - first
    return keys - 1 - seen.flip(-1).long().argmax(-1) - first


def number_layers(model: nn.Module) -> None:
    """Number the sampled attention of a model, so that each layer has random numbers of its own."""
    found = [module for module in model.modules() if isinstance(module, SampledMean)]
    for layer, module in enumerate(found):
        module.layer = layer


def set_sampling_step(model: nn.Module, step: int) -> None:
    """Tell the sampled attention of a model, where there is any, the training step that a schedule of samples is at."""
    for module in model.modules():
        if isinstance(module, SampledMean):
            module.samples = module.scheme.samples_at(step)
