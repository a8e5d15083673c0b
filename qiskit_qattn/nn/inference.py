r"""Inference: a copy of a model in which circuits are part of the attention's input projection.

Encoding a projected token :math:`W x + b` into amplitudes and applying the unitary U is linear up to a norm:
:math:`a = A x + c` with :math:`A = U W`, :math:`c = U b`. So

.. math:: g_m \langle P_m \rangle = g_m \sum_i S_{im} |a_i|^2 \Big/ \sum_i |a_i|^2

where the last sum is over one measurement basis: one product with the token, squares, and one product with the signs S.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from qiskit_qattn.errors import ConfigError
from qiskit_qattn.nn.attention import CausalSelfAttention
from qiskit_qattn.nn.heads import QuantumHead, fuse_heads
from qiskit_qattn.nn.mixed_heads import MixedHeads
from qiskit_qattn.nn.placement import Movable, mark_fixed
from qiskit_qattn.simulation import cpu, gpu
from qiskit_qattn.simulation.amplitude import check_finite, in_range, within_range
from qiskit_qattn.simulation.derivatives import may_read
from qiskit_qattn.simulation.statevector import Fused, StatevectorProgram
from qiskit_qattn.untrusted import shown

M = TypeVar("M", bound=nn.Module)
_FEW_ROWS = 64  # up to here a CPU takes one compiled loop: torch's calls cost more than the work in them


@torch.inference_mode(False)  # also where the caller is in that mode: the copy may take part in gradients
def inference(model: M) -> M:
    """Return a copy of a model for inference: a snapshot of its weights, in evaluation mode.

    The copy has the same interface and gives the same values. Circuits of attention on the exact engine are formed
    once: in a GPT, amplitude-encoded ones become part of the attention's input projection where that takes fewer
    multiplications, the others keep their unitary. Later changes of the model's weights do not reach the copy, and the
    copy is neither trained, saved nor moved to another backend: do that with the model. Heads and connectors on other
    backends are the model's own and stay where they run. Heads and projections that have hooks, are adapted or are
    subclasses are copied as they are; a ``forward`` that was set on an instance and calls the model's own module still
    calls that one.

    Args:
        model: A :class:`GPT`, or any other torch module; what of it holds no circuit is copied as it is.

    Raises:
        ConfigError: For a model with an attribute that cannot be copied, such as an open file, or no module at all.
    """
    if not isinstance(model, nn.Module):
        raise ConfigError(f"inference() takes a torch.nn.Module, got {shown(model)}.")
    replaced: dict[int, nn.Module] = {}  # what deepcopy takes for a module, by its id
    sizes: dict[str, list[int]] = {}
    for name, module in model.named_modules():
        if isinstance(module, MixedHeads):
            sizes[name] = _replace_heads(module, replaced)
        if isinstance(module, Movable) and runs_elsewhere(module):
            replaced[id(module)] = module
    shared = {id(part) for key, own in replaced.items() if key == id(own) for part in own.modules()}
    try:
        twin = copy.deepcopy(model, {**_not_copied(model), **replaced})
    except (TypeError, RuntimeError) as error:
        raise ConfigError(f"{type(model).__name__} cannot be copied for inference: {error}") from error
    for module in twin.modules():
        if id(module) not in shared:  # the model's own heads keep the model's mode
            module.training = False
            mark_fixed(module)
    for name, found in sizes.items():
        if isinstance(attention := twin.get_submodule(name), CausalSelfAttention):
            attention.sizes = found
    return twin


@contextmanager
def evaluating(model: nn.Module | None) -> Iterator[None]:
    """Put a module and its parts into evaluation mode for the block, and restore the mode of each afterwards."""
    if model is None:
        yield
        return
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def _not_copied(model: nn.Module) -> dict[int, Any]:
    """Return what a copy shares with a model, by id: methods of the caller's objects as hooks, and computed tensors."""
    inside = {id(module) for module in model.modules()}
    shared: dict[int, Any] = {}
    for module in model.modules():
        hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
        computed = (each for each in vars(module).values() if isinstance(each, Tensor) and not each.is_leaf)
        shared |= {id(hook): hook for hook in hooks if id(getattr(hook, "__self__", None)) not in inside}
        shared |= {id(tensor): tensor.detach() for tensor in computed}
    return shared


