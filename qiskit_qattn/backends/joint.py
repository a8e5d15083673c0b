"""Programs that share jobs: what several of them ask of one estimator goes into one job."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from functools import wraps

import torch
from torch import Tensor, nn
from torch.profiler import record_function

Call = tuple[nn.Module, Tensor, Tensor]


def not_compiled(together: Callable[[Sequence[Call]], list[Tensor]]) -> Callable[[Sequence[Call]], list[Tensor]]:
    """Return a function that is no part of a graph, since jobs are not, and a range of its own in a profile.

    As ``torch.compiler.disable``, which would import the compiler, for seconds, where nothing is compiled.
    """

    @wraps(together)
    def run(calls: Sequence[Call]) -> list[Tensor]:
        with record_function("circuits jobs"):
            if "torch._dynamo" in sys.modules:
                return torch.compiler.disable(together)(calls)
            return together(calls)

    run._torchdynamo_disable = True  # type: ignore[attr-defined]
    return run


class JointProgram(nn.Module, ABC):
    """A program of inputs and weights that can share a job with others."""

    @property
    @abstractmethod
    def job_key(self) -> Hashable:
        """What programs that can share a job have in common."""

    @staticmethod
    @abstractmethod
    def together(calls: Sequence[Call]) -> list[Tensor]:
        """Return the expectations of programs with the same key, from one job forward and one backward.

        Args:
            calls: Program, inputs and weights of each.
        """

    def forward(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """Return expectations, shape ``(..., B, M)``.

        Args:
            inputs: Shape ``(..., B, D)``.
            weights: Circuit angles in radians, shape ``(..., P)``.
        """
        return self.together([(self, inputs, weights)])[0]


def evaluate(calls: Sequence[Call]) -> list[Tensor]:
    """Return the expectations of several programs; those that can share a job do.

    Args:
        calls: Program, inputs and weights of each.
    """
    groups: dict[Hashable, list[int]] = {}
    for i, (program, _, _) in enumerate(calls):
        groups.setdefault(program.job_key if isinstance(program, JointProgram) else i, []).append(i)
    found: dict[int, Tensor] = {}
    for members in groups.values():
        program, inputs, weights = calls[members[0]]
        if isinstance(program, JointProgram):
            values = program.together([calls[i] for i in members])
        else:
            values = [program(inputs, weights)]
        found |= zip(members, values, strict=True)
    return [found[i] for i in range(len(calls))]
