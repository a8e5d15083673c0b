"""What generating text, or any other run of circuits, takes on a backend, counted before anything is sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from qiskit_qattn.backends.counting import CountingEstimator
from qiskit_qattn.backends.ibm.isa import two_qubit_depth
from qiskit_qattn.backends.jobs.device import Cost
from qiskit_qattn.backends.registry import Backend
from qiskit_qattn.nn.gpt import GPT
from qiskit_qattn.nn.placement import Placement


@dataclass(frozen=True)
class RunCost:
    """What a run of circuits takes, such as a generation or a forward pass.

    Attributes:
        total: All jobs.
        first: The first job, or None if there is none.
        depth: Layers of gates on two or more qubits of the deepest circuit, as it is sent.
    """

    total: Cost
    first: Cost | None
    depth: int


def generation_cost(model: GPT, backend: Backend, prompt: Tensor, tokens: int) -> RunCost:
    """Count what ``model.stream(prompt, tokens)`` sends to a backend; nothing is sent.

    The model generates as it would on the backend, with arbitrary expectations in place of measured ones: every layer
    with quantum heads sends a job for the prompt, one for each token after it, and one for half a context each time the
    context is full. Results that are in the ledger already are counted too.

    Args:
        model: The model; its heads stay where they are.
        backend: Where it would run.
        prompt: Tokens, shape ``(B, T)``.
        tokens: How many to add.

    Raises:
        BackendError: For circuits that do not fit on the device.
    """

    def generate() -> None:
        for _ in model.stream(prompt, tokens, seed=0):
            pass

    return run_cost(model, backend, generate)


def run_cost(module: Placement, backend: Backend, run: Callable[[], Any]) -> RunCost:
    """Count what a run of a module's circuits sends to a backend; nothing is sent.

    Args:
        module: A model, or a connector; it stays where it is.
        backend: Where it would run.
        run: Calls the module.

    Raises:
        BackendError: For circuits that do not fit on the device, or a job that it does not take.
    """
    where, counting = _counted(backend)
    with module.to_backend(where):
        run()
    depth = max(map(two_qubit_depth, counting.circuits.values()), default=0)
    return RunCost(counting.total, counting.first, depth)


def _counted(backend: Backend) -> tuple[Backend, CountingEstimator]:
    """Return a backend on which nothing runs, and what counts the jobs that ``backend`` would get.

    Exact engines have no PUBs; the estimator's program counts for them, in circuits of exact values.
    """
    counting = CountingEstimator(getattr(backend.estimator, "device", None))
    return replace(backend, estimator=counting, program=None, differentiable=False), counting
