"""What a GPU would be asked to do, counted without one: calls, float64 among them, and bytes, forward and backward.

    python -m benchmarks.launches

A call is an operation of torch that computes something, at least one kernel; views and allocations are free. Programs
form their unitaries as on a GPU, but run torch's operations instead of Triton's kernels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import qiskit_qattn as qa
from benchmarks.networks import user_network
from qiskit_qattn.simulation.constants import ConstantModule

_NOISE = "density_matrix?noise=depolarizing&p1=0.001&p2=0.01"
_FREE = {
    "empty",
    "empty_strided",
    "empty_like",
    "_unsafe_view",
    "squeeze_",
    "promote_types",
    "new_empty",
    "new_empty_strided",
    "detach",
    "_reshape_alias",
}


@dataclass
class Launches:
    """What was called.

    Attributes:
        names: How often each operation was called.
        double: How many calls read or wrote float64.
        bytes: The bytes of all tensors that were read and written.
    """

    names: Counter[str] = field(default_factory=Counter)
    double: int = 0
    bytes: int = 0

    @property
    def calls(self) -> int:
        """The number of calls."""
        return self.names.total()


class _Count(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.found = Launches()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if not func.is_view and name not in _FREE:
            read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            tensors = [*read, *(leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor))]
            self.found.names[name] += 1
            self.found.double += any(t.dtype in (torch.float64, torch.complex128) for t in tensors)
            self.found.bytes += sum(t.untyped_storage().nbytes() if 0 in t.stride() else t.nbytes for t in tensors)
        return result


def count(call: Callable[[], Any]) -> Launches:
    """Return what a function calls, in its backward passes too."""
    with _Count() as counter:
        call()
    return counter.found


def as_on_a_gpu(module: nn.Module) -> nn.Module:
    """Let the programs in a module form their unitaries as on a GPU."""
    for part in module.modules():
        if isinstance(part, ConstantModule):
            part.form_in(torch.float32)
    return module


def cases() -> Iterator[tuple[str, nn.Module, Callable[[], Tensor]]]:
    """Yield names, modules, and functions whose values are differentiated."""
    for num_qubits, rows in ((4, 1024), (4, 2**20), (8, 1024), (12, 1024)):
        network, x = qa.TorchConnector(user_network(num_qubits)), torch.randn(rows, num_qubits, requires_grad=True)
        yield f"a user's circuit, {num_qubits} qubits, {rows:,} rows", network, lambda f=network, x=x: f(x)
    for num_qubits in (2, 4, 6):
        network = qa.TorchConnector(user_network(num_qubits), backend=_NOISE)
        x = torch.randn(256, num_qubits, requires_grad=True)
        yield f"the same under noise, {num_qubits} qubits, 256 rows", network, lambda f=network, x=x: f(x)
    for kind, num_qubits in (("qisa", 4), ("qisa", 6), ("qisa", 8), ("zz", 4), ("angle", 4), ("qsann", 4)):
        shape = {"vocab_size": 65, "block_size": 16, "n_layer": 4, "n_head": 4, "n_embd": 64}
        model = qa.GPT(qa.GPTConfig(**shape, heads=f"{kind}:4", num_qubits=num_qubits))
        tokens = torch.zeros(2, 16, dtype=torch.long)
        name = f"{kind}, {num_qubits} qubits, 4 layers"
        yield f"all unitaries of a GPT: {name}", model, lambda m=model: all_unitaries(m)
        yield f"its step: {name}", model, lambda m=model, t=tokens: m(t, t)[1]


def all_unitaries(model: qa.GPT) -> Tensor:
    """Return the entries of all unitaries of a model in a row."""
    every = [matrix for layer in model.unitaries() for fused in layer.values() for matrix in fused]
    return torch.cat([matrix.flatten() for matrix in every])


def main() -> None:
    """Print the table."""
    torch.manual_seed(0)
    print("| forward and backward | calls | in float64 | MB |")
    print("|---|---|---|---|")
    for name, module, call in cases():
        as_on_a_gpu(module)
        found = count(lambda call=call: call().sum().backward())
        print(f"| {name} | {found.calls} | {found.double} | {found.bytes / 1e6:.1f} |")


if __name__ == "__main__":
    main()
