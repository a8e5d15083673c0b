"""The settings of a training run, and the order in which they are decided.

Every field of :class:`TrainConfig` is a key of a TOML file and a flag of ``qattn train``. The fields' defaults are
the preset ``nano``. Later layers win: preset, then the TOML file, then the flags.
"""

from __future__ import annotations

import dataclasses
import json
import math
import operator
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from qiskit_qattn.errors import ConfigError, unknown_name
from qiskit_qattn.training.presets import PRESETS

#: Settings that ``--resume`` may change: they decide neither the model nor the order of the data.
RESUMABLE = frozenset(
    {"out", "max_steps", "baseline", "device", "trackers", "log_interval", "eval_interval", "checkpoint_interval"}
    | {"val_windows", "sample_prompt", "sample_tokens", "temperature", "top_k", "profile"}
)


def _setting(
    default: Any,
    about: str,
    group: str,
    *,
    least: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> Any:
    """Return a dataclass field that carries its own help text, its flag group and its bounds."""
    bounds = {"at least": least, "at most": most, "below": below}
    return field(default=default, metadata={"help": about, "group": group, "bounds": bounds})


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """All settings of a run. Each field's meaning is in its ``help``, which ``qattn train --help`` prints.

    Raises:
        ConfigError: If a value has the wrong type or lies out of its bounds, or two values exclude each other.
        UnknownNameError: If the preset is not known.
    """

    preset: str = _setting("nano", "The settings to start from.", "Run")
    data: str = _setting("shakespeare", "shakespeare, tinyshakespeare, or the path of a UTF-8 text file.", "Run")
    out: str = _setting("", "The run folder; it must not exist yet. Empty: runs/PRESET.", "Run")
    seed: int = _setting(0, "Seed of the weights, the batches and the sample.", "Run", least=0, most=2**32 - 1)
    baseline: bool = _setting(False, "Also train the all-classical twin, with the same seed and batches.", "Run")
    backend: str = _setting("statevector", "Where the circuits run, as a backend string.", "Run")
    device: Literal["auto", "cpu"] = _setting("auto", "auto takes the accelerator that is there.", "Run")
    threads: int = _setting(
        0, "CPU threads; 0: PyTorch's choice. One is the most that tiny models use.", "Run", least=0, most=1024
    )
    mixed_precision: Literal["no", "fp16", "bf16"] = _setting("no", "Precision of the classical layers.", "Run")
    trackers: str = _setting(
        "auto", "Experiment trackers of Accelerate, by comma; auto: TensorBoard if installed; or none.", "Run"
    )
    profile: bool = _setting(False, "Add the ten hottest functions of a few steps to the report.", "Run")

    n_layer: int = _setting(4, "Transformer blocks.", "Model", least=1)
    n_head: int = _setting(4, "Attention heads a block.", "Model", least=1)
    n_embd: int = _setting(128, "Width of the embedding.", "Model", least=1)
    n_inner: int = _setting(0, "Width of the MLP between its two maps; 0: 4 n_embd.", "Model", least=0)
    block_size: int = _setting(64, "Context length in tokens.", "Model", least=1)
    dropout: float = _setting(0.0, "Dropout probability.", "Model", least=0, most=1)
    bias: bool = _setting(False, "Biases in linear layers and layer norms.", "Model")
    heads: str | tuple[str, ...] = _setting(
        "qisa:2,classical:2",
        "Head kinds, kind:count by comma, that sum to n_head; a TOML list has one a block.",
        "Model",
    )
    num_qubits: int = _setting(5, "Qubits of a quantum head; 0: the fewest that will do.", "Model", least=0)
    reps: int = _setting(0, "Ansatz layers of a quantum head; 0: the kind's own.", "Model", least=0)

    batch_size: int = _setting(12, "Sequences a step, over all processes.", "Optimisation", least=1)
    max_steps: int = _setting(2000, "Training steps.", "Optimisation", least=1)
    learning_rate: float = _setting(1e-3, "Peak learning rate of the classical weights.", "Optimisation", least=0)
    min_lr: float = _setting(1e-4, "Learning rate at the end of the cosine.", "Optimisation", least=0)
    warmup_steps: int = _setting(100, "Steps of linear warm-up.", "Optimisation", least=0)
    weight_decay: float = _setting(0.1, "Decay of weight matrices; never of circuit weights.", "Optimisation", least=0)
    beta1: float = _setting(0.9, "AdamW's first moment.", "Optimisation", least=0, below=1)
    beta2: float = _setting(0.99, "AdamW's second moment.", "Optimisation", least=0, below=1)
    grad_clip: float = _setting(1.0, "Largest gradient norm of the classical weights; 0: any.", "Optimisation", least=0)
    circuit_lr: float = _setting(5e-3, "Peak learning rate of the circuit weights.", "Optimisation", least=0)
    circuit_grad_clip: float = _setting(
        1.0, "Largest gradient norm of the circuit weights; 0: any.", "Optimisation", least=0
    )

    log_interval: int = _setting(10, "Steps between logged training losses.", "Evaluation", least=1)
    eval_interval: int = _setting(100, "Steps between validations.", "Evaluation", least=1)
    eval_batches: int = _setting(20, "Batches of a validation; always the same ones.", "Evaluation", least=1)
    val_windows: int = _setting(0, "Windows of the last validation; 0: the whole split.", "Evaluation", least=0)
    checkpoint_interval: int = _setting(250, "Steps between checkpoints.", "Evaluation", least=1)

    sample_prompt: str = _setting("", "Prompt of the report's sample. Empty: ROMEO: where it can be.", "Sample")
    sample_tokens: int = _setting(400, "Tokens of the report's sample.", "Sample", least=1)
    temperature: float = _setting(0.8, "Sampling temperature; 0: the likeliest token.", "Sample", least=0)
    top_k: int = _setting(0, "Sample among the k likeliest tokens; 0: all.", "Sample", least=0)

    def __post_init__(self) -> None:
        """Check types and bounds, so that a bad setting fails before any work."""
        hints = get_type_hints(type(self))
        for item in dataclasses.fields(self):
            value = _typed(item.name, getattr(self, item.name), hints[item.name])
            object.__setattr__(self, item.name, value)
            _check_bounds(item.name, value, item.metadata["bounds"])
        if self.preset not in PRESETS:
            raise unknown_name("preset", self.preset, PRESETS)
        if self.min_lr > self.learning_rate:
            raise ConfigError(f"min_lr is {self.min_lr}, but cannot exceed learning_rate, {self.learning_rate}.")

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.out or f"runs/{self.preset}")

    @property
    def baseline_heads(self) -> str:
        """The heads of the all-classical twin."""
        return f"classical:{self.n_head}"

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values that JSON and TOML hold."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(self).items()}

    def to_toml(self) -> str:
        """Return the settings as TOML that ``--config`` reads back; the run folder is left out."""
        lines = [f"{name} = {json.dumps(v)}" for name, v in self.to_dict().items() if name != "out"]
        return "\n".join(lines) + "\n"