class FixedHead(nn.Module):
    """A quantum head whose unitary is formed: rows to values without its weights.

    Args:
        program: The exact engine's program.
        unitary: The matrices of the weights.
        weight: The weights, for what is not part of a matrix.
        gain: The gain of each value, shape ``(*heads, M)``, or a linear map of all, ``(*heads, M, h)``.
        linear: Whether ``gain`` is a linear map.
    """

    def __init__(self, program: StatevectorProgram, unitary: Fused, weight: Tensor, gain: Tensor, linear: bool) -> None:
        super().__init__()
        self.program = program
        self.count = len(unitary)
        for i, matrix in enumerate(unitary):
            self.register_buffer(f"unitary_{i}", matrix)
        self.register_buffer("weight", weight.detach().clone())
        gain = gain.detach().clone()
        self.register_buffer("signs", None if linear else program.scaled_signs(gain))
        self.register_buffer("readout", gain if linear else None)
        self.num_features = program.num_inputs

    weight: Tensor
    signs: Tensor | None
    readout: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        """Return values, shape ``(*heads, N, M or h)``, of inputs ``(*heads, N, num_features)``."""
        check_finite(x)
        unitary = tuple(getattr(self, f"unitary_{i}") for i in range(self.count))
        values = self.program(x, self.weight, unitary, self.signs)
        if self.readout is not None:
            values = values @ self.readout.to(values.dtype)
        return values.to(x.dtype)


class FixedAmplitudeHead(nn.Module):
    r"""Values of H amplitude-encoded heads whose unitary is formed: amplitudes, squares, signs and norms.

    Args:
        matrix: U, shape ``(H, 2**n, R or 2 * R)``; None where the projection gives amplitudes already.
        signs: S times gains, shape ``(H, R, M)``.
        basis: How many of the R outcomes are of the first basis, whose squares sum to the squared norm.
        first: The amplitudes of the state |0…0⟩, which a zero vector is encoded as, shape ``(H, R or 2 * R)``.
    """

    matrix: Tensor | None
    signs: Tensor
    zero: Tensor

    def __init__(self, matrix: Tensor | None, signs: Tensor, basis: int, first: Tensor) -> None:
        super().__init__()
        norms = signs.new_zeros(*signs.shape[:2], 1)
        norms[:, :basis] = 1
        self.register_buffer("matrix", matrix)
        self.register_buffer("signs", torch.cat([signs, norms], -1))  # (H, R, M + 1): the last column gives norms
        self.register_buffer("zero", _outcomes(first.unsqueeze(1), signs.shape[1]) @ signs)  # (H, 1, M)

    def extra_repr(self) -> str:
        """Return the number of heads and values, for ``print(model)``."""
        return f"heads={len(self.signs)}, outputs={self.signs.shape[-1] - 1}, in_projection={self.matrix is None}"

    def forward(self, x: Tensor) -> Tensor:
        """Return values, shape ``(H, N, M)``.

        Args:
            x: Vectors of any norm, shape ``(H, N, 2**n)``; or amplitudes of all R outcomes, real parts and then, where
                there are any, imaginary ones, shape ``(H, N, R or 2 * R)``.

        Raises:
            EncodingError: For NaN or infinity, on a CPU outside ``torch.compile``.
        """
        if self.matrix is not None and gpu.takes(x, self.signs, x.shape[-1]):
            from qiskit_qattn.simulation.gpu.expectations import expectations

            return expectations(x, self.matrix, self.signs[..., :-1], None, None, False)
        if torch.is_autocast_enabled(x.device.type):
            with torch.autocast(x.device.type, enabled=False):
                return self(x.to(self.signs.dtype))
        values = kept = None
        if not torch.is_grad_enabled() and cpu.takes(x) and x.shape[1] <= _FEW_ROWS:
            from qiskit_qattn.simulation.cpu.readout import read_out

            values = x.new_empty(*x.shape[:2], self.signs.shape[-1] - 1)
            matrix = x.new_empty(0, 0, 0) if self.matrix is None else self.matrix
            if read_out(*(tensor.numpy() for tensor in (x.contiguous(), matrix, self.signs, values))):
                return values
            kept = ~values[..., :1].isnan()
        amplitudes = x if self.matrix is None else x @ self.matrix
        if values is None and may_read(x):
            product = self._product(amplitudes)
            if within_range(product[..., -1]):
                return product[..., :-1] / product[..., -1:]
            kept = in_range(product[..., -1:].detach())
            product = self._product(torch.where(kept, amplitudes, 1.0))
            values = product[..., :-1] / product[..., -1:]
        check_finite(amplitudes)
        largest = amplitudes.abs().amax(-1, keepdim=True)  # (H, N, 1)
        product = self._product(amplitudes / torch.where(largest == 0, 1.0, largest))
        norms = torch.where(largest == 0, 1.0, product[..., -1:])
        scaled = torch.where(largest == 0, self.zero, product[..., :-1] / norms)
        return scaled if kept is None or values is None else torch.where(kept, values, scaled)

    def _product(self, amplitudes: Tensor) -> Tensor:
        """Return values times squared norms, then squared norms, shape ``(H, N, M + 1)``."""
        return _outcomes(amplitudes, self.signs.shape[1]) @ self.signs


