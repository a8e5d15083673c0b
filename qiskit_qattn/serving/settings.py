"""The settings of a server, and the order in which they are decided: a TOML file, the environment, then options.

A setting has one name: a key of the file, ``QATTN_SERVE_<NAME>`` in the environment, and for most an option of
``qattn serve``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from qiskit_qattn.errors import ConfigError, unknown_name
from qiskit_qattn.training.config import Device, bounded, check_settings, read_toml
from qiskit_qattn.untrusted import TYPE_WORDS, shown

Quantize = Literal["", "int8"]  # none, or classical weights of 8 bits

PREFIX = "QATTN_SERVE_"
_NAME = re.compile(r"[\w.:/-]{1,100}", re.ASCII)
_WORDS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_LISTS = ("cors_origins", "models")


@dataclass(frozen=True)
class ModelSource:
    """A model to serve.

    Attributes:
        name: What clients call it.
        source: A run folder, a saved model's folder, or the name of a model on the Hugging Face Hub.
        backend: Where its circuits run, in place of the server's ``backend``; empty for that.
        quantize: How classical weights are rounded, in place of the server's ``quantize``; empty for that.
    """

    name: str
    source: str
    backend: str = ""
    quantize: Quantize = ""

    @classmethod
    def parse(cls, text: str) -> ModelSource:
        """Return the model of ``SOURCE`` or ``NAME=SOURCE``; without a name it has its folder's, or that on the hub.

        Raises:
            ConfigError: If there is no source.
        """
        name, given, source = text.partition("=")
        if not (given and _NAME.fullmatch(name)):
            name, source = "", text
        if not source:
            raise ConfigError(
                f"A model is SOURCE or NAME=SOURCE, where SOURCE is a folder or a hub name; got {text!r}."
            )
        is_folder = os.path.isabs(source) or os.path.exists(source)
        return cls(name or (os.path.basename(os.path.abspath(source)) if is_folder else source), source)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of a server.

    Attributes:
        models: What is served; in a file a table of names, each with a source or a table of the fields of
            :class:`ModelSource`; in the environment a list with commas.
        host: Address to listen on. Without keys it must be one of the loopback.
        port: Port to listen on; 0 takes a free one.
        backend: Where circuits run, as a backend string or a chain; empty for the exact engine.
        device: auto uses the accelerator, if there is one.
        quantize: ``int8`` for classical weights of 8 bits; empty for none.
        keys: A file of keys, which ``qattn serve-keys`` writes; empty for none.
        requests_per_minute: Limit of each key that has none of its own; 0 for none.
        tokens_per_minute: The same for tokens, of prompts and of the most that may be generated.
        limit_storage: Where limits count, as a URI of the package limits; servers that share one need ``async+redis://``.
        max_batch: The most texts in one pass of a model.
        max_queue: The most requests that wait for a model; more are answered by 503.
        max_tokens: The most tokens that a request may ask for.
        max_choices: The most texts of one request: prompts times ``n``.
        max_body_bytes: The longest body of a request.
        max_connections: The most open connections; beyond it, those that have sent no request are closed first.
        request_seconds: How long an answer may take.
        silent_seconds: How long a connection may take to send a request, wait for its next one, or take no data.
        drain_seconds: How long answers on their way may take after SIGTERM.
        cors_origins: Origins whose pages may call the server; none by default.
        log_prompts: Whether prompts and answers are logged.
        log_level: The level of uvicorn's log.

    Raises:
        ConfigError: For a value of the wrong type or out of bounds, and two models of one name.
    """

    models: tuple[ModelSource, ...] = ()
    host: str = "127.0.0.1"
    port: int = bounded(8000, least=0, most=65535)
    backend: str = ""
    device: Device = "auto"
    quantize: Quantize = ""
    keys: str = ""
    requests_per_minute: int = bounded(0, least=0)
    tokens_per_minute: int = bounded(0, least=0)
    limit_storage: str = "async+memory://"
    max_batch: int = bounded(32, least=1, most=4096)
    max_queue: int = bounded(256, least=1, most=10**6)
    max_tokens: int = bounded(1024, least=1, most=10**6)
    max_choices: int = bounded(16, least=1, most=1024)
    max_body_bytes: int = bounded(262_144, least=1024, most=2**30)
    max_connections: int = bounded(1000, least=2, most=10**6)
    request_seconds: float = bounded(300.0, least=0.1, most=86_400)
    silent_seconds: float = bounded(10.0, least=0.1, most=86_400)
    drain_seconds: float = bounded(30.0, least=0, most=86_400)
    cors_origins: tuple[str, ...] = ()
    log_prompts: bool = False
    log_level: Literal["debug", "info", "warning", "error", "critical"] = "info"

    def __post_init__(self) -> None:
        """Check types and bounds."""
        check_settings(self, [item.name for item in fields(self) if item.name not in _LISTS])
        object.__setattr__(self, "models", _models(self.models))
        origins: Any = self.cors_origins
        if isinstance(origins, str) or not all(isinstance(origin, str) and origin for origin in origins):
            raise ConfigError(f"cors_origins is {shown(origins)}, but must be a list of origins, as https://a.example.")
        object.__setattr__(self, "cors_origins", tuple(origins))
        names = [model.name for model in self.models]
        for model in self.models:
            if not _NAME.fullmatch(model.name):
                raise ConfigError(
                    f"{shown(model.name)} cannot be a model's name: give one of up to 100 letters, digits and "
                    f"'_.:/-' as NAME=SOURCE."
                )
            if model.quantize not in get_args(Quantize):
                raise unknown_name(f"quantize of the model {model.name!r}:", model.quantize, get_args(Quantize))
            if names.count(model.name) > 1:
                raise ConfigError(f"Two models are called {model.name!r}: name them, as in one={model.source}.")

    @property
    def is_local(self) -> bool:
        """Whether only programs on this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    def check_guarded(self, has_keys: bool) -> None:
        """Raise for a server that others can reach and that has no keys.

        Raises:
            ConfigError: Always names the way out.
        """
        if not (has_keys or self.is_local):
            raise ConfigError(
                f"host is {self.host!r}, which other machines can reach, but there are no keys. Make one with: "
                f"qattn serve-keys create NAME --keys FILE, and give --keys FILE; or keep to 127.0.0.1."
            )


_HINTS = get_type_hints(Settings)
NAMES = tuple(item.name for item in fields(Settings))


def resolve(
    options: Mapping[str, Any], *, environment: Mapping[str, str], config_file: str | Path | None = None
) -> Settings:
    """Return the settings of a file, with those of the environment over them, and options over both.

    Args:
        options: Settings by name; a value of None counts as not given.
        environment: As ``os.environ``.
        config_file: A TOML file with settings at its top level; without, that of ``QATTN_SERVE_CONFIG``, if any.

    Raises:
        ConfigError: For a file that cannot be read, or a value that cannot be.
        UnknownNameError: For a setting that is not known.
    """
    config_file = config_file or environment.get(f"{PREFIX}CONFIG") or None
    from_file = {} if config_file is None else read_toml(config_file, NAMES)
    given = {name: value for name, value in options.items() if value is not None}
    for name in given:
        if name not in NAMES:
            raise unknown_name("setting", name, NAMES)
    return Settings(**{**from_file, **_from_environment(environment), **given})


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings in the environment; the name of a setting that is not known is an error there too."""
    values: dict[str, Any] = {}
    for variable, text in environment.items():
        if not variable.startswith(PREFIX) or variable in (f"{PREFIX}CONFIG", f"{PREFIX}API_KEYS"):
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name not in NAMES:
            raise unknown_name("variable", variable, [PREFIX + known.upper() for known in NAMES])
        values[name] = _converted(variable, text, name)
    return values


