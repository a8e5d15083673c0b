"""A user's circuit, forward and backward, here and in other libraries on the same device."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from functools import partial

import torch
from networks import NUM_LAYERS, user_network
from peers.problem import Problem
from torch import Tensor, nn

import qiskit_qattn as qa
from on_gpu.clock import Bench, Call, Contender, milliseconds
from qiskit_qattn.training.acceleration import compile_model

HEADER = ("qubits", "rows", "ours", "ours, compiled", "plain torch", "TorQ", "PennyLane", "lightning.gpu", "marks")
_SIZES = ((4, 1_024), (4, 1_048_576), (4, 65_536), (8, 1_024), (8, 65_536), (12, 1_024))
_MARKS = {(4, 1_024): ("ours, compiled", 0.2e-3), (4, 1_048_576): ("ours", 0.5e-3)}
_LIGHTNING_ROWS = 1_024  # it differentiates row by row
_TOLERANCE = 1e-4  # of values and gradients, against ours

Build = Callable[[Problem, torch.device], nn.Module]


def ours(problem: Problem, device: torch.device) -> nn.Module:
    """Return the connector."""
    return qa.TorchConnector(user_network(problem.num_qubits), initial_weights=problem.weights).to(device)


def ours_compiled(problem: Problem, device: torch.device) -> nn.Module:
    """Return the connector, compiled."""
    connector = ours(problem, device)
    compile_model(connector, device)
    return connector


class PlainTorch(nn.Module):
    """The circuit gate by gate on complex amplitudes, as one writes it without a library."""

    def __init__(self, problem: Problem, device: torch.device) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(problem.weights, device=device))
        self.num_qubits = problem.num_qubits
        basis = torch.arange(2**self.num_qubits, device=device)
        bits = [(basis >> q) & 1 for q in range(self.num_qubits)]
        self.register_buffer("signs", torch.stack([1.0 - 2.0 * bit for bit in bits], -1))  # (2**n, n)
        ring = range(self.num_qubits)
        flips = [basis ^ (bits[q] << ((q + 1) % self.num_qubits)) for q in ring]
        self.register_buffer("flips", torch.stack(flips))  # (n, 2**n): CX as permutations

    signs: Tensor
    flips: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Return the expectation of Z on each qubit, shape ``(B, n)``, of angles ``(B, n)``."""
        state = x.new_zeros(len(x), 2**self.num_qubits, dtype=torch.complex64)
        state[:, 0] = 1
        for q in range(self.num_qubits):
            cos, sin = torch.cos(x[:, q] / 2), -1j * torch.sin(x[:, q] / 2)
            state = _rotated(state, q, cos, sin, sin)
        for layer in range(NUM_LAYERS):
            for q in range(self.num_qubits):
                angle = self.weight[layer * self.num_qubits + q].expand(1) / 2
                state = _rotated(state, q, torch.cos(angle), -torch.sin(angle), torch.sin(angle))
            for q in range(self.num_qubits):
                state = state[:, self.flips[q]]
        return (state.real**2 + state.imag**2) @ self.signs


def _rotated(state: Tensor, qubit: int, diagonal: Tensor, upper: Tensor, lower: Tensor) -> Tensor:
    """Apply ((diagonal, upper), (lower, diagonal)), each ``(B,)`` or ``(1,)``, to a qubit of ``(B, 2**n)``."""
    zero, one = state.view(len(state), -1, 2, 2**qubit).unbind(2)  # (B, 2**(n - q - 1), 2**q)
    diagonal, upper, lower = (each[:, None, None] for each in (diagonal, upper, lower))
    return torch.stack([diagonal * zero + upper * one, lower * zero + diagonal * one], 2).flatten(1)


def torq(problem: Problem, device: torch.device) -> nn.Module:
    """Return TorQ's circuit."""
    simple = _imported("torq.simple", "torq-quantum==0.1.3")
    config = simple.CircuitConfig(single_rotation_gate="ry")
    weights = torch.tensor(problem.weights).view(NUM_LAYERS, 1, problem.num_qubits)
    return simple.Circuit(problem.num_qubits, NUM_LAYERS, "single_rot_basic_ent", config, weights=weights).to(device)


