"""Adapters for pretrained models: quantum ones and their classical controls, of equal numbers of trained parameters."""

from __future__ import annotations

import re
import warnings
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast, get_args

from huggingface_hub import hf_hub_download
from peft import LoraConfig, OFTConfig, PeftConfig, PeftModel, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.tuners.tuners_utils import BaseTunerLayer, check_target_module_exists
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING, AuxiliaryTrainingWrapper
from peft.utils.constants import SEQ_CLS_HEAD_NAMES
from peft.utils.save_and_load import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from qiskit_qattn.errors import CheckpointError, ConfigError, unknown_name
from qiskit_qattn.hf.adapter_config import QattnAdapterConfig
from qiskit_qattn.hf.peft_method import check_width, linear_sizes
from qiskit_qattn.library.ansatzes import MAX_REPS
from qiskit_qattn.untrusted import one_line, printable, read_json, shown

AdapterKind = Literal["qisa", "unitary", "lora", "oft", "quadratic", "frozen"]
_OPTIONS = ("exclude_modules", "layers_pattern", "layers_to_transform", "modules_to_save", "task_type")
_FILES = ("adapter_config.json", "adapter_model.safetensors")
_TOLERANCE = 0.01
_RANKS = (2, 1, 3)  # of quadratic forms, tried in this order

Sizes = Sequence[tuple[int, int]]


def add_adapters(
    model: nn.Module,
    kind: AdapterKind = "qisa",
    num_qubits: int = 4,
    target_modules: Sequence[str] | str | None = None,
    *,
    reps: int | None = None,
    parameters: int | None = None,
    **options: Any,
) -> PeftModel:
    r"""Freeze a pretrained model and put a small trained adapter on each target layer :math:`x \mapsto W x + b`.

    - ``qisa`` adds :math:`B\, g \langle P \rangle(A x)`: a circuit on n qubits takes A x, of length 2ⁿ.
    - ``frozen`` is the same with the circuit left at random.
    - ``quadratic`` adds :math:`B\, v(A x)` with quadratic forms v of the unit vector, what such a circuit computes.
    - ``unitary`` makes it :math:`Q (W x + b)` with an orthogonal circuit on each block of 2ⁿ outputs.
    - ``lora`` is PEFT's low-rank adaptation, with a scale of 1.
    - ``oft`` is PEFT's orthogonal finetuning, which turns blocks of x.

    Models start unchanged: B, angles and rotations are zero. All kinds but ``unitary`` get as many trained parameters
    as ``qisa`` of ``num_qubits`` and ``reps`` has with M = 2ⁿ observables, so that they can be compared. What is chosen
    for that is M (of ``qisa``, ``frozen``, ``quadratic``), a rank, the block size, or the number of layers.

    Args:
        model: A model with ``nn.Linear`` layers or the ``Conv1D`` of transformers; it is changed in place.
        kind: One of the above.
        num_qubits: n.
        target_modules: Names of the layers, such as ``["q_proj", "v_proj"]``, a pattern, or ``all-linear``; None takes
            those that PEFT adapts with LoRA in this type of model.
        reps: Layers of the circuit; None takes 1, and 2 for ``unitary``.
        parameters: Number of trained parameters of all adapters together; None as above, and for ``unitary`` what
            ``reps`` gives. A warning says where the nearest possible number is off by more than 1 %.
        options: ``task_type``, ``modules_to_save``, ``exclude_modules``, ``layers_to_transform`` and
            ``layers_pattern``, as for PEFT's configurations.

    Returns:
        The model with its adapters. What PEFT and Trainer do with one of LoRA, they do with it: ``save_pretrained``,
        ``PeftModel.from_pretrained`` where this module is imported, ``merge_and_unload`` where the adapter is linear.

    Raises:
        UnknownNameError: For an unknown kind or option.
        ConfigError: For a model without the target layers or with adapters already, or numbers that are not possible.
        CircuitError: For a number of qubits or layers that is not possible.

    Source: Hu et al., arXiv 2106.09685 (``lora``); Qiu et al., arXiv 2306.07280 (``oft``); arXiv 2603.03318 (the
    circuit of ``qisa``). The idea of unitary adapters is from Aizpurua et al., arXiv 2605.05914, whose blocks are
    parameterised by the Cayley transform.
    """
    if kind not in get_args(AdapterKind):
        raise unknown_name("kind of adapter", str(kind), get_args(AdapterKind))
    for name in options:
        if name not in _OPTIONS:
            raise unknown_name("option of add_adapters", name, _OPTIONS)
    if any(isinstance(module, BaseTunerLayer) for module in model.modules()):
        raise ConfigError("The model has adapters already; take them out with its unload() first.")
    if parameters is not None and (isinstance(parameters, bool) or not isinstance(parameters, int) or parameters < 1):
        raise ConfigError(f"parameters must be a whole number of at least 1, got {shown(parameters)}.")
    options["target_modules"] = _target_names(model, target_modules, options.get("task_type"))
    plain = "unitary" if kind == "unitary" else "quadratic"  # without observables, which take time
    layers = _target_layers(model, QattnAdapterConfig(kind=plain, num_qubits=num_qubits, **options))
    sizes = [linear_sizes(layer) for layer in layers]
    transposed = [isinstance(layer, Conv1D) for layer in layers]
    if kind == "oft" and any(transposed):
        raise ConfigError(f"PEFT's oft adapts nn.Linear, but layers of this {type(model).__name__} are Conv1D.")
    if kind == "unitary":
        check_width(min(width for _, width in sizes), num_qubits)
    circuit = {"kind": "unitary", "reps": 1} if kind == "unitary" else {"kind": "qisa", "reps": reps}
    angles = len(QattnAdapterConfig(num_qubits=num_qubits, **circuit).circuit().weight_params)
    if kind == "unitary" and parameters is None:
        choice, rank = 2 if reps is None else reps, 1
        count = wanted = _parameters(kind, sizes, num_qubits, angles)[0](choice)
    else:
        wanted = parameters or _parameters("qisa", sizes, num_qubits, angles)[0](2**num_qubits)
        choice, rank, count = _nearest(kind, sizes, num_qubits, angles, wanted)
    config: PeftConfig
    if kind == "lora":
        config = LoraConfig(r=choice, lora_alpha=choice, fan_in_fan_out=all(transposed), **options)
    elif kind == "oft":
        config = OFTConfig(oft_block_size=choice, **options)
    elif kind == "unitary":
        config = QattnAdapterConfig(kind=kind, num_qubits=num_qubits, reps=choice, **options)
    else:
        config = QattnAdapterConfig(
            kind=kind, num_qubits=num_qubits, reps=reps, num_outputs=choice, rank=rank, **options
        )
    if abs(count - wanted) > _TOLERANCE * wanted:
        warnings.warn(
            f"The adapters of kind {kind!r} have {count:,} trained parameters, the nearest to {wanted:,} that these "
            f"layers allow ({count / wanted - 1:+.1%}).",
            stacklevel=2,
        )
    return _adapted(model, config)