def _replace_heads(attention: MixedHeads, replaced: dict[int, nn.Module]) -> list[int]:
    """Say what stands in for the heads of a layer and for a GPT's projection; return the sizes of what that gives."""
    linear, given = None, list[int]()
    if isinstance(attention, CausalSelfAttention):
        linear, given = attention.c_attn, attention.sizes
    sizes = list(given)
    plain = linear if type(linear) is nn.Linear and is_plain(linear) else None
    weights = [] if plain is None else list(plain.weight.detach().split(sizes))
    biases = [] if plain is None or plain.bias is None else list(plain.bias.detach().split(sizes))
    for position, (name, head) in enumerate(attention.maps.items(), 1):
        if type(head) is not QuantumHead or not head.fusible or not is_plain(head):
            continue
        with torch.no_grad():
            unitary = tuple(matrix.clone() for matrix in fuse_heads([head])[0])  # not those that the engine caches
        program = cast(StatevectorProgram, head._program)
        values_only = attention.kinds[name].projections == "v" and not head.linear
        # Half-precision models simulate in float32.
        if not (unitary and head.amplitude and values_only and unitary[0].dtype == head.weight.dtype):
            replaced[id(head)] = FixedHead(copy.deepcopy(program), unitary, head.weight, head.gain, head.linear)
            continue
        matrix = unitary[0].expand(attention.counts[name], -1, -1)  # (H, 2**n, R or 2 * R)
        signs = program.scaled_signs(head.gain.detach())  # (H, R, M)
        folds = plain is not None and _saves_work(plain.in_features, *matrix.shape[1:])
        separate = None if folds else matrix.contiguous()
        replaced[id(head)] = FixedAmplitudeHead(separate, signs, matrix.shape[1], matrix[:, 0])
        if not folds:
            continue
        weights[position] = _times(matrix, weights[position])
        if biases:
            biases[position] = _times(matrix, biases[position].unsqueeze(-1)).squeeze(-1)
        sizes[position] = len(weights[position])
    if plain is not None and sizes != given:
        folded = nn.utils.skip_init(nn.Linear, plain.in_features, sum(sizes), bias=bool(biases))
        folded.weight = nn.Parameter(torch.cat(weights), requires_grad=False)
        if biases:
            folded.bias = nn.Parameter(torch.cat(biases), requires_grad=False)
        replaced[id(plain)] = folded
    return sizes


def runs_elsewhere(part: Movable) -> bool:
    """Tell whether a circuit runs on another backend than the exact engine, or on an estimator of its own."""
    execution = part.execution
    if isinstance(part, QuantumHead):
        return not part.fusible
    if execution.place is not None:
        return not isinstance(execution.program, StatevectorProgram)
    return not execution.differentiable


def is_plain(module: nn.Module) -> bool:
    """Tell whether calling a module does no more than its class and weights say."""
    hooks = module._forward_hooks or module._forward_pre_hooks
    return not hooks and "forward" not in vars(module) and not nn.utils.parametrize.is_parametrized(module)


def _saves_work(width: int, size: int, outputs: int) -> bool:
    """Tell whether a row takes fewer multiplications by A = U W than by W and U one after the other."""
    return width * outputs <= size * (width + outputs)


def _times(matrix: Tensor, columns: Tensor) -> Tensor:
    """Return U W of all heads, shape ``(H * R or 2 H * R, C)``, for W ``(H * 2**n, C)``."""
    return (matrix.mT @ columns.unflatten(0, matrix.shape[:2]).to(matrix.dtype)).flatten(0, 1).to(columns.dtype)


def _outcomes(amplitudes: Tensor, count: int) -> Tensor:
    """Return the squared moduli of R amplitudes, shape ``(H, N, R)``."""
    squares = amplitudes.square()
    return squares if squares.shape[-1] == count else squares[..., :count] + squares[..., count:]
