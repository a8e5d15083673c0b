r"""Whether a model depends on future tokens: a certificate of causality.

A model of sequences is causal if its output at position s depends only on tokens 0 … s. :func:`leakage` tests this in
two ways, for any model of token ids or of vectors: it edits later tokens, and it differentiates earlier outputs with
respect to the vectors of later tokens. Both must give exactly zero.

Why exactly: x and its edit pass through the model in batches of the same shape, so every matrix product does the same
sums in the same order, and whatever does not depend on the edited token is equal to the last bit; a weight that is
masked before a softmax is exactly zero, and so is its gradient. There are two exceptions. Models that mix all positions
in one sum and rely on cancellation, such as a convolution by Fourier transform, leak by rounding, about 1e-7 of their
logits in float32, and pass with a ``tolerance`` of that size. And the outputs of some models vary from call to call,
such as those of circuits sampled with shots: there the effect of an edit is compared with that variation, and the
gradients, which are still exactly zero, decide.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import nn

from qiskit_qattn.errors import ConfigError
from qiskit_qattn.evaluation.gradient_leakage import (
    COSTS_CIRCUITS,
    NO_MODULE,
    NOT_WANTED,
    gradient_leaks,
    gradients_cost_circuits,
)
from qiskit_qattn.nn.inference import evaluating
from qiskit_qattn.untrusted import shown

_SHOWN = 5  # worst pairs
_NOISE_FACTOR = 10.0  # the largest of many changes exceeds the variation of a single pass
Pair = tuple[int, int, float]


class Leakage(float):
    """The largest absolute change that an edit of a later token made to an earlier output: a number, and a certificate.

    Attributes:
        verdict: ``passed``, ``failed`` or ``undecided``.
        passed: Whether the verdict is ``passed``.
        edited: The position of the token whose edit made that change; None if nothing changed.
        changed: The earlier position whose output changed most.
        edits: Number of edits.
        worst: The largest changes, at most five, as (edited position, changed position, size).
        gradient: The largest derivative of an earlier output with respect to a later token's vector; None where
            gradients are not applicable.
        worst_gradients: The largest derivatives, likewise.
        skipped: Why there is no gradient; empty if there is one.
        noise: The largest change without an edit: of an unedited sequence, in a batch with edited ones.
        tolerance: The largest change and derivative that pass.
    """

    edits: int
    worst: tuple[Pair, ...]
    gradient: float | None
    worst_gradients: tuple[Pair, ...]
    skipped: str
    noise: float
    tolerance: float

    def __new__(
        cls,
        value: float,
        *,
        edits: int = 0,
        worst: tuple[Pair, ...] = (),
        gradient: float | None = None,
        worst_gradients: tuple[Pair, ...] = (),
        skipped: str = "",
        noise: float = 0.0,
        tolerance: float = 0.0,
    ) -> Leakage:
        """Return ``value`` with its attributes."""
        self = super().__new__(cls, value)
        self.edits, self.worst, self.noise, self.tolerance = edits, worst, noise, tolerance
        self.gradient, self.worst_gradients, self.skipped = gradient, worst_gradients, skipped
        return self

    def __getnewargs_ex__(self) -> tuple[tuple[float], dict[str, Any]]:
        """Support copying and pickling."""
        return (float(self),), dict(self.__dict__)

    @property
    def edited(self) -> int | None:
        """The position of the token whose edit made the largest change."""
        return self.worst[0][0] if self.worst else None

    @property
    def changed(self) -> int | None:
        """The earlier position whose output changed most."""
        return self.worst[0][1] if self.worst else None

    @property
    def verdict(self) -> Literal["passed", "failed", "undecided"]:
        """Whether the model is causal; undecided if its outputs vary without an edit and there are no gradients."""
        within = self <= max(self.tolerance, _NOISE_FACTOR * self.noise)  # false for NaN
        if not within or not (self.gradient is None or self.gradient <= self.tolerance):
            return "failed"
        return "undecided" if self.gradient is None and max(self, self.noise) > self.tolerance else "passed"

    @property
    def passed(self) -> bool:
        """Whether the model is certified as causal."""
        return self.verdict == "passed"

    def summary(self) -> str:
        """Return the certificate in words."""
        edits = f"largest change of an earlier output {_number(self)} in {self.edits} edits{_pairs(self.worst)}"
        gradients = f"not applicable: {self.skipped}"
        if self.gradient is not None:
            gradients = f"largest of an earlier output by a later token {_number(self.gradient)}"
            gradients += _pairs(self.worst_gradients)
        lines = [f"causality: {self.verdict}", f"  edits: {edits}", f"  gradients: {gradients}"]
        if self.noise:
            lines.append(
                f"  noise: outputs vary by {self.noise:.1e} without an edit, so edits cannot show smaller changes"
            )
        if self.tolerance:
            lines.append(f"  tolerance: {self.tolerance:.1e}")
        return "\n".join(lines)

    __str__ = summary


def leakage(
    model: Callable[[torch.Tensor], Any],
    vocab_size: int | None = None,
    block_size: int | None = None,
    *,
    width: int | None = None,
    edits: int = 4,
    seed: int = 0,
    tolerance: float = 0.0,
    gradients: bool | None = None,
) -> Leakage:
    r"""Return max over t, s < t, x of :math:`|f(x)_s - f(x')_s|`, where x' is x with another token at t, and more.

    Each position t = 1 … T - 1 is edited in several random sequences. If the model takes vectors, or is a module whose
    ``nn.Embedding`` receives the token ids, the outputs f(x)_s of one sequence are also differentiated with respect to
    the vectors at t > s. That takes T backward passes.

    A module that needs more arguments is given with them, here an encoder of width 64 with a causal mask::

        qa.leakage(functools.partial(encoder, mask=mask, is_causal=True), block_size=16, width=64)

    Args:
        model: Any callable from token ids (B, T), or with ``width`` from vectors (B, T, width), to logits (B, T, …), or
            to a tuple, mapping or object (``.logits``) that contains them. A module, its methods too,
            also in a ``functools.partial``, is run in evaluation mode; afterwards its modes are restored.
        vocab_size: Number of tokens; by default ``model.config.vocab_size``. Not for vectors.
        block_size: Length T; by default ``model.config.block_size``.
        width: Length of the input's vectors, for a model that takes vectors; they are drawn from the standard normal
            distribution, in the dtype of the model's parameters.
        edits: Number of random sequences that are edited at each position.
        seed: Seed of the sequences and the edits; global generators are not changed.
        tolerance: The largest change and derivative that pass, for models that mix positions by rounding.
        gradients: Whether to differentiate; None differentiates modules, unless that would run circuits.

    Returns:
        The largest change as a float (NaN if an output is NaN) with ``passed``, ``gradient``, ``worst`` and
        ``summary()``.

    Raises:
        ConfigError: If a size is missing or too small, if both ``vocab_size`` and ``width`` are given, if the output
            has no logits for every position, or if outputs of a sequence have gradients to other sequences of a batch,
            as in torch's layers without ``batch_first=True``.
    """
    if not callable(model):
        raise ConfigError(f"leakage() takes a model, any callable from token ids to logits; got {shown(model)}.")
    module = _module(model)
    if width is not None and vocab_size is not None:
        raise ConfigError(f"vocab_size={vocab_size} is for token ids, width={width} for vectors; give one of them.")
    vocabulary = _size(module, "vocab_size", vocab_size, least=2) if width is None else None
    length = _size(module, "block_size", block_size, least=1)
    if edits < 1:
        raise ConfigError(f"edits is {edits}, but must be at least 1.")
    if not tolerance >= 0:
        raise ConfigError(f"tolerance is {tolerance}, but must be at least 0.")
    generator = torch.Generator().manual_seed(seed)
    device = torch.device("cpu") if module is None else next(module.parameters(), torch.empty(0)).device

    def logits(inputs: torch.Tensor) -> torch.Tensor:
        return _logits(model(inputs.to(device)), inputs).to("cpu", torch.float64)

    def edited(x: torch.Tensor, rows: slice, columns: int | slice) -> torch.Tensor:
        found = x.clone()
        found[rows, columns] = _others(x[rows, columns], vocabulary, generator)
        return found

    if vocabulary is None:
        size = (edits, length, _size(None, "width", width, least=1))
        x = torch.randn(size, generator=generator).to(_dtype(module))  # (B, T, d)
    else:
        x = torch.randint(vocabulary, (edits, length), generator=generator)  # (B, T)
    changes = torch.zeros(length, length, dtype=torch.float64)  # by edited and changed position
    with evaluating(module):
        with torch.no_grad():
            before = logits(x)  # (B, T, ...)
            several = x if edits > 1 else torch.cat([x, edited(x, slice(None), slice(None))])
            unedited = before if edits > 1 else logits(several)
            noise = _change(unedited, logits(edited(several, slice(1, None), slice(None))))[0].max()  # of the first
            for t in range(1, length):
                after = logits(edited(x, slice(None), t))  # (B, T, ...)
                changes[t, :t] = _change(before, after)[:, :t].transpose(0, 1).flatten(1).amax(1)
        derivatives: torch.Tensor | str
        if gradients is False:
            derivatives = NOT_WANTED
        elif gradients is None and (module is None or gradients_cost_circuits(module)):
            derivatives = NO_MODULE if module is None else COSTS_CIRCUITS
        else:
            # One will do where others change nothing.
            sequences = (several[:2] if noise > 0 else x[:1]).to(device)
            derivatives = gradient_leaks(model, module, sequences, lambda output: _logits(output, sequences), generator)
    found = derivatives if isinstance(derivatives, torch.Tensor) else None
    return Leakage(
        float(changes.max()),
        edits=edits * (length - 1),
        worst=_worst(changes),
        gradient=None if found is None else float(found.max()),
        worst_gradients=() if found is None else _worst(found),
        skipped=derivatives if isinstance(derivatives, str) else "",
        noise=float(noise),
        tolerance=tolerance,
    )


def _module(model: Any) -> nn.Module | None:
    """Return the module that a model is, or whose method it is, or a partial of either; None where there is none."""
    while isinstance(model, functools.partial):
        model = model.func
    model = getattr(model, "__self__", model)
    return model if isinstance(model, nn.Module) else None


def _dtype(module: nn.Module | None) -> torch.dtype:
    """Return the type of a module's first real parameter."""
    parameters = () if module is None else module.parameters()
    return next((each.dtype for each in parameters if each.is_floating_point()), torch.get_default_dtype())