def load_adapters(model: nn.Module, folder: str | Path, *, trainable: bool = False) -> PeftModel:
    """Put saved adapters on the model they were trained on, and return it as :func:`add_adapters` does.

    Weights are equal to the bit. The model is left as it was if the adapters do not fit.

    Args:
        model: The pretrained model; it is changed in place.
        folder: What ``save_pretrained`` wrote, or the name of a repository on the Hugging Face Hub.
        trainable: Whether the adapters are trained further; otherwise the model comes in evaluation mode.

    Raises:
        CheckpointError: For a folder without adapters, damaged ones, or adapters of another model.
        ConfigError: For a model that has adapters already.
    """
    if any(isinstance(module, BaseTunerLayer) for module in model.modules()):
        raise ConfigError("The model has adapters already; take them out with its unload() first.")
    where = Path(folder)
    try:
        if not where.exists():
            where, _ = (Path(hf_hub_download(str(folder), name)).parent for name in _FILES)
        config, weights = _read(where)
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise CheckpointError(
            f"{str(folder)!r} holds no adapters that can be loaded: {one_line(str(error))[:300]}"
        ) from error
    flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
    config.inference_mode, config.base_model_name_or_path = not trainable, None
    adapted, problem, cause = None, "", None
    try:
        adapted = _adapted(model, config)
        problem = _difference(adapted, weights)
    except (
        ValueError,
        TypeError,
        AttributeError,
        re.error,
    ) as error:  # of PEFT; for example where no layer has the names
        problem, cause = one_line(str(error))[:300], error
    if adapted is None or problem:
        _take_out(model, flags)
        raise CheckpointError(f"The adapters in {str(folder)!r} are of another model: {problem}") from cause
    set_peft_model_state_dict(adapted, weights)
    return adapted if trainable else adapted.eval()


def _adapted(model: nn.Module, config: PeftConfig) -> PeftModel:
    """Return a model with adapters, without what is between PEFT 0.21 and transformers 5.24."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        return cast(PeftModel, get_peft_model(cast(Any, model), config))


def _take_out(model: nn.Module, flags: Mapping[nn.Parameter, bool]) -> None:
    """Put a model's own layers back, also where only some were adapted, with their ``requires_grad``."""
    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            model.set_submodule(name, module.get_base_layer())
        elif isinstance(module, AuxiliaryTrainingWrapper):
            model.set_submodule(name, module.original_module)
    vars(model).pop("peft_config", None)
    for parameter, flag in flags.items():
        parameter.requires_grad_(flag)


# Layers


def _target_names(model: nn.Module, names: Sequence[str] | str | None, task: str | None) -> list[str] | str:
    """Return the names or pattern of the target layers, chosen where they were not given."""
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    if names == "all-linear":
        last = getattr(model, "get_output_embeddings", lambda: None)()
        heads = SEQ_CLS_HEAD_NAMES if task == "SEQ_CLS" else []
        return [n for n in linear if model.get_submodule(n) is not last and n.split(".")[0] not in heads]
    if names is not None:
        return list(names) if isinstance(names, tuple | set) else cast(Any, names)  # others are checked later
    kind = getattr(getattr(model, "config", None), "model_type", None)
    known = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(str(kind))
    if known is None:
        raise ConfigError(
            f"Which layers of a {type(model).__name__} to adapt is not known; name them in target_modules. Its linear "
            f"layers are called {_last_names(linear)}."
        )
    return known if isinstance(known, str) else list(known)


