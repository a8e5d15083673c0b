"""Quantum attention heads in the models of transformers, through its ``AttentionInterface``.

The circuits are a module of each attention, so they are trained, moved and saved with the model. A saved model says in
its ``config.json`` which they are, as models with quantized weights do, and a "quantizer" makes them before weights are
loaded: that is the hook that transformers has for it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypedDict, TypeVar, cast

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import PreTrainedModel
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from qiskit_qattn.errors import CheckpointError, CircuitError, ConfigError
from qiskit_qattn.hf.heads import HEADS, IMPLEMENTATION, QattnHeads, put_heads
from qiskit_qattn.nn.heads import QuantumHead
from qiskit_qattn.nn.mixed_heads import MixedHeads
from qiskit_qattn.nn.placement import to_backend
from qiskit_qattn.nn.replace import listed, matches, register_library
from qiskit_qattn.nn.sampling import number_layers
from qiskit_qattn.untrusted import as_type, shown

METHOD = "qattn"
M = TypeVar("M", bound=nn.Module)


class _Layer(TypedDict):
    names: list[str]
    heads: str
    num_qubits: int | None
    reps: int | None
    observables: dict[str, list[str]]


class Layer(_Layer, total=False):
    """Attention of equal heads, as ``config.json`` has it: paths, the heads, and the Pauli strings of each kind."""

    sampling: str


def replace_attention(
    model: nn.Module,
    heads: str,
    where: Callable[[str], bool] | str | None = None,
    *,
    num_qubits: int | None = None,
    reps: int | None = None,
    sampling: str | None = None,
    backend: Any = None,
) -> list[str]:
    """Give a Hugging Face model heads of any kind, in place, and return the paths of the attention that has them now.

    The model's projections stay as they are, and each head takes its own part of them. Attention that is left as it is
    runs as ``sdpa`` does. ``save_pretrained`` saves the heads, and the Auto classes load them where
    ``qiskit_qattn.hf`` is imported. :func:`qiskit_qattn.replace_attention` calls this.

    Args:
        model: A model of transformers, or a module that holds one, whose attention runs through its
            ``AttentionInterface``.
        heads: A kind, for all heads, or ``kind:count,…`` that sums to the number of heads of each attention.
        where: Which attention, by its path: a predicate, or a pattern as of shell file names. None takes all.
        num_qubits: Qubits of every circuit; None takes the fewest.
        reps: Ansatz layers of every circuit; None takes each kind's own.
        sampling: How attention is sampled, such as ``stratified?samples=32``; None for exact attention.
        backend: Where circuits run; None is the exact engine.

    Raises:
        ConfigError: If nothing is there to be replaced, for heads that do not fit, and for a model that is quantized
            or has adapters; nothing was replaced then.
        CircuitError: For a circuit that cannot be built; nothing was replaced then.
        UnknownNameError: For an unknown kind or backend; nothing was replaced then.
    """
    if any(isinstance(module, BaseTunerLayer) for module in model.modules()):
        raise ConfigError("The model has adapters already; replace its attention first, and add adapters then.")
    every = {name: module for part in _models(model) for name, module in _attention(model, part)}
    left = {name: module for name, module in every.items() if HEADS not in module._modules}
    if not left:
        raise ConfigError(f"{type(model).__name__} has no attention to replace: its attention is quantum already.")
    found = {name: module for name, module in left.items() if matches(name, where)}
    if not found:
        given = f"{where!r} matches" if isinstance(where, str) else "the predicate where accepts"
        raise ConfigError(f"No attention has a name that {given}: {listed(left)}.")
    for part in _models(model):
        if not isinstance(getattr(part.config, "quantization_config", None), QattnAttentionConfig | None):
            raise ConfigError(f"{type(part).__name__} is quantized, which it cannot be beside quantum heads.")
    made = {name: _made(name, module, heads, num_qubits, reps, sampling) for name, module in found.items()}
    if backend is not None:
        to_backend(nn.ModuleList(made.values()), backend)
    for name, module in found.items():
        put_heads(module, made[name])
    number_layers(model)
    for part in _models(model):
        own = {id(module) for module in found.values()}
        names = [name for name, module in _attention(part, part) if id(module) in own]
        if names:
            first = part.get_submodule(f"{names[0]}.{HEADS}")
            _describe(part, names, cast(QattnHeads, first), num_qubits, reps)
    return list(made)


def _describe(
    model: PreTrainedModel, names: list[str], heads: QattnHeads, num_qubits: int | None, reps: int | None
) -> None:
    """Enter new heads in a model's configuration, and have it call them."""
    layer = Layer(names=names, heads=heads.heads, num_qubits=num_qubits, reps=reps, observables=heads.observables())
    if heads.sampling is not None:
        layer["sampling"] = heads.sampling.scheme.text
    saved = getattr(model.config, "quantization_config", None)
    model.config.quantization_config = QattnAttentionConfig([*(saved.layers if saved else []), layer])
    model.set_attn_implementation(IMPLEMENTATION)


