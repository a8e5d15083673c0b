"""How a server and its models are, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qiskit_qattn.serving.engine import Engine


def model_entry(name: str, engine: Engine, created: int) -> dict[str, Any]:
    """Return a model as ``/v1/models`` lists it; what is under ``qattn`` is this server's own.

    Args:
        name: What clients call it.
        engine: The model's engine.
        created: When it was loaded, in Unix seconds.
    """
    model = engine.model
    own = {
        "context": model.context,
        "vocab_size": model.vocab_size,
        "chat": model.chats,
        "backend": None if model.place is None else model.place.name,
        "heads": [{key: head[key] for key in ("layer", "head", "kind")} for head in model.heads],
    }
    return {"id": name, "object": "model", "created": created, "owned_by": "qiskit-qattn", "qattn": own}


def health(engines: Mapping[str, Engine], stopping: bool) -> dict[str, Any]:
    """Return the state of the server, of each model's queue, and of each device.

    ``status`` is ``ok``, ``degraded`` while a device is left alone after failures, ``stopped`` once an engine has, or
    ``stopping``.
    """
    models = {name: engine.stats() for name, engine in engines.items()}
    devices = device_states(engines)
    broken = any(state["breaker"] != "closed" for state in devices.values())
    status = "stopped" if stopped(engines) else "degraded" if broken else "ok"
    return {"status": "stopping" if stopping else status, "models": models, "devices": devices}


def stopped(engines: Mapping[str, Engine]) -> list[str]:
    """Return the models whose engines take no more requests."""
    return [name for name, engine in engines.items() if engine.state != "running"]


def device_states(engines: Mapping[str, Engine]) -> dict[str, dict[str, Any]]:
    """Return the circuit breaker's state of each device, what was spent there, and the budget."""
    return {state.pop("backend"): state for engine in engines.values() for state in engine.model.devices()}