def resolve(
    overrides: Mapping[str, Any], *, preset: str | None = None, config_file: str | Path | None = None
) -> TrainConfig:
    """Decide the settings of a run: ``preset``, then ``config_file`` over it, then ``overrides`` over both.

    Args:
        overrides: Settings by name; a value of None counts as not given.
        preset: A preset's name; None takes the file's, and ``nano`` where the file names none.
        config_file: A TOML file with settings at its top level.
    """
    from_file = read_toml(config_file) if config_file is not None else {}
    given = {name: value for name, value in overrides.items() if value is not None}
    _check_names(given, "the call")
    name = given.get("preset", from_file.get("preset", "nano")) if preset is None else preset
    name = _typed("preset", name, str)
    if name not in PRESETS:
        raise unknown_name("preset", name, PRESETS)
    return TrainConfig(**{**PRESETS[name], **from_file, **given, "preset": name})


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
    given.update({name: value for name, value in overrides.items() if value is not None})
    if preset is not None:
        given["preset"] = preset
    _check_names(given, "the call")
    changed = dataclasses.replace(saved, **given)
    for name in given:
        old, new = getattr(saved, name), getattr(changed, name)
        if old != new and name not in RESUMABLE:
            raise ConfigError(
                f"The run was started with {name} = {old!r}; --resume cannot make it {new!r}."
                f" It can change: {', '.join(sorted(RESUMABLE - {'out'}))}."
            )
    return changed


def read_toml(path: str | Path) -> dict[str, Any]:
    """Read settings from a TOML file.

    Raises:
        ConfigError: If the file cannot be read, or is not TOML.
        UnknownNameError: If it holds a key that is no setting.
    """
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"Cannot read the configuration {str(path)!r}: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"The configuration {str(path)!r} is not a TOML file: {error}.") from error
    _check_names(values, repr(str(path)))
    return values


def _check_names(values: Mapping[str, Any], where: str) -> None:
    known = [item.name for item in dataclasses.fields(TrainConfig)]
    for name in values:
        if name not in known:
            raise unknown_name(f"setting in {where}:", name, known)


def _typed(name: str, value: Any, hint: Any) -> Any:
    """Return ``value`` as the type ``hint`` asks for, or raise."""
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise unknown_name(f"{name}", str(value), get_args(hint))
        return value
    if get_origin(hint) is UnionType:  # the heads: one string, or one a block
        if isinstance(value, str):
            return value
        if isinstance(value, list | tuple) and value and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise ConfigError(f"{name} is {value!r}, but must be a string or a list of strings.")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) <= sys.float_info.max else math.inf
    if type(value) is not hint:
        kinds = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}
        raise ConfigError(f"{name} is {value!r}, but must be {kinds[hint]}.")
    return value


def _check_bounds(name: str, value: Any, bounds: Mapping[str, float | None]) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{name} is {value}, but must be a finite number.")
    holds = {"at least": operator.ge, "at most": operator.le, "below": operator.lt}
    given = {text: bound for text, bound in bounds.items() if bound is not None}
    if not all(holds[text](value, bound) for text, bound in given.items()):
        told = " and ".join(f"{text} {bound}" for text, bound in given.items())
        raise ConfigError(f"{name} is {value}, but must be {told}.")
