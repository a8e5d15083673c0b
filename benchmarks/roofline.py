"""Floors: the least time the engine's arithmetic, memory traffic and torch calls take on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from networks import user_network
from rows import duration, number
from sheet import Sheet
from steps import forward_backward
from timing import Effort, interleave
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import qiskit_qattn as qa
from qiskit_qattn.library.catalog import attention_circuit
from qiskit_qattn.nn.heads import QuantumHead

_FLOAT = 4  # bytes


@dataclass(frozen=True)
class Work:
    """What one pass forward and backward through the engine has to do.

    Attributes:
        operations: Floating-point operations of the matrix products.
        traffic: Bytes of the inputs, the outputs and their gradients, each moved once.
    """

    operations: float
    traffic: float


@dataclass(frozen=True)
class Subject:
    """An engine's module with its inputs, ``(*heads, N, D)``."""

    name: str
    module: torch.nn.Module
    inputs: Tensor


class _CountCalls(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        return func(*args, **(kwargs or {}))


def measure(effort: Effort) -> Sheet:
    """Return, for each of the engine's cases, its work, its floors and its time."""
    multiply, nothing = _matrix_product_rate(effort), _call_time(effort)
    rows, bandwidths = [], []
    for subject in _subjects():
        work = count_work(subject)
        call = forward_backward(subject.module, subject.inputs)
        bandwidth = _bandwidth(work.traffic, effort)
        bandwidths.append(bandwidth)
        seconds = interleave({"call": call}, effort).spread("call").median
        calls = _count(call)
        floors = (work.operations / multiply, work.traffic / bandwidth, calls * nothing)
        rows.append(
            (
                subject.name,
                f"{number(work.operations / 1e6)} M",
                f"{number(work.traffic / 1e3)} kB",
                str(calls),
                *(duration(floor) for floor in floors),
                duration(seconds),
                f"{number(seconds / max(floors[:2]))} ×",
            )
        )
    header = (
        *("forward and backward", "operations", "bytes", "torch calls"),
        *("floor: operations", "bytes", "calls", "measured", "over floor"),
    )
    notes = (
        f"Matrix products of this machine: {multiply / 1e9:,.0f} Gflop/s (float32, 1024×1024); copies of the sizes "
        f"above: {min(bandwidths) / 1e9:.1f} to {max(bandwidths) / 1e9:.1f} GB/s; an empty torch call: "
        f"{duration(nothing)}.",
        "The last column divides by the larger of the floors of operations and bytes.",
    )
    return Sheet("Floors of the exact engine", header, rows, notes)


def count_work(subject: Subject) -> Work:
    """Count a pass from the shapes of the program's matrices."""
    program = subject.module._program
    *_, rows, num_inputs = subject.inputs.shape
    heads = subject.inputs.shape[:-2].numel()
    weights = subject.module.weight
    matrices = program.fused(weights.detach())
    num_outputs = program.signs.shape[-1]
    products = sum(matrix.shape[-2] * matrix.shape[-1] for matrix in matrices)
    # forward, the gradient of the data, the gradient of the unitary; the signs are constant
    multiplications = 3 * products + 2 * matrices[-1].shape[-1] * num_outputs
    return Work(
        operations=2.0 * heads * rows * multiplications,
        traffic=2.0 * heads * rows * (num_inputs + num_outputs) * _FLOAT,
    )


def _subjects() -> Iterator[Subject]:
    generator = torch.Generator().manual_seed(0)
    for qubits, batch in ((4, 64), (4, 1024), (8, 1024)):
        connector = qa.TorchConnector(user_network(qubits))
        yield Subject(
            f"user's, {qubits} qubits, batch {batch}",
            connector,
            torch.randn(batch, qubits, generator=generator),
        )
    for name, qubits, outputs, heads, tokens in (("nano", 5, 32, 2, 12 * 64), ("qisa", 4, 16, 1, 1024 * 16)):
        circuit = attention_circuit("qisa", qubits, num_observables=outputs)
        head = QuantumHead(circuit, (heads,))
        inputs = torch.randn(heads, tokens, head.num_features, generator=generator)
        yield Subject(f"{name}, {heads} × {qubits} qubits, {tokens:,} tokens", head, inputs)


def _matrix_product_rate(effort: Effort, size: int = 1024) -> float:
    """Return operations per second of a large float32 matrix product."""
    a, b, c = (torch.randn(size, size) for _ in range(3))
    seconds = interleave({"product": lambda: torch.mm(a, b, out=c)}, effort).spread("product").low
    return 2.0 * size**3 / seconds


def _bandwidth(traffic: float, effort: Effort) -> float:
    """Return bytes per second, read and written, of a copy that moves ``traffic`` bytes."""
    source = torch.zeros(max(1, int(traffic / 2 / _FLOAT)))
    target = torch.empty_like(source)
    seconds = interleave({"copy": lambda: target.copy_(source)}, effort).spread("copy").low
    return 2.0 * _FLOAT * source.numel() / seconds


def _call_time(effort: Effort) -> float:
    """Return seconds of a torch call on one number."""
    a, b, c = (torch.ones(1) for _ in range(3))
    return interleave({"call": lambda: torch.add(a, b, out=c)}, effort).spread("call").low


def _count(call: Callable[[], None]) -> int:
    with _CountCalls() as mode:
        call()
    return mode.calls
