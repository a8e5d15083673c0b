"""Putting quantum heads into a model that exists: its ``torch.nn.MultiheadAttention`` is replaced in place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from qiskit_qattn.backends.place import Place
from qiskit_qattn.backends.registry import Backend
from qiskit_qattn.errors import CircuitError, ConfigError
from qiskit_qattn.nn.attention import CausalSelfAttention
from qiskit_qattn.nn.multihead import QuantumMultiheadAttention
from qiskit_qattn.nn.placement import to_backend
from qiskit_qattn.nn.sampling import number_layers
from qiskit_qattn.untrusted import shown

Where = Callable[[str], bool] | str | None
_SHOWN = 6  # names in an error
_HOOKS = (  # those of a call; handles of hooks refer to these very dictionaries
    "_forward_hooks",
    "_forward_hooks_always_called",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_is_full_backward_hook",
)


Replace = Callable[..., list[str]]
_LIBRARIES: list[tuple[Callable[[nn.Module], bool], Replace]] = []


def register_library(takes: Callable[[nn.Module], bool], replace: Replace) -> None:
    """Let :func:`replace_attention` call another function, with the same arguments, for models of a library."""
    _LIBRARIES.append((takes, replace))


def replace_attention(
    model: nn.Module,
    heads: str,
    where: Callable[[str], bool] | str | None = None,
    *,
    num_qubits: int | None = None,
    reps: int | None = None,
    sampling: str | None = None,
    backend: Backend | Place | str | None = None,
) -> list[str]:
    """Replace a model's attention by :class:`QuantumMultiheadAttention` in place, and return the names of what it was.

    Each ``torch.nn.MultiheadAttention`` is replaced, at any depth, as ``QuantumMultiheadAttention.from_classical``
    does: its trained projections are the same parameters as before, with their device, type and ``requires_grad``; its
    mode and the hooks of its calls stay. One that a model holds in several places is replaced once and stays shared.
    Subclasses stay as they are, since their ``forward`` may be another.

    Of a Hugging Face model, once ``qiskit_qattn.hf`` is imported, each attention that runs through transformers'
    ``AttentionInterface`` gets its heads as a module: see :func:`qiskit_qattn.hf.attention.replace_attention`.

    Circuits have new parameters, drawn from torch's global generator. An optimizer that was made before holds the
    projections, but not these: make it afterwards. For other heads in other layers, call this once for each, with
    ``where``.

    Args:
        model: Any torch module.
        heads: A kind, for all heads, or ``kind:count,…`` that sums to the ``num_heads`` of each attention.
        where: Which ones, by their path in the model as in ``named_modules()``: a predicate, or a pattern as of shell
            file names, such as ``"encoder.layers.[01].*"``, whose ``*`` also matches dots. None takes all.
        num_qubits: As for :class:`QuantumMultiheadAttention`.
        reps: As for :class:`QuantumMultiheadAttention`.
        sampling: As for :class:`QuantumMultiheadAttention`.
        backend: As for :class:`QuantumMultiheadAttention`.

    Returns:
        The paths of what was replaced, in the order of ``named_modules()``; of a shared one, all its paths.

    Raises:
        ConfigError: If nothing is there to be replaced, for heads that do not fit, and for an attention that is pruned,
            parametrized or has a ``forward`` of its own; nothing was replaced then.
        CircuitError: For a circuit that cannot be built, as of too few qubits; nothing was replaced then.
        UnknownNameError: For an unknown kind or backend; nothing was replaced then.
    """
    if not (where is None or isinstance(where, str) or callable(where)):
        raise ConfigError(
            f"where must be a pattern or a predicate of a module's name, got {type(where).__name__} {shown(where)}."
        )
    options = {"num_qubits": num_qubits, "reps": reps, "sampling": sampling}
    for takes, replace in _LIBRARIES:
        if isinstance(model, nn.Module) and takes(model):
            return replace(model, heads, where, **options, backend=backend)
    found = _chosen(model, where)
    replacements = {id(mha): _replacement(names[0], mha, heads, options) for names, mha in found}
    if backend is not None:
        to_backend(nn.ModuleList(replacements.values()), backend)
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if id(child) in replacements:
                parent._modules[name] = replacements[id(child)]
    number_layers(model)
    return [name for names, _ in found for name in names]


def _chosen(model: nn.Module, where: Where) -> list[tuple[list[str], nn.MultiheadAttention]]:
    """Return the attention to replace, each once with all its paths.

    Raises:
        ConfigError: If there is none.
    """
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model must be a torch.nn.Module, got {type(model).__name__}.")
    if isinstance(model, nn.MultiheadAttention):
        raise ConfigError(
            f"The model is a {type(model).__name__} itself, which no module holds, so it cannot be replaced in place. "
            f"Use QuantumMultiheadAttention.from_classical(model, heads)."
        )
    named: dict[int, tuple[list[str], nn.MultiheadAttention]] = {}
    others = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if not isinstance(module, nn.MultiheadAttention):
            continue
        if _kind(module) is nn.MultiheadAttention:
            named.setdefault(id(module), ([], module))[0].append(name)
        else:
            others[name] = type(module).__name__
    if not named:
        raise ConfigError(
            f"{type(model).__name__} holds no torch.nn.MultiheadAttention{_subclasses(others)}{_hint(model)}."
        )
    found = [pair for pair in named.values() if any(matches(name, where) for name in pair[0])]
    if not found:
        given = f"{where!r} matches" if isinstance(where, str) else "the predicate where accepts"
        names = listed([name for paths, _ in named.values() for name in paths])
        raise ConfigError(f"No torch.nn.MultiheadAttention has a name that {given}: {names}.")
    return found


def _kind(module: nn.Module) -> type:
    """Return a module's class, without the one that a parametrization puts in front."""
    return type(module).__mro__[1] if nn.utils.parametrize.is_parametrized(module) else type(module)


