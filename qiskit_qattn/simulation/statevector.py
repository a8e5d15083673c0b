"""The exact engine: expectations of a circuit as a batched, differentiable torch program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import numpy as np
import torch
from qiskit import QuantumCircuit
from qiskit.quantum_info.operators.base_operator import BaseOperator
from torch import Tensor, nn

from qiskit_qattn.errors import CircuitError
from qiskit_qattn.simulation.adjoint import apply_block
from qiskit_qattn.simulation.amplitude import expectations_of_vectors, unit_vectors
from qiskit_qattn.simulation.angles import AngleMap
from qiskit_qattn.simulation.constants import ConstantModule
from qiskit_qattn.simulation.cost import (
    LARGEST,
    dense_qubits,
    fewest_effective_rows,
    fewest_rows,
    forms_matrix,
    keeps_matrix,
)
from qiskit_qattn.simulation.derivatives import torch_must_see
from qiskit_qattn.simulation.effective import effective_observables, quadratic_forms
from qiskit_qattn.simulation.gates import flatten
from qiskit_qattn.simulation.kept import Kept
from qiskit_qattn.simulation.measurement_bases import MeasurementBases
from qiskit_qattn.simulation.operators import Block
from qiskit_qattn.simulation.phase_product import phase_product
from qiskit_qattn.simulation.program import Step, build_program
from qiskit_qattn.simulation.readout import build_readout
from qiskit_qattn.simulation.realform import (
    as_real,
    fold_phases,
    probabilities,
    real_parts,
    rotate,
    side_by_side,
    squared_moduli,
    squared_product,
    unique_phases,
)
from qiskit_qattn.simulation.trigonometric import MAX_QUBITS, TrigonometricMatrix, trigonometric_blocks

_DEEP = 4  # with more data-dependent phases than this, rounding adds up and amplitudes are held in float64
Fused = tuple[Tensor, ...]


class StatevectorProgram(ConstantModule):
    r"""Expectations :math:`\langle \psi(x, \theta) | O_m | \psi(x, \theta) \rangle` for batches of x.

    Everything that does not depend on data is one unitary, built once a step, with the measurement bases as its last
    factor. Writing its real and imaginary parts side by side as R, the features of the data as f (the unit vector
    itself, or cosines and sines of phases) and the signs of all observables as S, the values are

    .. math:: \langle O \rangle = (f R)^{\odot 2} S

    Angles, phases and the unitary are computed in float64 and rounded once; what grows with the batch is float32, or
    float64 after ``module.double()``. Weights may have leading axes, one weight set a head, that broadcast against
    those of the inputs.

    Args:
        circuit: Any circuit of unitary gates, at most 16 qubits. With ``amplitude`` input, what follows the encoding.
        observables: Hermitian operators on its qubits.
        input_params: Parameters that carry data, in the order of the input's last axis.
        weight_params: Trainable parameters, in the order of the weights' last axis.
        input_kind: ``parameters``, or ``amplitude``: inputs are real vectors of length 2ⁿ, loaded as amplitudes.
        all_outcomes: Compute every outcome, as :meth:`probabilities` needs, and not only those that expectations need.

    Raises:
        CircuitError: For circuits, parameters or observables that cannot be simulated.
    """

    signs: Tensor

    def __init__(
        self,
        circuit: QuantumCircuit,
        observables: Sequence[BaseOperator],
        *,
        input_params: Sequence[Any] = (),
        weight_params: Sequence[Any] = (),
        input_kind: Literal["parameters", "amplitude"] = "parameters",
        all_outcomes: bool = False,
    ) -> None:
        super().__init__()
        self.num_qubits = circuit.num_qubits
        self.num_outputs = len(observables)
        self.num_weights = len(weight_params)
        self.input_kind = input_kind
        self.num_inputs = 2**self.num_qubits if input_kind == "amplitude" else len(input_params)
        known = {*input_params, *weight_params}
        unbound = sorted(p.name for p in circuit.parameters if p not in known)
        if unbound:
            raise CircuitError(f"Circuit parameters {unbound} are neither input_params nor weight_params.")
        program = build_program(flatten(circuit), self.num_qubits, input_params)
        readout = build_readout(observables)
        if readout.rotations.shape[1] != self.num_qubits:
            raise CircuitError(
                f"The circuit has {self.num_qubits} qubits, the observables {readout.rotations.shape[1]}; "
                f"they must match."
            )
        self.bases = readout.bases
        size = 2**self.num_qubits
        self.blocks = nn.ModuleList(Block(steps, weight_params, self.num_qubits) for steps in program.blocks)
        used = {p for step in program.phases for angle in step.angles for p in getattr(angle, "parameters", ())}
        self.mixed = not used.isdisjoint(weight_params)  # some angle depends on data and weights
        phase_params = [*input_params, *weight_params] if self.mixed else list(input_params)
        self.phases = nn.ModuleList(
            AngleMap(step.angles, phase_params, combine=step.coefficients) for step in program.phases
        )
        self.deep = len(program.phases) > _DEEP
        outcomes, signs = np.arange(len(readout.signs)), readout.signs
        if not all_outcomes:
            outcomes, signs = readout.needed_outcomes()
        self.measure = MeasurementBases(readout, outcomes)
        self.add_constant("signs", signs)  # (R, M), R outcomes
        unique = unique_phases(program.phases[0].coefficients) if program.phases else None
        features = size if input_kind == "amplitude" else 1 if unique is None else 2 * len(unique[0])
        self.dense = forms_matrix(program, features, len(outcomes), input_kind == "amplitude")
        self.small = self.num_qubits <= dense_qubits(program)
        self.always_formed = keeps_matrix(program, features)  # without gradients, however few the rows
        self.fewest_rows = fewest_rows(program, features, len(outcomes)) if self.dense else 2**62
        self.first: AngleMap | None = None
        if unique is not None and self.dense:  # the first phases become features
            self.first = AngleMap(program.phases[0].angles, phase_params, combine=unique[0])
            self.add_constant("columns", fold_phases(*unique), double=True)  # (2**n, F)
        self.enters_once = self.first is not None and len(self.phases) == 1
        if input_kind != "amplitude":
            self.add_constant("ground", np.eye(size, 1, dtype=complex), double=True)
        self._constant, self.real, self.apart = set[int](), False, False
        self._form_sums(program.blocks, weight_params)
        self._find_real_parts()
        if self.real:
            self._form_sums(program.blocks, weight_params)
        if self.dense and len(self.blocks) * 4 ** (self.num_qubits + 1) <= LARGEST:
            self._keep_constant_blocks()
        self.effective = (
            fewest_effective_rows(program, features, len(outcomes), self.num_outputs) if self.dense else None
        )
        self._kept = Kept[Fused]()

    def forward(
        self, inputs: Tensor, weights: Tensor, fused: Fused | None = None, signs: Tensor | None = None
    ) -> Tensor:
        """Return expectations, shape ``(..., B, M)``.

        Args:
            inputs: Shape ``(..., B, num_inputs)``.
            weights: Angles in radians, shape ``(..., num_weights)``; leading axes broadcast with the inputs'.
            fused: What :meth:`fused` gave for these weights, where that was called already.
            signs: What :meth:`scaled_signs` gave, to scale each expectation at no cost. Without gradients only.

        Raises:
            EncodingError: For NaN or infinity in amplitude input.
        """
        if torch.is_autocast_enabled(inputs.device.type):
            with torch.autocast(inputs.device.type, enabled=False):
                return self._expectations(inputs, weights, fused, signs)
        return self._expectations(inputs, weights, fused, signs)

    def scaled_signs(self, scale: Tensor) -> Tensor:
        """Return the signs with which a call gives expectations times ``scale``, of shape ``(..., M)``."""
        return self.signs * scale.unsqueeze(-2)  # (..., R, M)

    def _expectations(self, inputs: Tensor, weights: Tensor, fused: Fused | None, signs: Tensor | None) -> Tensor:
        self.leave_meta(weights)
        signs = self.signs if signs is None else signs
        few = inputs.shape[-2] < self.fewest_rows and (torch.is_grad_enabled() or not self.always_formed)
        if not self.dense or (few and fused is None):
            squares = squared_moduli(self._gate_by_gate(inputs, weights))
            return (squares @ signs.to(squares.dtype)).to(self.signs.dtype)
        effective = self.effective is not None and inputs.shape[-2] >= self.effective
        if self.enters_once and not effective and not torch_must_see():
            first, data = cast(AngleMap, self.first), self._data(inputs, weights)
            if fused is None and "1" in self.sums and torch.is_grad_enabled():
                block = cast(TrigonometricMatrix, self.sums["1"])
                return phase_product(data, first, weights, signs, block, apart=self.apart)
            return phase_product(data, first, (fused or self.fused(weights))[0], signs, apart=self.apart)
        matrices = self.fused(weights) if fused is None else fused
        if self.input_kind == "amplitude":
            if inputs.dtype == torch.float64 != self.signs.dtype:
                return squared_product(self._unit_vectors(inputs), matrices[0], signs)
            return expectations_of_vectors(inputs.to(self.signs.dtype), matrices[0], signs)
        state, last = self._dense(inputs, weights, matrices)
        if effective:
            return quadratic_forms(state, effective_observables(last, signs))
        return squared_product(state, last, signs.to(state.dtype)).to(self.signs.dtype)

    def probabilities(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """Return the probabilities of all outcomes in all bases, shape ``(..., B, num_bases * 2**n)``.

        Only for a program made with ``all_outcomes``; arguments as for a call.
        """
        if self.dense:
            state, last = self._dense(inputs, weights, self.fused(weights))
            return probabilities(state @ last, len(self.signs))
        return squared_moduli(self._gate_by_gate(inputs, weights)).to(self.signs.dtype)

    def summary(self) -> str:
        """Return in a phrase what a call computes."""
        how = "fused unitaries" if self.dense else "gates on the batch"
        how += "" if self.effective is None else f", effective observables from {self.effective} rows on"
        data = f"{len(self.phases)} data-dependent phase{'s' * (len(self.phases) != 1)}"
        bases = f"{len(self.bases)} measurement bas{'is' if len(self.bases) == 1 else 'es'}"
        return f"{self.num_qubits} qubits, {data}, {bases}, {how}"

    @property
    def state_dtype(self) -> torch.dtype:
        """The dtype of amplitudes' real and imaginary parts."""
        return torch.float64 if self.deep else self.signs.dtype

    def fused(self, weights: Tensor) -> Fused:
        """Return the data-independent factors as real matrices that act on rows from the right.

        Without gradients the result is kept until the weights change.
        """
        self.leave_meta(weights)
        if torch.is_grad_enabled() or torch_must_see():
            return self._fuse(weights)
        return self._kept.get(lambda: self._fuse(weights), [weights], self.signs.dtype)

    def _fuse(self, weights: Tensor) -> Fused:
        each = range(self._first_block, len(self.blocks))
        return tuple(self._matrix(i, weights, self.state_dtype) for i in each)

    def _matrix(self, i: int, weights: Tensor, dtype: torch.dtype) -> Tensor:
        """Return block i, with what prepares its input or measures its output, as a real matrix."""
        if i in self._constant:
            return getattr(self, f"matrix_{i}").to(dtype)
        if str(i) in self.sums:
            return cast(TrigonometricMatrix, self.sums[str(i)])(weights, dtype)
        first, last = i == self._first_block, i == len(self.blocks) - 1
        columns = self._start(weights) if first else None
        columns = self._apply_block(i, columns, weights)  # (..., 2**n, F)
        if last and not self.measure.trivial:
            columns = self.measure(columns)
        return as_real(columns, from_real=first, last=last, real=self.real).to(dtype)

    @property
    def _first_block(self) -> int:
        """The first block that acts after data; the one before it prepares a fixed state."""
        return 1 if self.first is not None else 0

    def _start(self, weights: Tensor) -> Tensor | None:
        """Return what the features are multiplied with before the first block, ``(..., 2**n, F)``; None: nothing."""
        if self.input_kind == "amplitude":
            return None
        ground = self.constant("ground")  # (2**n, 1)
        if self.first is None:
            return ground
        return self._apply_block(0, ground, weights) * self.constant("columns")

    def _apply_block(self, i: int, columns: Tensor | None, weights: Tensor) -> Tensor:
        """Return W_i(θ) X; the adjoint method, which holds 2ⁿ × 2ⁿ matrices, where those are small."""
        block = cast(Block, self.blocks[i])
        if columns is None or self.small:
            return apply_block(block, columns, weights)
        return block(columns, weights)

    def _data(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """Return what data-dependent phases take: the inputs, with the weights where some angle uses both."""
        if not self.mixed:
            return inputs
        lead = torch.broadcast_shapes(inputs.shape[:-1], (*weights.shape[:-1], 1))
        return torch.cat([inputs.expand(*lead, -1), weights.unsqueeze(-2).expand(*lead, -1)], -1)

    def _features(self, inputs: Tensor, data: Tensor) -> Tensor:
        """Return the features f of the dense path, shape ``(..., B, F)``."""
        if self.input_kind == "amplitude":
            return self._unit_vectors(inputs)
        if self.first is None:
            return inputs.new_ones((*inputs.shape[:-1], 1), dtype=self.state_dtype)
        phases = self.first(data)  # (..., B, U)
        return torch.cat([torch.cos(phases), torch.sin(phases)], -1).to(self.state_dtype)

    def _unit_vectors(self, inputs: Tensor) -> Tensor:
        """Return normalised inputs; those in float64 may be out of float32's range before."""
        if inputs.dtype != torch.float64:
            inputs = inputs.to(self.state_dtype)
        return unit_vectors(inputs).to(self.state_dtype)

    def _dense(self, inputs: Tensor, weights: Tensor, fused: Fused) -> tuple[Tensor, Tensor]:
        """Return what the last fused matrix acts on, and that matrix."""
        data = self._data(inputs, weights)
        state, matrix = self._features(inputs, data), fused[0]
        for phases, following in zip(list(self.phases)[1:], fused[1:], strict=True):
            state, matrix = rotate(state @ matrix, phases(data)), following  # (..., B, 2 * 2**n)
        return state, side_by_side(matrix) if self.apart else matrix

    def _gate_by_gate(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """Return the amplitudes of the outcomes that are needed, shape ``(..., R, B)``, without forming unitaries."""
        exact = self.dense or self.state_dtype == torch.float64  # gate by gate rounding adds up; few rows can afford it
        dtype = torch.complex128 if exact else torch.complex64
        data = self._data(inputs, weights)
        if self.input_kind == "amplitude":
            columns = self._unit_vectors(inputs).mT.to(dtype)  # (..., 2**n, B)
        else:
            columns = self.constant("ground").to(dtype)  # (2**n, 1) until data comes in
        for phases, block in zip([None, *self.phases], self.blocks, strict=True):
            if phases is not None:
                angles = phases(data).mT
                columns = torch.polar(torch.ones_like(angles), angles).to(dtype) * columns
            columns = block(columns, weights)
        columns = self.measure(columns)  # (..., R, B or 1)
        return columns.expand(*columns.shape[:-1], inputs.shape[-2])

    def _find_real_parts(self) -> None:
        """Find out, by two random draws of weights, which parts are zero; then sines may be kept without their i."""
        if len(self.phases) > 1 or not self.dense:
            return
        draws = 6 * torch.rand(2, self.num_weights, generator=torch.Generator().manual_seed(0), device="cpu")
        with torch.no_grad():
            self.real, self.apart = real_parts(self._fuse(draws)[-1], phases=self.first is not None)
        if self.apart:
            columns = self.constant("columns").numpy()
            self.add_constant("columns", columns * np.repeat([1, -1j], columns.shape[-1] // 2), double=True)

    def _form_sums(self, blocks: Sequence[Sequence[Step]], weight_params: Sequence[Any]) -> None:
        """Turn the blocks of few qubits into trigonometric sums."""
        self.sums = nn.ModuleDict()
        start = None
        if self.num_qubits > MAX_QUBITS:
            return
        if self._prepared:
            columns = self._start(self._no_weights())
            start = np.eye(2**self.num_qubits) if columns is None else columns.numpy()
        end = self.measure.constant("matrix").numpy()
        self.sums = trigonometric_blocks(blocks, weight_params, self._first_block, start, end, self.real)

    def _no_weights(self) -> Tensor:
        """Return zeros, for what no weight enters."""
        return torch.zeros(self.num_weights, dtype=torch.float64, device="cpu")

    @property
    def _prepared(self) -> bool:
        """Whether what the first matrix acts on does not depend on weights."""
        return self.first is None or cast(Block, self.blocks[0]).constant

    def _keep_constant_blocks(self) -> None:
        """Form the matrices that no weight enters once and for all."""
        for i in range(self._first_block, len(self.blocks)):
            if self.blocks[i].constant and (i > self._first_block or self._prepared):
                matrix = self._matrix(i, self._no_weights(), torch.float64)
                self.add_constant(f"matrix_{i}", matrix.numpy(), double=True)
                self._constant.add(i)
