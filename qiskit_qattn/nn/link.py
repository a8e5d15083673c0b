"""A head's program on one backend."""

from __future__ import annotations

from torch import Tensor, nn

from qiskit_qattn.backends.joint import Call
from qiskit_qattn.backends.pub import attention_program
from qiskit_qattn.backends.registry import Backend
from qiskit_qattn.errors import BackendError
from qiskit_qattn.library.attention_circuit import AttentionCircuit
from qiskit_qattn.simulation.compound import angles_of_vectors
from qiskit_qattn.simulation.statevector import StatevectorProgram


def program_on_backend(circuit: AttentionCircuit, backend: Backend) -> nn.Module:
    """Return the program of the backend's own engine, or one that sends PUBs to its estimator."""
    return attention_program(circuit, backend) if backend.program is None else backend.program(circuit)


class Link(nn.Module):
    """A head's program on one backend, for the head's inputs as they are.

    Args:
        circuit: The head's.
        where: The backend, why it could not be opened, or a program that takes vectors and angles as they are.

    Attributes:
        program: The program, or None where there is none.
        reason: Why there is none.
    """

    def __init__(self, circuit: AttentionCircuit, where: Backend | BackendError | nn.Module) -> None:
        super().__init__()
        self.program: nn.Module | None = None
        self.reason = ""
        try:
            if isinstance(where, BackendError):
                raise where
            self.program = where if isinstance(where, nn.Module) else program_on_backend(circuit, where)
        except BackendError as error:  # transpiling may ask the device
            self.reason = str(error)
        takes_vectors = isinstance(where, nn.Module) or isinstance(self.program, StatevectorProgram)
        self._angles = None if takes_vectors else angles_of_vectors(circuit.encoding)

    def call(self, inputs: Tensor, weights: Tensor) -> Call:
        """Return the call of the program."""
        assert self.program is not None
        return self.program, inputs if self._angles is None else self._angles(inputs), weights

    @property
    def label(self) -> str:
        """Names of what computed the last call, where the program says so."""
        return getattr(self.program, "label", "")
