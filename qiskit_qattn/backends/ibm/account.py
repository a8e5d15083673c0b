"""An account of IBM Quantum and its devices."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from qiskit_qattn.backends.ibm.errors import Guard
from qiskit_qattn.errors import BackendError, unknown_name

LEAST_BUSY = "least_busy"
_log = logging.getLogger(__name__)


def open_service(instance: str | None = None) -> tuple[Any, tuple[str, ...]]:
    """Return a client of the service, and the texts that no message may hold.

    The account is the saved one, or that of ``$QISKIT_IBM_TOKEN``, ``$QISKIT_IBM_INSTANCE`` and ``$QISKIT_IBM_URL``.

    Args:
        instance: Name or CRN of an instance, or None for the account's own.

    Raises:
        TransientBackendError: If the service cannot be reached.
        BackendError: Without an account, or with one that the service refuses.
    """
    from qiskit_ibm_runtime import QiskitRuntimeService

    service = Guard()("opening the account", QiskitRuntimeService, instance=instance)
    account = service.active_account() or {}
    return service, (account.get("token") or "",)


def find_device(service: Any, name: str, *, fractional: bool = False, secrets: Sequence[str] = ()) -> Any:
    """Return a device of an account.

    Args:
        service: The client.
        name: The device's name, or ``least_busy``.
        fractional: Whether the device's fractional gates are used.
        secrets: Texts that no message may hold.

    Raises:
        UnknownNameError: For a device that the account does not have; the message lists those that it has.
        BackendError: If the account has no device in operation, or the device no fractional gates.
    """
    from qiskit.providers import QiskitBackendNotFoundError

    def look() -> Any:
        try:
            if name == LEAST_BUSY:
                return service.least_busy(use_fractional_gates=fractional)
            return service.backend(name, use_fractional_gates=fractional)
        except QiskitBackendNotFoundError:
            return None

    call = Guard(*secrets)
    device = call(f"looking for {name}", look)
    if device is None and name == LEAST_BUSY:
        kind = "device with fractional gates" if fractional else "device"
        raise BackendError(f"No {kind} of this IBM Quantum account is in operation; look at its instances and plan.")
    if device is None:
        known = [found.name for found in call("listing devices", service.backends)]
        raise unknown_name("device of this IBM Quantum account", name, [*known, LEAST_BUSY])
    if name == LEAST_BUSY:
        _log.info("ibm:%s is %s.", LEAST_BUSY, device.name)
    return device