def pennylane(problem: Problem, device: torch.device, simulator: str = "default.qubit") -> nn.Module:
    """Return PennyLane's TorchLayer: ``default.qubit`` by backpropagation, others by the adjoint method."""
    qml = _imported("pennylane", "pennylane pennylane-lightning-gpu")
    wires = range(problem.num_qubits)
    method = "backprop" if simulator == "default.qubit" else "adjoint"

    try:
        simulated = qml.device(simulator, wires=wires)
    except qml.exceptions.DeviceError as error:
        raise ImportError(f"PennyLane has no {simulator} here: {error}") from error

    @qml.qnode(simulated, interface="torch", diff_method=method)
    def circuit(inputs, weights):
        for q in wires:
            qml.RX(inputs[..., q], wires=q)
        for layer in range(NUM_LAYERS):
            for q in wires:
                qml.RY(weights[layer * len(wires) + q], wires=q)
            for q in wires:
                qml.CNOT(wires=[q, (q + 1) % len(wires)])
        return [qml.expval(qml.Z(q)) for q in wires]

    layer = qml.qnn.TorchLayer(circuit, {"weights": problem.weights.shape})
    with torch.no_grad():
        layer.weights.copy_(torch.tensor(problem.weights))
    return layer.to(device)


def _imported(module: str, packages: str):
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ImportError(f"not installed; pip install {packages}") from error


CONTENDERS: dict[str, Build] = {
    "ours": ours,
    "ours, compiled": ours_compiled,
    "plain torch": PlainTorch,
    "TorQ": torq,
    "PennyLane": pennylane,
    "lightning.gpu": partial(pennylane, simulator="lightning.gpu"),
}


def measure(bench: Bench) -> Iterator[tuple[str, ...]]:
    """Yield the time of every library at every size; ratios are to our eager time."""
    for qubits, rows in ((2, 8),) if bench.smoke else _SIZES:
        bench.start_afresh()
        problem = Problem.random(qubits, rows)
        expected = _results(ours(problem, bench.device), problem, bench.device)
        contenders: dict[str, Contender] = {}
        for name, build in CONTENDERS.items():
            if name == "lightning.gpu" and rows > _LIGHTNING_ROWS:
                continue
            label = f"{name}, {qubits} qubits, {rows:,} rows"
            if not bench.has_time(label, 20.0 if name == "ours, compiled" else 5.0):
                continue
            if contender := bench.prepared(label, partial(_checked, build, problem, bench.device, expected)):
                contenders[name] = contender
        times = bench.times(contenders)
        cells = [_cell(times.get(name), None if name == "ours" else times.get("ours")) for name in CONTENDERS]
        yield (str(qubits), f"{rows:,}", *cells, _mark(times, qubits, rows))


def _checked(build: Build, problem: Problem, device: torch.device, expected: tuple[Tensor, ...]) -> Call:
    """Return a library's pass, once its values and gradients are ours."""
    module = build(problem, device)
    for found, right in zip(_results(module, problem, device), expected, strict=True):
        error = float((found - right).abs().max()) / max(1.0, float(right.abs().max()))
        assert error < _TOLERANCE, f"values or gradients differ from ours by {error:.1e}"
    return forward_backward(module, problem, device)


def _cell(seconds: float | None, base: float | None) -> str:
    if seconds is None or base is None:
        return milliseconds(seconds)
    return f"{milliseconds(seconds)}, {seconds / base:.2f} ×"


def _mark(times: dict[str, float], qubits: int, rows: int) -> str:
    name, limit = _MARKS.get((qubits, rows), ("", 0.0))
    if name not in times:
        return "–"
    return f"{name} ≤ {milliseconds(limit)} {'✓' if times[name] <= limit else '✗'}"


def forward_backward(module: nn.Module, problem: Problem, device: torch.device) -> Call:
    """Return a pass forward and backward to inputs and weights."""
    x = torch.tensor(problem.inputs, device=device, requires_grad=True)
    slope = torch.tensor(problem.slope, device=device)
    leaves = [x, *module.parameters()]

    def call() -> None:
        torch.compiler.cudagraph_mark_step_begin()
        for leaf in leaves:
            leaf.grad = None
        module(x).backward(slope)

    return call


def _results(module: nn.Module, problem: Problem, device: torch.device) -> tuple[Tensor, ...]:
    """Return values, and gradients to inputs and weights."""
    x = torch.tensor(problem.inputs, device=device, requires_grad=True)
    torch.compiler.cudagraph_mark_step_begin()
    values = module(x)
    values.backward(torch.tensor(problem.slope, device=device))
    (weight,) = module.parameters()
    assert x.grad is not None and weight.grad is not None
    return values.detach().float(), x.grad, weight.grad.flatten()
