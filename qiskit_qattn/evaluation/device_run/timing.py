"""How long a generation that is compared with the exact engine will take."""

from __future__ import annotations

import time
from collections.abc import Iterable
from statistics import median
from typing import Any

import torch
from torch import Tensor

from qiskit_qattn.backends.measurement import shots_of
from qiskit_qattn.backends.place import Place
from qiskit_qattn.evaluation.device_run.trace import sampled_steps
from qiskit_qattn.nn.generation import steps
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.training.pace import is_timed, waits_in_queue

_TIMED = 4  # tokens


def token_seconds(model: GPT, prompt: Tensor, tokens: int, place: Place, **options: Any) -> list[float] | None:
    """Return how long the tokens take, and their comparison, from a few of them that are thrown away, in seconds.

    It is empty for few tokens, and for a chain, a group or a simulator that gets jobs: the generation itself shows it.

    Args:
        model: The model.
        prompt: Tokens, shape ``(1, P)``.
        tokens: How many are generated.
        place: Where the circuits run.
        options: As for :func:`~qiskit_qattn.evaluation.device_run.trace.traced`.

    Returns:
        None on a device, since its queue decides.
    """
    if waits_in_queue(place):
        return None
    link = place.single
    if link is None or not is_timed(place) or tokens <= 2 * _TIMED:
        return []
    with Place.open(place.name) as other, model.to_backend(other):  # its random numbers are its own
        found = [_whole(steps(model, prompt, _TIMED, **options), tokens)]
    if link.precision > 0:
        forced = torch.zeros(1, _TIMED, dtype=torch.long)
        shots = link.shots or shots_of(link.precision)
        with sampled_steps(model, prompt, forced, shots=shots, seed=0) as comparison:
            found.append(_whole(comparison, tokens))
    return found


def _whole(some: Iterable[object], count: int) -> float:
    """Return how long ``count`` items will take, from the times of some."""
    times, last = [], time.perf_counter()
    for _ in some:
        times.append(time.perf_counter() - last)
        last = time.perf_counter()
    return times[0] + (count - 1) * median(times[1:])
