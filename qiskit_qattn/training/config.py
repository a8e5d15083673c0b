"""The settings of a training run, and the order in which they are decided.

A setting has one name: a key of a TOML file, a flag of ``qattn train`` and a keyword of :func:`resolve`. The settings
of the model are the fields of :class:`~qiskit_qattn.nn.config.GPTConfig`, all others those of :class:`TrainConfig`;
their defaults are the preset ``nano``. Later layers win: preset, then the TOML file, then the flags.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from qiskit_qattn import untrusted
from qiskit_qattn.backends.place import settled
from qiskit_qattn.errors import ConfigError, counted, missing_dependency, unknown_name
from qiskit_qattn.nn.config import LARGEST, GPTConfig, check_memory
from qiskit_qattn.training.presets import PRESETS
from qiskit_qattn.untrusted import TYPE_WORDS, shown

#: The settings of the model: all fields of GPTConfig but those that follow from the text and from the other settings.
MODEL_SETTINGS = tuple(item.name for item in fields(GPTConfig) if item.name not in ("vocab_size", "observables"))

#: Settings that ``--resume`` may change: they affect neither the model nor the order of the data.
RESUMABLE = frozenset(
    {"out", "max_steps", "baseline", "device", "compile", "trackers", "log_interval", "eval_interval"}
    | {"checkpoint_interval", "val_windows", "sample_prompt", "sample_tokens", "temperature", "top_k", "profile"}
)

Device = Literal["auto", "cpu", "cuda"]  # auto: the accelerator, if there is one

SPLITS = 10  # tenths of the data, each of which can be validated on

_LONGEST = 4096  # characters of a text

_NONE_IS: dict[str, Any] = {"n_inner": 0, "num_qubits": 0, "reps": 0, "sampling": ""}  # TOML has no null


def bounded(default: Any, *, least: float | None = None, most: float | None = None, below: float | None = None) -> Any:
    """Return a dataclass field with a default and bounds, which :func:`check_settings` checks."""
    bounds = {"at least": least, "at most": most, "below": below}
    return field(default=default, metadata={text: bound for text, bound in bounds.items() if bound is not None})


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """All settings of a run; ``qattn train --help`` describes each of them.

    Attributes:
        model: The model. A run replaces its ``vocab_size`` by the text's.

    Raises:
        ConfigError: If a value has the wrong type or is out of bounds, or two values exclude each other.
        UnknownNameError: If the preset is not known.
    """

    preset: str = "nano"
    data: str = "shakespeare"
    split: int = bounded(0, least=0, most=SPLITS - 1)
    out: str = ""
    seed: int = bounded(0, least=0, most=2**32 - 1)
    baseline: bool = False
    backend: str = "statevector"
    device: Device = "auto"
    compile: bool = False
    threads: int = bounded(0, least=0, most=1024)
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    trackers: str = "auto"
    profile: bool = False

    model: GPTConfig = field(default_factory=GPTConfig)

    batch_size: int = bounded(12, least=1)
    max_steps: int = bounded(2000, least=1)
    learning_rate: float = bounded(1e-3, least=0)
    min_lr: float = bounded(1e-4, least=0)
    warmup_steps: int = bounded(100, least=0)
    weight_decay: float = bounded(0.1, least=0)
    beta1: float = bounded(0.9, least=0, below=1)
    beta2: float = bounded(0.99, least=0, below=1)
    grad_clip: float = bounded(1.0, least=0)
    circuit_lr: float = bounded(5e-3, least=0)
    circuit_grad_clip: float = bounded(1.0, least=0)

    log_interval: int = bounded(10, least=1)
    eval_interval: int = bounded(100, least=1)
    eval_batches: int = bounded(20, least=1)
    val_windows: int = bounded(0, least=0)
    checkpoint_interval: int = bounded(250, least=1)

    sample_prompt: str = ""
    sample_tokens: int = bounded(400, least=1)
    temperature: float = bounded(0.8, least=0)
    top_k: int = bounded(0, least=0)

    def __post_init__(self) -> None:
        """Check types and bounds, so that a bad setting fails before any work."""
        check_settings(self, [item.name for item in fields(self) if item.name != "model"])
        if self.preset not in PRESETS:
            raise unknown_name("preset", self.preset, PRESETS)
        batch = f"A batch of {self.batch_size:,} × {self.model.block_size:,} tokens of width {self.model.n_embd:,}"
        check_memory(batch, 4 * self.batch_size * self.model.block_size * self.model.n_embd)
        if self.min_lr > self.learning_rate:
            raise ConfigError(f"min_lr is {self.min_lr}, but cannot exceed learning_rate, {self.learning_rate}.")
        model = _model_of(self.to_dict())
        if model.observables != self.model.observables or self.model.reps == 0:
            raise ConfigError("The settings of a run cannot hold a model's own observables, nor reps = 0.")
        object.__setattr__(self, "model", model)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> TrainConfig:
        """Return the configuration of settings by name, those of the model among them; see :meth:`to_dict`.

        Raises:
            UnknownNameError: For a name that is not a setting.
        """
        _check_names(settings, "the call")
        own = {name: value for name, value in settings.items() if name not in MODEL_SETTINGS}
        return cls(model=_model_of(settings), **own)

    def to_dict(self) -> dict[str, Any]:
        """Return all settings by name, as plain values that JSON and TOML can hold; 0 or "" is a model's None."""
        values: dict[str, Any] = {}
        for item in fields(self):
            names = MODEL_SETTINGS if item.name == "model" else (item.name,)
            values |= {name: getattr(self.model if item.name == "model" else self, name) for name in names}
        values |= {name: values[name] or none for name, none in _NONE_IS.items()}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def to_toml(self) -> str:
        """Return the settings as TOML that ``--config`` can read; the run folder is left out.

        Raises:
            MissingDependencyError: If tomli-w is not installed.
        """
        return toml_text({name: value for name, value in self.to_dict().items() if name != "out"})

    def replace(self, **changes: Any) -> TrainConfig:
        """Return a copy with some settings changed, by name, those of the model among them."""
        return TrainConfig.from_dict({**self.to_dict(), **changes})

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.out or f"runs/{self.preset}")

    @property
    def baseline_heads(self) -> str:
        """The heads of the all-classical twin."""
        return f"classical:{self.model.n_head}"