def _others(x: torch.Tensor, vocabulary: int | None, generator: torch.Generator) -> torch.Tensor:
    """Return different tokens, or where there is no vocabulary different vectors, of the same shape."""
    if vocabulary is None:
        return torch.randn(x.shape, generator=generator).to(x)
    return (x + torch.randint(1, vocabulary, x.shape, generator=generator)) % vocabulary


def _change(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """Return absolute differences; that of equal infinities, as of excluded tokens, is 0."""
    return (after - before).abs().masked_fill(after == before, 0.0)


def _worst(sizes: torch.Tensor) -> tuple[Pair, ...]:
    """Return the largest nonzero entries of a matrix by edited and changed position."""
    values, places = sizes.flatten().topk(min(_SHOWN, sizes.numel()))  # NaN counts as the largest
    pairs = zip(places.tolist(), values.tolist(), strict=True)
    return tuple((place // len(sizes), place % len(sizes), value) for place, value in pairs if value != 0)


def _number(value: float) -> str:
    return "exactly 0" if value == 0 else f"{value:.1e}"


def _pairs(pairs: tuple[Pair, ...]) -> str:
    """Return the pairs as ``token 5 → output 2: 3.1e-01, …``."""
    listed = ", ".join(f"token {edited} → output {changed}: {size:.1e}" for edited, changed, size in pairs)
    return f" ({listed})" if listed else ""


def _size(model: Any, name: str, given: int | None, *, least: int) -> int:
    """Return a size as given, or from the model's configuration."""
    size = given if given is not None else getattr(getattr(model, "config", None), name, None)
    if given is not None and not isinstance(given, int):
        raise ConfigError(f"{name} must be an integer, got {shown(given)}.")
    if not isinstance(size, int):
        vectors = ", or width for a model that takes vectors" if name == "vocab_size" else ""
        raise ConfigError(f"The model has no config.{name}; give {name} to leakage(){vectors}.")
    if size < least:
        raise ConfigError(f"{name} is {size}, but must be at least {least}.")
    return size


def _logits(output: Any, x: torch.Tensor) -> torch.Tensor:
    """Return the logits, a tensor of shape (B, T, ...), in a model's output for the tokens or vectors ``x``."""
    if isinstance(output, Mapping):
        candidates = [output.get("logits")]
    elif isinstance(output, tuple | list):
        candidates = list(output)
    else:
        candidates = [getattr(output, "logits", output)]
    tensors = [item for item in candidates if isinstance(item, torch.Tensor)]
    for item in tensors:
        if item.dim() >= 3 and item.shape[:2] == x.shape[:2]:
            return item  # (B, T, ...)
    shapes = ", ".join(str(tuple(item.shape)) for item in tensors) or "no tensor"
    last = "vocabulary" if x.dim() == 2 else "…"
    raise ConfigError(f"Expected outputs of shape ({x.shape[0]}, {x.shape[1]}, {last}); the model gave {shapes}.")
