"""What a device of Amazon Braket says of itself."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from qiskit_qattn.backends.braket.errors import aws_errors
from qiskit_qattn.backends.mitigation import Method
from qiskit_qattn.errors import BackendError

_OWN: dict[str, Method] = {"Debias": "debias"}  # what devices mitigate themselves


@dataclass(frozen=True)
class Capabilities:
    """What a device says of itself.

    Attributes:
        gates: Qiskit's names of the gates it takes.
        qubits: How many it has.
        shots: The least and the most of a circuit.
        set: The most circuits of a program set, and shots over all of them, or None where it takes none.
        price: US dollars per unit, and the unit, or None where it gives none.
        hours: When it runs tasks.
        mitigation: How errors can be mitigated on it, and the least shots that takes. Without barriers, its compiler
            may undo folded gates.
    """

    gates: Collection[str]
    qubits: int
    shots: tuple[int, int]
    set: tuple[int, int] | None
    price: tuple[float, str] | None
    hours: str
    mitigation: Mapping[Method, int]

    @classmethod
    def of(cls, device: Any) -> Capabilities:
        """Return those of Braket's ``AwsDevice``.

        Raises:
            BackendError: For a device that runs no circuits.
            TransientBackendError: For capabilities that cannot be read.
        """
        from braket.device_schema import DeviceActionType
        from qiskit_braket_provider.providers.adapter import gateset_from_properties

        with aws_errors(f"reading what {device.name} can do"):
            properties, service = device.properties, device.properties.service
            actions = properties.action
            if DeviceActionType.OPENQASM not in actions:
                raise BackendError(f"{device.name} runs no circuits of gates. Choose a gate-based device.")
            sets, cost = actions.get(DeviceActionType.OPENQASM_PROGRAM_SET), service.deviceCost
            if cost is not None and not 0 <= cost.price < math.inf:
                raise ValueError(f"its price is {cost.price}")
            hours = (
                f"{getattr(window.executionDay, 'value', window.executionDay)} {window.windowStartHour:%H:%M} to "
                f"{window.windowEndHour:%H:%M} UTC"
                for window in service.executionWindows
            )
            own = getattr(getattr(properties, "provider", None), "errorMitigation", None) or {}
            can = {_OWN[kind.__name__]: limits.minimumShots for kind, limits in own.items() if kind.__name__ in _OWN}
            if "/qpu/" in device.arn and "barrier" in actions[DeviceActionType.OPENQASM].supportedOperations:
                can["zne"] = 1
            return cls(
                gateset_from_properties(actions[DeviceActionType.OPENQASM]),
                int(properties.paradigm.qubitCount),
                (max(1, int(service.shotsRange[0])), int(service.shotsRange[1])),
                None if sets is None else (int(sets.maximumExecutables), int(sets.maximumTotalShots)),
                None if cost is None else (cost.price, cost.unit),
                "; ".join(hours),
                can,
            )
