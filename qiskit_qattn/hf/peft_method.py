r"""Quantum adapters as a method of PEFT: what is added to frozen linear layers, and how it is built, saved and loaded.

PEFT's list of methods is an enumeration, and its ``register_peft_method`` refuses other names, but everything looks
a method up in four dictionaries by its string. So this module enters its own type there when it is imported.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any, cast

import torch
from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, check_adapters_to_merge
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from qiskit_qattn.errors import ConfigError
from qiskit_qattn.hf.adapter_config import QattnAdapterConfig, QattnPeftType
from qiskit_qattn.library.attention_circuit import AttentionCircuit
from qiskit_qattn.nn.controls import QuadraticValues
from qiskit_qattn.nn.heads import QuantumHead
from qiskit_qattn.simulation.statevector import StateProgram


class OrthogonalBlocks(nn.Module):
    r"""Turn a vector by orthogonal circuits, one for each block of length 2ⁿ.

    .. math:: y_b \mapsto Q(\theta_b)\, y_b

    Nothing is measured, so this runs on the exact engine only. What is left of a vector whose length is no multiple of
    2ⁿ stays as it is. All angles start at 0, where Q is the identity.

    Args:
        circuit: A circuit whose unitary is real.
        width: Length of the vectors, at least 2ⁿ.
    """

    def __init__(self, circuit: AttentionCircuit, width: int) -> None:
        super().__init__()
        self.size = 2**circuit.num_qubits
        self.weight = nn.Parameter(torch.zeros(width // self.size, len(circuit.weight_params)))
        self.program = StateProgram(circuit)

    def matrices(self) -> Tensor:
        """Return the transposes of all Q, shape ``(blocks, 2**n, 2**n)``."""
        return self.program.fused(self.weight)[0]

    def forward(self, y: Tensor) -> Tensor:
        """Return turned vectors, of the input's shape ``(..., width)``."""
        matrices = self.matrices()
        turned = y[..., : len(matrices) * self.size]
        rows = turned.reshape(-1, len(matrices), self.size).transpose(0, 1)  # (blocks, N, 2**n)
        rows = (rows.to(matrices.dtype) @ matrices).transpose(0, 1).reshape(turned.shape)
        return torch.cat([rows.to(y.dtype), y[..., turned.shape[-1] :]], -1)

    def turned_weight(self, weight: Tensor, *, back: bool = False) -> Tensor:
        """Return Q W for W of shape ``(width, in)``, or the inverse of Q times W."""
        matrices = self.matrices().double()
        parts = weight[: len(matrices) * self.size].double().unflatten(0, (len(matrices), self.size))
        turned = ((matrices if back else matrices.mT) @ parts).flatten(0, 1)
        return torch.cat([turned.to(weight.dtype), weight[len(turned) :]])