#: The names of all settings.
SETTINGS = (*(item.name for item in fields(TrainConfig) if item.name != "model"), *MODEL_SETTINGS)


def check_settings(config: Any, names: Iterable[str]) -> None:
    """Check the types and bounds of the fields of a frozen dataclass, and convert whole numbers to floats where needed.

    Raises:
        ConfigError: For a value of the wrong type or out of bounds.
    """
    hints, found = get_type_hints(type(config)), {item.name: item for item in fields(config)}
    for name in names:
        value = _typed(name, getattr(config, name), hints[name])
        object.__setattr__(config, name, value)
        _check_bounds(name, value, found[name].metadata)


def toml_text(values: Mapping[str, Any]) -> str:
    """Return settings as TOML.

    Raises:
        MissingDependencyError: If tomli-w is not installed.
    """
    try:
        import tomli_w
    except ModuleNotFoundError as error:
        raise missing_dependency("tomli-w", "train") from error
    return tomli_w.dumps(values)


def resolve(
    overrides: Mapping[str, Any], *, preset: str | None = None, config_file: str | Path | None = None
) -> TrainConfig:
    """Decide the settings of a run; the arguments are those of :func:`merged_settings`."""
    return TrainConfig.from_dict(merged_settings(overrides, preset=preset, config_file=config_file))


def merged_settings(
    overrides: Mapping[str, Any], *, preset: str | None = None, config_file: str | Path | None = None
) -> dict[str, Any]:
    """Return the settings of ``preset``, with those of ``config_file`` over them, and ``overrides`` over both.

    Args:
        overrides: Settings by name; a value of None counts as not given.
        preset: A preset's name; None takes the file's, and ``nano`` where the file names none.
        config_file: A TOML file with settings at its top level.

    Raises:
        ConfigError: If the file cannot be read.
        UnknownNameError: For a preset or a setting that is not known.
    """
    from_file = read_toml(config_file) if config_file is not None else {}
    given = _given(overrides)
    name = given.get("preset", from_file.get("preset", "nano")) if preset is None else preset
    name = _typed("preset", name, str)
    if name not in PRESETS:
        raise unknown_name("preset", name, PRESETS)
    return {**PRESETS[name], **from_file, **given, "preset": name}


