"""Prices that providers publish: one dated file, ``prices.toml``, and a file of the user's that overrides it."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from qiskit_qattn.backends.folders import path_from
from qiskit_qattn.errors import ConfigError, unknown_name
from qiskit_qattn.untrusted import read_toml, shown

VARIABLE = "QATTN_PRICES"
_SHIPPED = files(__package__) / "prices.toml"  # perhaps in an archive
_FORM: Mapping[str, Any] = {
    "ibm": {"date": None, "source": None, "plan": str, "second": float},
    "braket": {"date": None, "source": None, "task": float, "shot": float},
}


def ibm_second_price() -> float:
    """Return US dollars per second of device time on IBM Quantum, in the plan that the prices name.

    Raises:
        ConfigError: For a file of the user's that cannot be read or contains something other than prices.
        UnknownNameError: For a plan without a price.
    """
    return _ibm()[1]


def ibm_price_note() -> str:
    """Return the plan and date of :func:`ibm_second_price`, which raises the same errors."""
    plan, _, date = _ibm()
    return f"plan {plan}, prices of {date}; another plan or price: {VARIABLE}"


def braket_price(device: Any) -> tuple[float, float] | None:
    """Return US dollars per task and per shot on a QPU of Amazon Braket; None for simulators, and where none is known.

    A shot's price is the user's, else the device's, else the shipped one.

    Args:
        device: Braket's ``AwsDevice``.

    Raises:
        ConfigError: For a file of the user's that cannot be read or contains something other than prices.
    """
    family = device.arn.lower().partition("/qpu/")[2]
    if not family:
        return None
    listed = device.properties.service.deviceCost
    shipped, own = _read(_SHIPPED)["braket"], _own().get("braket", {})
    found = [
        _longest(own.get("shot", {}), family),
        listed.price if listed is not None and listed.unit == "shot" else None,
        _longest(shipped["shot"], family),
    ]
    shot = next((price for price in found if price is not None), None)
    return None if shot is None else (own.get("task", shipped["task"]), shot)


def _ibm() -> tuple[str, float, str]:
    """Return plan, price per second, and date."""
    shipped, own = _read(_SHIPPED)["ibm"], _own().get("ibm", {})
    plan = own.get("plan", shipped["plan"])
    seconds = {**shipped["second"], **own.get("second", {})}
    if plan not in seconds:
        raise unknown_name(f"plan of IBM Quantum in {VARIABLE}", plan, seconds)
    date = own.get("date", "your file") if plan in own.get("second", {}) else shipped["date"]
    return plan, seconds[plan], str(date)


def _longest(prices: Mapping[str, float], family: str) -> float | None:
    fits = [name for name in prices if family.startswith(name.lower())]
    return prices[max(fits, key=len)] if fits else None


def _own() -> dict[str, Any]:
    named = path_from(VARIABLE)
    return {} if named is None else _read(named)


def _read(path: Path | Traversable) -> dict[str, Any]:
    """Return the checked content of a file of prices."""
    try:
        content = read_toml(path) if isinstance(path, Path) else tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"The prices in {str(path)!r} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:  # of TOML, or of UTF-8
        raise ConfigError(f"The prices in {str(path)!r} are no TOML: {error}.") from error
    for name, table in content.items():
        if name not in _FORM:
            raise unknown_name(f"table of {str(path)!r}:", name, _FORM)
        if not isinstance(table, dict):
            raise ConfigError(f"{name} in {str(path)!r} must be a table, got {shown(table)}.")
        for key, value in table.items():
            if key not in _FORM[name]:
                raise unknown_name(f"key of [{name}] in {str(path)!r}:", key, _FORM[name])
            if key == "plan" and not isinstance(value, str):
                raise ConfigError(f"plan of [{name}] in {str(path)!r} must be a text, got {shown(value)}.")
            if key in ("second", "shot") and not isinstance(value, dict):
                raise ConfigError(f"{name}.{key} in {str(path)!r} must be a table of prices, got {shown(value)}.")
            for price in value.values() if isinstance(value, dict) else [value] if key == "task" else []:
                if type(price) not in (int, float) or not 0 <= price < math.inf:
                    raise ConfigError(
                        f"{name}.{key} in {str(path)!r} must be prices in US dollars of at least 0, got {shown(price)}."
                    )
    return content
