"""The same server in several processes and on several machines: a deployment of Ray Serve.

``serve run qiskit_qattn.serving.replicas:build models=RUN replicas=1..4`` starts it, or a file of Ray's that names
:func:`build`. Ray's proxies take the requests and give each to a replica that has few of them; a replica loads the
models and runs the application of ``qattn serve`` with engines of its own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from qiskit_qattn.errors import ConfigError, missing_dependency, unknown_name
from qiskit_qattn.serving.app import create_app
from qiskit_qattn.serving.engine import Engine
from qiskit_qattn.serving.keys import Keys
from qiskit_qattn.serving.models import load
from qiskit_qattn.serving.settings import Settings, resolve
from qiskit_qattn.untrusted import shown

if TYPE_CHECKING:
    from fastapi import FastAPI
    from ray.serve import Application, Deployment

_ARGUMENTS = ("config", "models", "replicas")
_SPARE_SECONDS = 5.0  # between the last answer of a replica that stops and its end


def build(arguments: Mapping[str, Any]) -> Application:
    """Return what Ray Serve runs, from the arguments of ``serve run`` or of a configuration file.

    Other settings than these stand in the TOML file or in ``QATTN_SERVE_…`` of the environment, as for ``qattn serve``;
    address and port are Ray's.

    Args:
        arguments: ``models``, a list, or a text with commas, of ``SOURCE`` or ``NAME=SOURCE``; ``config``, a TOML file;
            ``replicas``, such as ``2``, or ``1..4`` to have as many as there are requests for.

    Raises:
        ConfigError: For settings that cannot be used.
        UnknownNameError: For another argument.
    """
    for name in arguments:
        if name not in _ARGUMENTS:
            raise unknown_name("argument", name, _ARGUMENTS)
    models = arguments.get("models")
    options = {"models": models.split(",") if isinstance(models, str) else models}
    settings = resolve(options, environment=os.environ, config_file=arguments.get("config"))
    least, most = _numbers(arguments.get("replicas", 1))
    return deployment(settings, least, most).bind()


def deployment(settings: Settings, least: int = 1, most: int | None = None) -> Deployment:
    """Return the server as a deployment, whose ``bind()`` Ray Serve runs, and ``options()`` takes any of Ray's.

    Ray counts the requests that wait or are being answered, and starts replicas while there are more than ``max_batch``
    for each, since those share passes.

    Args:
        settings: The server's settings. Files and folders are read on the machines of the replicas.
        least: The fewest replicas.
        most: The most replicas; None for ``least``.

    Raises:
        ConfigError: Without models or keys, for limits that each replica would count alone, and for other numbers of
            replicas.
        MissingDependencyError: If Ray Serve is not installed.
    """
    most = least if most is None else most
    _check(settings, least, most)
    if find_spec("ray") is None:
        raise missing_dependency("ray", "cluster")
    from ray import serve

    def application() -> FastAPI:
        return create_app(_engines(settings), settings)

    @serve.deployment(
        name="qattn",
        max_ongoing_requests=settings.max_batch + settings.max_queue,
        autoscaling_config={
            "min_replicas": least,
            "max_replicas": most,
            "target_ongoing_requests": settings.max_batch,
        },
        graceful_shutdown_timeout_s=settings.drain_seconds + _SPARE_SECONDS,
    )
    @serve.ingress(application)
    class Replica:
        """One process with its own engines."""

        app: FastAPI

        def check_health(self) -> None:
            """Raise once an engine has stopped, so that Ray starts another replica in place of this one."""
            for name, engine in self.app.state.service.engines.items():
                if engine.state != "running":
                    raise RuntimeError(f"The engine of {name} is {engine.state}.")

    deployed: Any = Replica  # what the decorators make of it
    return deployed


def _engines(settings: Settings) -> dict[str, Engine]:
    """Load the models of the settings."""
    found = {}
    for source in settings.models:
        backend, quantize = source.backend or settings.backend, source.quantize or settings.quantize
        options: dict[str, Any] = {"backend": backend or None, "quantize": quantize or None}
        model = load(source.source, device=settings.device, **options)
        model.name = source.name
        found[source.name] = Engine(model, max_batch=settings.max_batch, max_queue=settings.max_queue)
    return found


def _check(settings: Settings, least: int, most: int) -> None:
    if not 1 <= least <= most:
        raise ConfigError(f"Replicas are at least 1, and at most as many as the most; got {least} to {most}.")
    if not settings.models:
        raise ConfigError("No model to serve: give models=RUN, or models in the file that config= names.")
    if not Keys(settings.keys, os.environ):
        raise ConfigError(
            "Replicas need keys, since Ray's proxies decide who can reach them: make one with qattn serve-keys create "
            "NAME --keys FILE, and set keys = 'FILE' in the settings; the file is read on each machine."
        )
    if most > 1 and settings.limit_storage.endswith("memory://"):
        for name in ("requests_per_minute", "tokens_per_minute"):
            if getattr(settings, name):
                raise ConfigError(
                    f"{name} would count in each replica alone, with limit_storage {settings.limit_storage!r}: give "
                    f"one that they share, such as async+redis://HOST:6379."
                )


def _numbers(given: Any) -> tuple[int, int]:
    """Return the fewest and the most of ``2`` or ``1..4``."""
    found = re.fullmatch(r"(\d{1,6})(?:\.\.(\d{1,6}))?", str(given))
    if found is None:
        raise ConfigError(f"replicas is {shown(given)}, but must be a number, such as 2, or a range, such as 1..4.")
    return int(found[1]), int(found[2] or found[1])
