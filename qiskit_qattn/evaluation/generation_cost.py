"""What generating text on a backend takes, counted before anything is sent."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from qiskit_qattn.backends.counting import CountingEstimator
from qiskit_qattn.backends.ibm.isa import two_qubit_depth
from qiskit_qattn.backends.jobs.device import Cost
from qiskit_qattn.backends.registry import Backend
from qiskit_qattn.nn.gpt import GPT


@dataclass(frozen=True)
class GenerationCost:
    """What a generation takes.

    Attributes:
        total: All jobs.
        first: The first job, or None for a model without quantum heads.
        depth: Layers of gates on two or more qubits of the deepest circuit, as it is sent.
    """

    total: Cost
    first: Cost | None
    depth: int


def generation_cost(model: GPT, backend: Backend, prompt: Tensor, tokens: int) -> GenerationCost:
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
    where, counting = counted(backend)
    with model.to_backend(where):
        for _ in model.stream(prompt, tokens, seed=0):
            pass
    depth = max(map(two_qubit_depth, counting.circuits.values()), default=0)
    return GenerationCost(counting.total, counting.first, depth)


def counted(backend: Backend) -> tuple[Backend, CountingEstimator]:
    """Return a backend on which nothing runs, and what counts the jobs that ``backend`` would get.

    Exact engines have no PUBs; the estimator's program counts for them, in circuits of exact values.
    """
    counting = CountingEstimator(getattr(backend.estimator, "device", None))
    return replace(backend, estimator=counting, program=None, differentiable=False), counting