def matches(name: str, where: Where) -> bool:
    """Return whether a path is one of those that are asked for."""
    if isinstance(where, str):
        return fnmatchcase(name, where)
    return where is None or bool(where(name))


def _subclasses(others: Mapping[str, str]) -> str:
    """Say which subclasses of attention there are."""
    if not others:
        return ""
    if set(others.values()) == {QuantumMultiheadAttention.__name__}:
        return f"; its attention is quantum already: {listed(others)}"
    found = listed([f"{name} ({kind})" for name, kind in others.items()])
    return f"; subclasses of it, whose forward may be another, are left as they are: {found}"


def _hint(model: nn.Module) -> str:
    """Say what to do with a GPT, and what to import where a model holds one of transformers."""
    if any(isinstance(module, CausalSelfAttention) for module in model.modules()):
        return "; the heads of a GPT are set when it is built, as in GPTConfig(heads='qisa:2,classical:2')"
    classes = {base for module in model.modules() for base in type(module).__mro__}
    if _LIBRARIES or not any(each.__module__.startswith("transformers.") for each in classes):
        return ""
    return "; for the attention of a Hugging Face model import qiskit_qattn.hf first"


def listed(names: Iterable[str]) -> str:
    """Return names for an error, cut after six."""
    every = list(names)
    return ", ".join(every[:_SHOWN]) + (f", … ({len(every)} in all)" if len(every) > _SHOWN else "")


def _replacement(
    name: str, mha: nn.MultiheadAttention, heads: str, options: Mapping[str, Any]
) -> QuantumMultiheadAttention:
    """Return what takes the place of an attention.

    Raises:
        CircuitError, ConfigError: That names the attention.
    """
    try:
        attention = QuantumMultiheadAttention.from_classical(mha, heads, **options)
    except (CircuitError, ConfigError) as error:
        raise type(error)(f"{name} cannot be replaced: {error}") from error
    for each in _HOOKS:
        setattr(attention, each, getattr(mha, each))
    return attention