def _target_layers(model: nn.Module, config: QattnAdapterConfig) -> list[nn.Module]:
    """Return the layers that a configuration names."""
    targets = [module for name, module in model.named_modules() if check_target_module_exists(config, name)]
    if not targets:
        linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)]
        raise ConfigError(
            f"The {type(model).__name__} has no layer that target_modules={shown(config.target_modules)} names. Its "
            f"linear layers are called {_last_names(linear)}."
        )
    return targets


def _last_names(names: Iterable[str]) -> str:
    return ", ".join(sorted({name.rpartition(".")[2] for name in names})) or "nothing: it has none"


# Numbers of parameters


def _parameters(
    kind: AdapterKind, sizes: Sizes, num_qubits: int, angles: int, rank: int = 1
) -> tuple[Callable[[int], int], Sequence[int]]:
    """Return the number of trained parameters as a function of what is chosen to match it, and the possible choices.

    Args:
        kind: The kind of the adapters.
        sizes: The input and output widths of the layers.
        num_qubits: n.
        angles: The number of angles of a circuit; for ``unitary``, of one layer of its ansatz.
        rank: The rank of quadratic forms.
    """
    inputs, outputs, layers = sum(pair[0] for pair in sizes), sum(pair[1] for pair in sizes), len(sizes)
    down = 2**num_qubits * inputs
    if kind == "lora":
        return lambda rank: rank * (inputs + outputs), range(1, min(min(pair) for pair in sizes) + 1)
    if kind == "oft":
        widths = sorted({width for width, _ in sizes})
        divisors = [b for b in range(2, widths[0] + 1) if all(width % b == 0 for width in widths)]
        if not divisors:
            raise ConfigError(f"PEFT's oft turns blocks of one size, and none divides the inputs' lengths {widths}.")
        return lambda block: inputs * (block - 1) // 2, divisors
    if kind == "unitary":
        circuits = sum(width // 2**num_qubits for _, width in sizes)
        return lambda reps: circuits * angles * reps, range(1, MAX_REPS + 1)
    each, once = 1, angles if kind == "qisa" else 0  # of a bottleneck: for each output, and for all of them
    if kind == "quadratic":
        each, once = rank * (2**num_qubits + 1), 0
    return lambda count: down + outputs * count + layers * (each * count + once), range(1, 4**num_qubits)


def _nearest(kind: AdapterKind, sizes: Sizes, num_qubits: int, angles: int, wanted: int) -> tuple[int, int, int]:
    """Return the choice and rank whose number of parameters is nearest to the wanted one, and that number."""
    found = []
    for rank in [rank for rank in _RANKS if rank <= 2**num_qubits] if kind == "quadratic" else [1]:
        count, choices = _parameters(kind, sizes, num_qubits, angles, rank)  # counts grow with the choice
        after = min(bisect_left(choices, wanted, key=count), len(choices) - 1)
        found += [(choice, rank, count(choice)) for choice in choices[max(after - 1, 0) : after + 1]]
    return min(found, key=lambda each: abs(each[2] - wanted))


# Saved adapters


def _read(folder: Path) -> tuple[PeftConfig, dict[str, Tensor]]:
    """Return the configuration and weights of saved adapters.

    Raises:
        OSError, ValueError, TypeError, SafetensorError: For files that are missing or damaged.
    """
    missing = [name for name in _FILES if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"{', '.join(missing)} missing.")
    saved = read_json(folder / _FILES[0], dict[str, Any])
    kind = saved.get("peft_type")
    if kind not in PEFT_TYPE_TO_CONFIG_MAPPING:
        raise ValueError(f"adapter_config.json names the peft_type {shown(kind)}, which this PEFT does not know.")
    config = PEFT_TYPE_TO_CONFIG_MAPPING[kind].from_pretrained(str(folder))
    return config, load_file(folder / _FILES[1])


def _difference(model: PeftModel, weights: dict[str, Tensor]) -> str:
    """Return in what saved weights differ from those that a model's adapters have; empty where they fit."""
    own = get_peft_model_state_dict(model, save_embedding_layers=False)
    others = weights.keys() - own.keys() - model.state_dict().keys()  # embeddings may be saved too
    for name in sorted(own.keys() - weights.keys()):
        return f"{name} is missing ({len(own.keys() - weights.keys())} are)."
    for name in sorted(others):
        return f"this model has no {printable(name)} ({len(others)} are left over)."
    for name, tensor in sorted(own.items()):
        if tensor.shape != weights[name].shape:
            return f"{name} has shape {tuple(weights[name].shape)}, but this model's has {tuple(tensor.shape)}."
    return ""
