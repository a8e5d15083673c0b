r"""How, where unitaries are small: everything that does not depend on data is multiplied out, once per step.

Let A be the last unitary, measurement bases included, with its real and imaginary parts side by side; f the features
of the data, which are the unit vector itself or cosines and sines of the first phases; S the signs of the observables.

.. math:: \langle O \rangle = (f A)^{\odot 2} S

With several data-dependent phases, f is multiplied by a unitary and the result rotated by a phase, in turns, before A.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from qiskit_qattn.simulation import gpu
from qiskit_qattn.simulation.adjoint import apply_block
from qiskit_qattn.simulation.amplitude import expectations_of_vectors
from qiskit_qattn.simulation.angles import AngleMap
from qiskit_qattn.simulation.cache import LatestResult
from qiskit_qattn.simulation.constants import ConstantModule
from qiskit_qattn.simulation.cost import LARGEST
from qiskit_qattn.simulation.derivatives import is_traced, may_read
from qiskit_qattn.simulation.gatewise import Gatewise
from qiskit_qattn.simulation.operators import Block
from qiskit_qattn.simulation.phase_product import phase_product
from qiskit_qattn.simulation.plan import Plan
from qiskit_qattn.simulation.precision import saves_calls
from qiskit_qattn.simulation.products import (
    as_real,
    effective_observables,
    find_zero_parts,
    quadratic_forms,
    rotate,
    side_by_side,
    squared_product,
)
from qiskit_qattn.simulation.trigonometric import MAX_QUBITS, MAX_QUBITS_FEW_CALLS, TrigonometricMatrix

Fused = tuple[Tensor, ...]


class Dense(ConstantModule):
    """Fused unitaries, and expectations of batches by a few matrix products.

    Args:
        plan: What is computed.
        gates: Its blocks, phases and measurement bases.

    Attributes:
        real: Whether one part, real or imaginary, of each amplitude is known to be zero and left out of A.
        split: Whether then cosines give the real parts and sines the imaginary ones; otherwise amplitudes are real.
    """

    def __init__(self, plan: Plan, gates: Gatewise) -> None:
        super().__init__()
        self.gates = gates
        self.amplitude_input = plan.input_kind == "amplitude"
        self.adjoint, self.float64, self.num_weights = plan.adjoint, plan.float64, len(plan.weight_params)
        self.num_features = plan.num_features
        self.first_phases: AngleMap | None = None  # their cosines and sines are the features
        program = plan.program
        assert program is not None
        self._blocks = program.blocks
        if plan.unique_phases is not None:
            unique = plan.unique_phases
            self.first_phases = AngleMap(program.phases[0].angles, plan.phase_params, combine=unique.coefficients)
            self.add_constant("columns", unique.features_to_amplitudes(), double=True)  # (2**n, F)
        self.first = 0 if self.first_phases is None else 1  # the block that acts on the features
        self.last = len(gates.blocks) - 1
        self.enters_once = self.first_phases is not None and len(gates.phases) == 1
        self.constant_blocks = set[int]()
        self.real = self.split = self.few_calls = False
        self._plan = plan
        self._start = self._constant_start()
        self.sums = self._trigonometric_sums()
        if len(gates.phases) <= 1:
            self._find_zero_parts()
            if self.real:
                self.sums = self._trigonometric_sums()
        if len(gates.blocks) * 4 ** (plan.num_qubits + 1) <= LARGEST:
            self._form_constant_blocks()
        self._cache = LatestResult[Fused]()

    def expectations(
        self, inputs: Tensor, weights: Tensor, signs: Tensor, fused: Fused | None = None, *, effective: bool = False
    ) -> Tensor:
        """Return expectations, shape ``(..., B, M)``, in the dtype of the signs.

        Args:
            inputs: Shape ``(..., B, num_inputs)``.
            weights: Angles in radians, shape ``(..., num_weights)``.
            signs: S, shape ``(..., R, M)``.
            fused: What :meth:`fused` gave for these weights, if it was called already.
            effective: Whether to form effective observables of the features, for few features and many rows.
        """
        if not effective and self._takes_kernel(inputs, signs):
            return self._by_kernel(inputs, weights, signs, fused)
        if self.enters_once and not effective and not is_traced():  # one autograd function
            return self._single_pass(inputs, weights, signs, fused)
        dtype = self.state_dtype(signs.dtype)
        fused = fused or self.fused(weights, dtype)
        if self.amplitude_input and not (inputs.dtype == torch.float64 != signs.dtype):  # norms follow from outcomes
            return expectations_of_vectors(inputs.to(signs.dtype), fused[0], signs)
        state, last = self._before_last(inputs, weights, fused, dtype)
        if effective:
            return quadratic_forms(state, effective_observables(last, signs, self.forming)).to(signs.dtype)
        return squared_product(state, last, signs.to(state.dtype)).to(signs.dtype)  # the plain path

    def amplitudes(self, inputs: Tensor, weights: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the amplitudes of all outcomes, ``(..., B, R or 2 * R)``: real parts, then any imaginary parts."""
        dtype = self.state_dtype(dtype)
        state, last = self._before_last(inputs, weights, self.fused(weights, dtype), dtype)
        return state @ last

    def state_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Return the real dtype of amplitudes in a module of ``dtype``."""
        return torch.float64 if self.float64 else dtype

    # Batches

    def _before_last(self, inputs: Tensor, weights: Tensor, fused: Fused, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return what the last matrix acts on, ``(..., B, F or 2 * 2**n)``, and that matrix."""
        data = self.gates.phase_data(inputs, weights)
        state, matrix = self._features(inputs, data, dtype), fused[0]
        for phases, following in zip(list(self.gates.phases)[1:], fused[1:], strict=True):
            state, matrix = rotate(state @ matrix, phases(data)), following  # (..., B, 2 * 2**n)
        return state, side_by_side(matrix) if self.split else matrix

    def _features(self, inputs: Tensor, data: Tensor, dtype: torch.dtype) -> Tensor:
        """Return f, shape ``(..., B, F)``."""
        if self.amplitude_input:
            return self.gates.unit_rows(inputs, dtype)
        if self.first_phases is None:
            return inputs.new_ones((*inputs.shape[:-1], 1), dtype=dtype)
        phases = self.first_phases(data)  # (..., B, U)
        return torch.cat([torch.cos(phases), torch.sin(phases)], -1).to(dtype)

    def _single_pass(self, inputs: Tensor, weights: Tensor, signs: Tensor, fused: Fused | None) -> Tensor:
        """Return the expectations of a circuit with one data-dependent phase by one autograd function."""
        block = source = None
        if fused is not None:
            source = fused[0]
        elif "1" in self.sums and torch.is_grad_enabled():  # the function forms the matrix too
            block, source = cast(TrigonometricMatrix, self.sums["1"]), weights
        else:
            source = self.fused(weights, self.state_dtype(signs.dtype))[0]
        data = self.gates.phase_data(inputs, weights)
        return phase_product(data, cast(AngleMap, self.first_phases), source, signs, block, split=self.split)

    def _takes_kernel(self, inputs: Tensor, signs: Tensor) -> bool:
        """Return whether one kernel of a GPU computes the expectations: of vectors, or of one data-dependent phase."""
        if self.amplitude_input and inputs.dtype == torch.float64:  # kernels read vectors in float32
            return False
        return (self.amplitude_input or self.enters_once) and gpu.takes(inputs, signs, self.num_features)

    def _by_kernel(self, inputs: Tensor, weights: Tensor, signs: Tensor, fused: Fused | None) -> Tensor:
        """Return the expectations by one kernel, which ``torch.compile`` records as an operator."""
        from qiskit_qattn.simulation.gpu.expectations import expectations

        matrix = (fused or self.fused(weights, signs.dtype))[0]
        if self.first_phases is None:
            return expectations(inputs, matrix, signs, None, None, False)
        columns = self.first_phases.columns(self.gates.phase_data(inputs, weights))
        return expectations(columns, matrix, signs, *self.first_phases.affine, self.split)

    # Unitaries

    def fused(self, weights: Tensor, dtype: torch.dtype) -> Fused:
        """Return the data-independent factors as real matrices that act on rows from the right.

        Without gradients they are cached on a CPU until the weights change.
        """
        if torch.is_grad_enabled() or not may_read(weights):
            return self._fuse(weights, dtype)
        return self._cache.get(lambda: self._fuse(weights, dtype), [weights], dtype, self.forming)

    def _fuse(self, weights: Tensor, dtype: torch.dtype) -> Fused:
        return tuple(self._matrix(i, weights, dtype) for i in range(self.first, self.last + 1))

    def _matrix(self, i: int, weights: Tensor, dtype: torch.dtype) -> Tensor:
        """Return block i, with what prepares its input or measures its output, as a real matrix."""
        if i in self.constant_blocks:
            return self.constant(f"matrix_{i}").to(dtype)
        if str(i) in self.sums:
            return cast(TrigonometricMatrix, self.sums[str(i)])(weights, dtype)
        first, last = i == self.first, i == self.last
        columns = self._apply_block(i, self._input_columns(weights) if first else None, weights)  # (..., 2**n, F)
        if last and not self.gates.measure.trivial:
            columns = self.gates.measure(columns)  # (..., R, F)
        return as_real(columns, from_real=first, last=last, real=self.real).to(dtype)

    def _input_columns(self, weights: Tensor) -> Tensor | None:
        """Return what takes features to states before the first block, ``(..., 2**n, F)``; None for the identity."""
        if self.amplitude_input:
            return None
        ground = self.gates.constant("ground")  # (2**n, 1)
        if self.first_phases is None:
            return ground
        return self._apply_block(0, ground, weights) * self.constant("columns")

    def _apply_block(self, i: int, columns: Tensor | None, weights: Tensor) -> Tensor:
        """Return W_i(θ) X, with gradients by the adjoint method where 2ⁿ × 2ⁿ matrices are small."""
        block = cast(Block, self.gates.blocks[i])
        if columns is None or self.adjoint:
            return apply_block(block, columns, weights)
        return block(columns, weights)

    # What is known before any weights

    def _trigonometric_sums(self) -> nn.ModuleDict:
        """Return the blocks of few qubits as trigonometric sums, by position."""
        found, plan = nn.ModuleDict(), self._plan
        if plan.num_qubits > (MAX_QUBITS_FEW_CALLS if self.few_calls else MAX_QUBITS):
            return found
        identity, measure = np.eye(2**plan.num_qubits), plan.readout.matrix()[plan.outcomes]
        for i in range(self.first, self.last + 1):
            first, last, start = i == self.first, i == self.last, identity
            if first and not self._input_is_constant:
                continue
            if first and self._start is not None:
                start = self._start
            found[str(i)] = TrigonometricMatrix(
                self._blocks[i],
                plan.weight_params,
                start,
                measure if last else identity,
                from_real=first,
                last=last,
                real=self.real,
                few_calls=self.few_calls,
            )
        return found

    def _constant_start(self) -> np.ndarray | None:
        """Return what the first block acts on, for few qubits and where no weight enters it; None for the identity."""
        if self._plan.num_qubits > MAX_QUBITS_FEW_CALLS or not self._input_is_constant:
            return None
        columns = self._input_columns(self._no_weights())
        return None if columns is None else columns.numpy()

    def _settle(self, like: Tensor) -> None:
        super()._settle(like)
        few_calls = saves_calls(like.device, self.forming)
        if few_calls != getattr(self, "few_calls", few_calls):  # not before the constructor's end
            self.few_calls = few_calls
            self.sums = self._trigonometric_sums()
            for matrix in self.sums.values():
                cast(TrigonometricMatrix, matrix).follow(self)

    def _find_zero_parts(self) -> None:
        """Find out, from two random draws of weights, which parts of amplitudes are zero."""
        draws = 6 * torch.rand(2, self.num_weights, generator=torch.Generator().manual_seed(0), device="cpu")
        with torch.no_grad():
            last = self._fuse(draws, self.state_dtype(torch.get_default_dtype()))[-1]
        self.real, self.split = find_zero_parts(last, phases=self.first_phases is not None)
        if self.split:  # sines without their factor i, so that they count as real
            columns = self.constant("columns").numpy()
            self.add_constant("columns", columns * np.repeat([1, -1j], columns.shape[-1] // 2), double=True)
            self._start = self._constant_start()

    def _form_constant_blocks(self) -> None:
        """Form the matrices that depend on no weight."""
        for i in range(self.first, self.last + 1):
            if cast(Block, self.gates.blocks[i]).fixed and (i > self.first or self._input_is_constant):
                matrix = self._matrix(i, self._no_weights(), torch.float64)
                self.add_constant(f"matrix_{i}", matrix.numpy(), double=True)
                self.constant_blocks.add(i)

    @property
    def _input_is_constant(self) -> bool:
        """Whether what the first matrix acts on depends on no weight."""
        return self.first_phases is None or cast(Block, self.gates.blocks[0]).fixed

    def _no_weights(self) -> Tensor:
        """Return weights for blocks that depend on none."""
        return torch.zeros(self.num_weights, dtype=torch.float64, device="cpu")