def _converted(variable: str, text: str, name: str) -> Any:
    if name in _LISTS:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    hint = _HINTS[name]
    try:
        if hint is bool:
            return _WORDS[text.strip().lower()]
        return hint(text) if hint in (int, float) else text
    except (KeyError, ValueError):
        raise ConfigError(f"{variable} is {shown(text)}, but must be {TYPE_WORDS[hint]}.") from None


def _models(given: Any) -> tuple[ModelSource, ...]:
    """Return models from any of the forms in which they may be given.

    Raises:
        ConfigError: For another form.
    """
    if isinstance(given, Mapping):
        return tuple(_of_table(name, value) for name, value in given.items())
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise ConfigError(
            f"models is {shown(given)}, but must be a list of SOURCE or NAME=SOURCE, or a table of names."
        )
    found = []
    for item in given:
        if not isinstance(item, str | ModelSource):
            raise ConfigError(f"A model is SOURCE or NAME=SOURCE; got {shown(item)}.")
        found.append(ModelSource.parse(item) if isinstance(item, str) else item)
    return tuple(found)


def _of_table(name: str, value: Any) -> ModelSource:
    known = [item.name for item in fields(ModelSource) if item.name != "name"]
    table = {"source": value} if isinstance(value, str) else value
    if not isinstance(table, Mapping) or not all(isinstance(each, str) for each in table.values()):
        raise ConfigError(f"The model {name!r} is {shown(value)}, but must be a source, or a table of texts.")
    for key in table:
        if key not in known:
            raise unknown_name(f"setting of the model {name!r}:", key, known)
    if "source" not in table:
        raise ConfigError(f"The model {name!r} has no source: a folder, or a hub name.")
    return ModelSource(name, **table)