class QattnAdapterLayer(nn.Module, BaseTunerLayer):
    r"""A frozen linear layer with adapters, of which the active ones change what it gives.

    .. math:: W x + b + B\, g \langle P \rangle(A x) \qquad\text{or}\qquad Q (W x + b)

    A and B are matrices, of shapes ``(2**n, in)`` and ``(out, M)``; B starts at 0. ⟨P⟩ are the expectations of a
    circuit that encodes A x in amplitudes, g their gains. Q is of :class:`OrthogonalBlocks`.

    Args:
        base_layer: A ``nn.Linear``, a ``Conv1D`` of transformers, or another adapter's layer around one.
        adapter_name: Name of the first adapter.
        config: Its settings.
    """

    # Names that begin with an underscore, here and in the next class, are those that PEFT's own methods define too.
    adapter_layer_names = ("qattn_down", "qattn_map", "qattn_up", "qattn_turn")
    other_param_names = ("qattn_kind",)

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: QattnAdapterConfig) -> None:
        super().__init__()
        self.base_layer = base_layer
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self.in_features, self.out_features = linear_sizes(self.get_base_layer())
        self.qattn_down, self.qattn_map = nn.ModuleDict(), nn.ModuleDict()
        self.qattn_up, self.qattn_turn = nn.ModuleDict(), nn.ModuleDict()
        self.qattn_kind: dict[str, str] = {}
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: QattnAdapterConfig) -> None:
        """Add an adapter; a layer narrower than a block of a unitary one is a :class:`ConfigError`."""
        size = 2**config.num_qubits
        if config.kind == "unitary":
            check_width(self.out_features, config.num_qubits)
            added: dict[str, nn.Module] = {"qattn_turn": OrthogonalBlocks(config.circuit(), self.out_features)}
        else:
            assert config.num_outputs is not None
            down = nn.Linear(self.in_features, size, bias=False)
            nn.init.kaiming_uniform_(down.weight, a=math.sqrt(5))  # as LoRA's A
            up = nn.Linear(config.num_outputs, self.out_features, bias=False)
            nn.init.zeros_(up.weight)
            if config.kind == "quadratic":
                between: nn.Module = QuadraticValues(1, size, config.num_outputs, rank=config.rank)
            else:
                between = QuantumHead(config.circuit(), trainable=config.kind != "frozen")
            added = {"qattn_down": down, "qattn_map": between, "qattn_up": up}
        for name, module in added.items():
            getattr(self, name)[adapter_name] = module
        self.qattn_kind[adapter_name] = config.kind
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        """Put an adapter on the base layer's device, and in its dtype but for single precision at least."""
        weight = cast(Tensor, self.get_base_layer().weight)
        for name in self.adapter_layer_names:
            module = getattr(self, name)[adapter_name] if adapter_name in getattr(self, name) else nn.Module()
            if not any(parameter.is_meta for parameter in module.parameters()):  # those are to be loaded
                module.to(device=device or weight.device, dtype=torch.promote_types(weight.dtype, torch.float32))

    def _freeze_non_trainable_peft_weights(self, adapter_names: Any = None) -> None:
        """Keep the angles of ``frozen`` circuits, wherever PEFT makes an adapter's parameters trainable."""
        for name, kind in self.qattn_kind.items():
            if kind == "frozen" and name in self.qattn_map:
                cast(QuantumHead, self.qattn_map[name]).weight.requires_grad_(False)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return what the base layer and the active adapters give, in the base layer's dtype."""
        if self.disable_adapters and self.merged:
            self.unmerge()
        y = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters or self.merged:
            return y
        for name in self.active_adapters:
            if name in self.qattn_turn:
                y = self.qattn_turn[name](y)
            elif name in self.qattn_down:
                y = y + self._change(name, x).to(y.dtype)
        return y

    def _change(self, name: str, x: Tensor) -> Tensor:
        """Return what an adapter adds, shape ``(..., out)``."""
        down, between, up = self.qattn_down[name], self.qattn_map[name], self.qattn_up[name]
        rows = down(x.to(cast(Tensor, down.weight).dtype)).flatten(0, -2)  # (N, 2**n)
        values = between(rows) if isinstance(between, QuantumHead) else between(rows.unsqueeze(0)).squeeze(0)
        return up(values).unflatten(0, x.shape[:-1])

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Turn the base layer's weight and bias by unitary adapters.

        Args:
            safe_merge: Check that the weights are finite.
            adapter_names: The adapters to merge; None for the active ones.

        Raises:
            ConfigError: For an adapter that is not linear, before anything is changed.
            ValueError: With ``safe_merge``, for NaN or infinity.
        """
        names = [name for name in check_adapters_to_merge(self, adapter_names) if name in self.qattn_kind]
        for name in names:
            if self.qattn_kind[name] != "unitary":
                raise ConfigError(
                    f"The adapter {name!r} of kind {self.qattn_kind[name]!r} is not linear in the layer's input, so no "
                    f"weight equals it and it cannot be merged; only 'unitary' (and PEFT's own 'lora' and 'oft') can."
                )
        for name in names:
            self._turn(name, back=False, check=safe_merge)
            self.merged_adapters.append(name)

    def unmerge(self) -> None:
        """Turn the base layer's weight and bias back."""
        while self.merged_adapters:
            self._turn(self.merged_adapters.pop(), back=True)

    @torch.no_grad()
    def _turn(self, name: str, *, back: bool, check: bool = False) -> None:
        turn, base = cast(OrthogonalBlocks, self.qattn_turn[name]), self.get_base_layer()
        weight, bias, transposed = cast(Tensor, base.weight), cast(Tensor | None, base.bias), isinstance(base, Conv1D)
        turned = turn.turned_weight(weight.mT if transposed else weight, back=back)
        if check and not torch.isfinite(turned).all():
            raise ValueError(f"Merged with the adapter {name!r}, the weight holds NaN or infinity.")
        weight.copy_(turned.mT if transposed else turned)
        if bias is not None:
            bias.copy_(turn.turned_weight(bias[:, None], back=back)[:, 0])

    def __repr__(self) -> str:
        return f"qattn.{super().__repr__()}"


class QattnAdapterModel(BaseTuner):
    """A model with quantum adapters, as PEFT builds it from a :class:`QattnAdapterConfig`."""

    prefix = "qattn_"
    tuner_layer_cls = QattnAdapterLayer
    target_module_mapping = cast(Any, TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING)

    def _create_and_replace(
        self,
        peft_config: PeftConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        config = cast(QattnAdapterConfig, peft_config)
        if isinstance(target, QattnAdapterLayer):
            target.update_layer(adapter_name, config)
            return
        layer = QattnAdapterLayer(target, adapter_name, config)
        if adapter_name not in self.active_adapters:  # an additional adapter is not trained at once
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)

    def _check_merge_allowed(self) -> None:
        """Raise :class:`ConfigError` where a weight to be merged is another layer's too, such as the embedding's."""
        uses = Counter(id(parameter) for _, parameter in self.model.named_parameters(remove_duplicate=False))
        for name, module in self.model.named_modules():
            if isinstance(module, QattnAdapterLayer) and uses[id(module.get_base_layer().weight)] > 1:
                raise ConfigError(f"The weight of {name} is another layer's too, which merging would change as well.")

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        """Put a module in another's place; adapters are on the layer's device already, or on ``meta`` to be loaded."""
        setattr(parent, child_name, new_module)


def linear_sizes(layer: nn.Module) -> tuple[int, int]:
    """Return the lengths of a linear layer's inputs and outputs.

    Raises:
        ConfigError: For another layer.
    """
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    if isinstance(layer, Conv1D):
        return layer.weight.shape[0], layer.weight.shape[1]
    kind = type(layer).__name__
    raise ConfigError(f"Adapters are for nn.Linear and transformers' Conv1D; target_modules names a layer of {kind}.")


def check_width(out_features: int, num_qubits: int) -> None:
    """Raise :class:`ConfigError` for a layer that gives fewer values than a block of a unitary adapter has."""
    if out_features < 2**num_qubits:
        size = 2**num_qubits
        raise ConfigError(f"A unitary adapter turns blocks of {size}, but a layer gives {out_features} values.")


_QATTN = cast(Any, QattnPeftType.QATTN)
PEFT_TYPE_TO_CONFIG_MAPPING[_QATTN] = QattnAdapterConfig
PEFT_TYPE_TO_TUNER_MAPPING[_QATTN] = QattnAdapterModel
PEFT_TYPE_TO_PREFIX_MAPPING[_QATTN] = QattnAdapterModel.prefix