def _models(model: nn.Module) -> list[PreTrainedModel]:
    """Return the models of transformers that a module is or holds, without those inside another."""
    found: list[PreTrainedModel] = []
    for module in model.modules():  # parents come first
        if isinstance(module, PreTrainedModel) and not any(module in list(other.modules()) for other in found):
            found.append(module)
    return found


def _attention(model: nn.Module, part: nn.Module) -> Iterable[tuple[str, nn.Module]]:
    """Yield the modules of a part whose ``forward`` runs through ``AttentionInterface``, by their paths in a model."""
    inside = set(part.modules())
    for name, module in model.named_modules():
        if module not in inside:
            continue
        code = getattr(inspect.unwrap(type(module).forward), "__code__", None)
        if code is not None and "ALL_ATTENTION_FUNCTIONS" in code.co_names:
            yield name, module


def _made(name: str, module: nn.Module, heads: str, *options: Any) -> QattnHeads:
    """Return the heads of an attention, on its device and in its dtype and mode.

    Raises:
        ConfigError, CircuitError: That names the attention.
    """
    counts = [getattr(module, key, None) for key in ("num_heads", "num_attention_heads", "n_heads")]
    config = getattr(module, "config", None)
    num_heads = next((count for count in counts if count), getattr(config, "num_attention_heads", None))
    widths = [getattr(module, key, None) for key in ("head_dim", "attention_head_size", "key_value_proj_dim")]
    head_dim = next((width for width in widths if width), None)
    if not isinstance(num_heads, int) or not isinstance(head_dim, int):
        raise ConfigError(f"{name}: the number of heads of a {type(module).__name__}, or their size, is not known.")
    try:
        made = QattnHeads(num_heads, head_dim, heads, *options)
    except (CircuitError, ConfigError) as error:
        raise type(error)(f"{name} cannot be replaced: {error}") from error
    like = next(module.parameters())
    return made.to(device=like.device, dtype=like.dtype).train(module.training)


def freeze_controls(model: M) -> M:
    """Take the circuits that are not trained out of the training again, in which transformers puts what it loads."""
    for module in model.modules():
        if isinstance(module, MixedHeads):
            for name, kind in module.kinds.items():
                head = module.maps[name]
                if isinstance(head, QuantumHead) and not kind.trainable:
                    head.weight.requires_grad_(False)
    return model


@register_quantization_config(METHOD)
class QattnAttentionConfig(QuantizationConfigMixin):
    """Which attention of a model has which heads, as ``quantization_config`` in its ``config.json``.

    Args:
        layers: The attention, in groups of equal heads.
        kwargs: What transformers adds.

    Raises:
        ConfigError: For groups of another form.
    """

    def __init__(self, layers: list[Layer], **kwargs: Any) -> None:
        self.quant_method = METHOD  # type: ignore[assignment]
        try:
            self.layers: list[Layer] = as_type(layers, list[Layer], "layers")
        except ValueError as error:
            raise ConfigError(f"The model's quantum attention cannot be read: {error}.") from error


@register_quantizer(METHOD)
class QattnAttentionQuantizer(HfQuantizer):
    """Makes the heads of a saved model before its weights are loaded."""

    quantization_config: QattnAttentionConfig

    def _process_model_before_weight_loading(self, model: PreTrainedModel, **kwargs: Any) -> PreTrainedModel:
        modules, prefix = dict(_attention(model, model)), f"{model.base_model_prefix}."
        for layer in self.quantization_config.layers:
            for saved in layer["names"]:
                # A model with another head, or none, has the same attention under another path.
                names = (saved, saved.removeprefix(prefix), prefix + saved)
                name = next((each for each in names if each in modules), None)
                if name is None:
                    raise ConfigError(f"{type(model).__name__} has no attention {shown(saved)}, which has saved heads.")
                options = layer["num_qubits"], layer["reps"], layer.get("sampling")
                made = _made(name, modules[name], layer["heads"], *options)
                if made.observables() != layer["observables"]:
                    raise ConfigError(f"The heads of {name} were saved with other observables than this version's.")
                put_heads(modules[name], made)
        number_layers(model)
        model.set_attn_implementation(IMPLEMENTATION)
        return model

    def _process_model_after_weight_loading(self, model: PreTrainedModel, **kwargs: Any) -> PreTrainedModel:
        for name, module in model.named_modules():
            # transformers marks what it loaded; its models draw no values for modules that they do not know.
            if isinstance(module, QattnHeads) and not all(
                getattr(parameter, "_is_hf_initialized", False) for parameter in module.parameters()
            ):
                raise CheckpointError(f"Weights of {name} are missing in the saved model.")
            if isinstance(module, PreTrainedModel):
                module.is_quantized = False  # type: ignore[assignment]  # it may change its dtype
        return freeze_controls(model)

    def is_serializable(self) -> bool:
        """Return True: weights are saved as they are."""
        return True

    @property
    def is_trainable(self) -> bool:
        """True: nothing is quantized."""
        return True

    @property
    def is_qat_trainable(self) -> bool:
        """True, for Trainer."""
        return True


register_library(lambda model: any(any(_attention(part, part)) for part in _models(model)), replace_attention)