def resolve_resumed(
    saved: TrainConfig,
    overrides: Mapping[str, Any],
    *,
    preset: str | None = None,
    config_file: str | Path | None = None,
) -> TrainConfig:
    """Return ``saved`` with what a resumed run may change taken from the file and the overrides.

    Raises:
        ConfigError: If a given setting differs from the saved one and is not in :data:`RESUMABLE`.
    """
    given = read_toml(config_file) if config_file is not None else {}
    given |= _given(overrides)
    if preset is not None:
        given["preset"] = preset
    settings = saved.to_dict()
    if isinstance(given.get("backend"), str):
        given["backend"] = settled(given["backend"], saved.backend)
    for name, new in given.items():
        old, new = settings[name], list(new) if isinstance(new, tuple) else new
        if old != new and name not in RESUMABLE:
            raise ConfigError(
                f"The run was started with {name} = {old!r}; --resume cannot make it {new!r}."
                f" It can change: {', '.join(sorted(RESUMABLE - {'out'}))}."
            )
    return saved.replace(**given)


def read_toml(path: str | Path, names: Collection[str] = SETTINGS) -> dict[str, Any]:
    """Read settings from a TOML file, those of a run or of the given names.

    Raises:
        ConfigError: If the file cannot be read, or is not TOML.
        UnknownNameError: If it has a key that is not a setting.
    """
    try:
        values = untrusted.read_toml(path)
    except OSError as error:
        raise ConfigError(f"Cannot read the configuration {str(path)!r}: {error.strerror}.") from error
    except ValueError as error:
        raise ConfigError(f"The configuration {str(path)!r} is not a TOML file: {error}.") from error
    _check_names(values, repr(str(path)), names)
    return values


def _given(overrides: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in overrides.items() if value is not None}
    _check_names(given, "the call")
    return given


def _check_names(values: Mapping[str, Any], where: str, names: Collection[str] = SETTINGS) -> None:
    for name in values:
        if name not in names:
            raise unknown_name(f"setting in {where}:", name, names)


def _model_of(settings: Mapping[str, Any]) -> GPTConfig:
    """Return the model that settings by name describe; all others are ignored."""
    values = {name: settings[name] for name in MODEL_SETTINGS if name in settings}
    for name, value in values.items():
        if name in _NONE_IS and type(value) is type(_NONE_IS[name]) and value == _NONE_IS[name]:
            values[name] = None
        elif isinstance(value, list):
            values[name] = tuple(value)
    return GPTConfig(**values)


def _typed(name: str, value: Any, hint: Any) -> Any:
    """Return ``value`` as the type ``hint``, or raise."""
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise unknown_name(name, value if isinstance(value, str) else shown(value), get_args(hint))
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) <= sys.float_info.max else math.inf
    if type(value) is not hint:
        raise ConfigError(f"{name} is {shown(value)}, but must be {TYPE_WORDS[hint]}.")
    if hint is str:
        _check_text(name, value)
    return value


def _check_text(name: str, text: str) -> None:
    """Refuse a text that a TOML file or the name of a file cannot hold."""
    if len(text) > _LONGEST:
        raise ConfigError(f"{name} has {counted(len(text), 'character')}, but can have at most {_LONGEST:,}.")
    wrong = next((letter for letter in text if letter == "\0" or "\ud800" <= letter <= "\udfff"), None)
    if wrong is not None:
        raise ConfigError(
            f"{name} is {text!r}, but cannot hold {wrong!r}: it must be Unicode text, as UTF-8 encodes it, without NUL."
        )


def _check_bounds(name: str, value: Any, bounds: Mapping[str, float]) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{name} is {value}, but must be a finite number.")
    if type(value) is int:
        bounds = {**bounds, "at most": bounds.get("at most", LARGEST)}
    compare = {"at least": operator.ge, "at most": operator.le, "below": operator.lt}
    if not all(compare[text](value, bound) for text, bound in bounds.items()):
        allowed = " and ".join(f"{text} {bound}" for text, bound in bounds.items())
        raise ConfigError(f"{name} is {shown(value)}, but must be {allowed}.")
