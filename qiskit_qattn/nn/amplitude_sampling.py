r"""Keys drawn by measuring a circuit: :math:`\sum_j \sqrt{p_j}\, |j\rangle` gives key j with probability p_j.

A circuit per row, on n qubits for up to 2ⁿ keys, runs wherever heads do. Outcomes are read off the expectations of the
2ⁿ products of Z, which one measurement basis gives:

.. math:: f_j = 2^{-n} \sum_s (-1)^{s \cdot j} \langle Z^s \rangle

so that with shots they are the frequencies of the outcomes.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from qiskit.quantum_info import SparsePauliOp
from torch import Tensor
from torch.nn import functional as F

from qiskit_qattn.backends.joint import evaluate
from qiskit_qattn.backends.place import Place
from qiskit_qattn.backends.registry import get_backend
from qiskit_qattn.errors import ConfigError
from qiskit_qattn.library.attention_circuit import AttentionCircuit
from qiskit_qattn.library.encodings import amplitude_encoding
from qiskit_qattn.nn.audit import Audit
from qiskit_qattn.nn.draws import Draw
from qiskit_qattn.nn.fallback import Execution, program_on
from qiskit_qattn.nn.placement import Movable
from qiskit_qattn.simulation.amplitude import amplitude_angles
from qiskit_qattn.simulation.statevector import StatevectorProgram


@lru_cache
def key_circuit(num_qubits: int) -> AttentionCircuit:
    """Return the circuit whose outcomes are keys: its angles are those of the square roots of probabilities.

    Args:
        num_qubits: n.
    """
    encoding = amplitude_encoding(num_qubits)
    labels = [f"{mask:0{num_qubits}b}".replace("0", "I").replace("1", "Z") for mask in range(1, 2**num_qubits)]
    return AttentionCircuit.from_circuit(
        encoding.circuit, [SparsePauliOp(each) for each in labels], encoding.params, ()
    )


class AmplitudeSampler(Movable):
    """Draws keys by measuring the circuit of each row, on the backend that it was moved to.

    Args:
        num_qubits: n; rows have up to 2ⁿ keys.

    Attributes:
        rows: The number of rows measured.
        discarded: The outcomes that noise put on keys that their row does not see, as a number of rows; they are not
            used.
        empty: The number of rows that had no other outcomes, so that their value is 0; with more shots there are fewer.
    """

    def __init__(self, num_qubits: int) -> None:
        super().__init__()
        self.num_qubits = num_qubits
        self.run_on(self.prepare(Place.of(get_backend("statevector")), Audit(None, self.circuit_name)))

    def extra_repr(self) -> str:
        """Return the sizes and the backend, for ``print(model)``."""
        return f"num_qubits={self.num_qubits}, backend={self.execution.place.name!r}"  # type: ignore[union-attr]

    @property
    def circuit_name(self) -> str:
        """What its circuit is called."""
        return "attention_weights"

    @property
    def execution(self) -> Execution:
        """How its circuit is run now."""
        return self._execution

    @property
    def moved(self) -> bool:
        """Whether another backend than the exact engine runs the circuit."""
        return not isinstance(self._execution.program, StatevectorProgram)

    @property
    def shots(self) -> int | None:
        """Samples of each circuit on a single backend without mitigation; None elsewhere."""
        place = self._execution.place
        backend = None if place is None else place.single
        return None if backend is None or backend.mitigation is not None else backend.shots

    def prepare(self, place: Place, audit: Audit) -> Execution:
        """Return what :meth:`run_on` takes to run the circuit on a place, without moving it there."""
        return Execution(place, program_on(key_circuit(self.num_qubits), place, audit), audit)

    def run_on(self, execution: Execution) -> None:
        """Run the circuit in this way from now on."""
        self._execution = execution
        self.rows, self.discarded, self.empty = 0, 0.0, 0

    @torch.no_grad()
    def draw(self, p: Tensor) -> Draw:
        """Return all keys with the frequencies of their outcomes as weights, among the keys that the row sees.

        On a backend with shots its ``counts`` are the outcomes that are left to each row.

        Args:
            p: Probabilities, shape ``(..., T)``.

        Raises:
            ConfigError: For more than 2ⁿ keys.
            BackendError: As the backend's.
        """
        keys, size = p.shape[-1], 2**self.num_qubits
        if keys > size:
            raise ConfigError(
                f"A row has {keys} keys, but {self.num_qubits} qubits have {size} outcomes: use "
                f"amplitude?qubits={(keys - 1).bit_length()}."
            )
        p = p.detach().nan_to_num(0.0)
        roots = F.pad(p.double().sqrt(), (0, size - keys)).flatten(0, -2).cpu()  # (R, 2**n)
        angles, program = amplitude_angles(roots), self._execution.program
        assert program is not None
        products = evaluate([(program, angles, angles.new_empty(0))])[0].to(p)  # (R, 2**n - 1)
        found = walsh_hadamard(F.pad(products, (1, 0), value=1.0)) / size
        found = found.clamp_min(0)  # mitigated values may be less
        seen = (p > 0).flatten(0, -2)
        kept = found[:, :keys] * seen
        total = kept.sum(-1, keepdim=True)
        some = seen.any(-1, keepdim=True)
        self.rows += int(some.sum())
        self.empty += int((some & (total == 0)).sum())
        self.discarded += float(((found.sum(-1, keepdim=True) - total) * some).sum())
        weights = torch.where(some, kept / total.where(total > 0, 1.0), 0.0).view(p.shape)
        counts = None if self.shots is None else (self.shots * total.where(some, 1.0)).round().view(*p.shape[:-1], 1)
        return Draw(torch.arange(keys, device=p.device).expand(p.shape), weights, counts=counts)


def walsh_hadamard(values: Tensor) -> Tensor:
    r"""Return :math:`\sum_s (-1)^{s \cdot j} x_s`, along the last axis, of length 2ⁿ."""
    size, step = values.shape[-1], 1
    while step < size:
        low, high = values.unflatten(-1, (-1, 2, step)).unbind(-2)
        values = torch.stack([low + high, low - high], -2).flatten(-3)
        step *= 2
    return values
