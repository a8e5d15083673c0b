"""An amplitude-encoded QISA head under noise, forward and backward, against parameter shift on Aer."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from qiskit_aer.primitives import EstimatorV2
from rows import Row, at_least, duration
from steps import forward_backward
from timing import Effort, Spread, interleave

import qiskit_qattn as qa
from qiskit_qattn.backends.registry import Backend

_QUBITS, _BATCH = 4, 256
_NOISE = "density_matrix?noise=depolarizing&p1=0.001&p2=0.01"


def measure(effort: Effort) -> Iterator[Row]:
    few, many = (1, 2) if effort.quick else (2, 4)  # samples for Aer, whose cost is linear in them
    torch.manual_seed(0)
    ours = qa.QuantumHead(qa.attention_circuit("qisa", _QUBITS)).double().to_backend(_NOISE)
    theirs = qa.QuantumHead(ours.circuit).double()
    theirs.load_state_dict(ours.state_dict())
    model = ours.backend.estimator.engine.model
    options = {"default_precision": 0.0, "backend_options": {"method": "density_matrix", "noise_model": model}}
    theirs.to_backend(Backend("aer", EstimatorV2(options=options)))
    inputs = torch.randn(_BATCH, ours.num_features, dtype=torch.float64)
    torch.testing.assert_close(ours(inputs[:few]), theirs(inputs[:few]), rtol=0, atol=1e-6)
    single = qa.QuantumHead(ours.circuit).to_backend(_NOISE)
    contenders = {"ours": forward_backward(single, inputs.float())}
    contenders |= {f"theirs {count}": forward_backward(theirs, inputs[:count]) for count in (few, many)}
    timings = interleave(contenders, Effort(min(effort.rounds, 5), effort.seconds))
    line = {count: timings.seconds[f"theirs {count}"] for count in (few, many)}
    theirs_seconds = line[many] + (_BATCH - many) * (line[many] - line[few]) / (many - few)
    yield Row(
        f"noisy head, {_QUBITS} qubits, batch {_BATCH}",
        f"parameter shift on Aer's density matrices, one job per pass, extrapolated from {few} and {many} samples",
        duration(timings.spread("ours").median),
        duration(Spread.of(theirs_seconds).median),
        Spread.of(theirs_seconds / timings.seconds["ours"]),
        at_least(200),
        f"Aer was timed on {few} and {many} samples, and its time for {_BATCH} is extrapolated linearly. Values "
        f"agree to 1e-6 in double precision.",
    )
