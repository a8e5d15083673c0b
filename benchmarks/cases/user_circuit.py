"""A user's own 4-qubit network, forward and backward, against Qiskit Machine Learning's connector."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from networks import user_network
from qiskit_machine_learning.connectors import TorchConnector
from rows import Row, at_least, duration
from steps import forward_backward
from timing import Effort, Spread, interleave

import qiskit_qattn as qa

_QUBITS = 4
_GOALS = {64: at_least(29_000), 1024: at_least(300_000)}


def measure(effort: Effort) -> Iterator[Row]:
    few, many = (2, 8) if effort.quick else (8, 32)  # samples for Qiskit ML, which takes them one by one
    rounds = Effort(min(effort.rounds, 5), effort.seconds)
    network = user_network(_QUBITS)
    torch.manual_seed(0)
    start = torch.rand(network.num_weights).numpy()
    ours, theirs = (connector(network, start) for connector in (qa.TorchConnector, TorchConnector))
    inputs = torch.randn(max(_GOALS), _QUBITS)
    check = inputs[:few]
    torch.testing.assert_close(ours(check), theirs(check).to(torch.float32), rtol=0, atol=1e-5)
    contenders = {f"ours {batch}": forward_backward(ours, inputs[:batch]) for batch in _GOALS}
    contenders |= {f"theirs {batch}": forward_backward(theirs, inputs[:batch]) for batch in (few, many)}
    timings = interleave(contenders, rounds)
    line = {samples: timings.seconds[f"theirs {samples}"] for samples in (few, many)}
    growth = Spread.of(line[many] / line[few]).median
    for batch, goal in _GOALS.items():
        theirs_seconds = line[many] + (batch - many) * (line[many] - line[few]) / (many - few)
        note = (
            f"Qiskit ML, which processes samples one by one, was timed on {few} and {many} of them ({growth:.2f} times "
            f"as long; {many // few} if linear), and its time for larger batches is extrapolated linearly."
        )
        yield Row(
            f"user's circuit, {_QUBITS} qubits, batch {batch}",
            f"Qiskit ML TorchConnector, extrapolated from {few} and {many} samples",
            duration(timings.spread(f"ours {batch}").median),
            duration(Spread.of(theirs_seconds).median),
            Spread.of(theirs_seconds / timings.seconds[f"ours {batch}"]),
            goal,
            note if batch > many else "",
        )
