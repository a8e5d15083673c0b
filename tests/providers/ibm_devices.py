"""The devices that the service lists: fake ones of Qiskit Runtime, and a mock of each for dry runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from qiskit_ibm_runtime.fake_provider import FakeManilaV2, FakeNairobiV2
from qiskit_ibm_runtime.fake_provider.fake_backend import FakeBackendV2

from .ibm_faults import ApiError


class Devices:
    """`test_manila` has 5 qubits and 12 jobs before ours, `test_nairobi` 7 qubits and 3 jobs."""

    def __init__(self) -> None:
        self.devices: dict[str, FakeBackendV2] = {"test_manila": FakeManilaV2(), "test_nairobi": FakeNairobiV2()}
        self.queues = {"test_manila": 12, "test_nairobi": 3}

    def find(self, name: str) -> FakeBackendV2:
        """Return what executes the jobs of a device, or of its mock."""
        try:
            return self.devices[name.replace("mock_", "test_")]
        except KeyError:
            raise ApiError(404, 1007, "Backend not found.") from None

    def list(self, query: dict[str, list[str]], **_: Any) -> dict[str, Any]:
        """Answer `GET /backends`."""
        entries = []
        for name, device in self.devices.items():
            entry = {"name": name, "status": {"name": "online"}, "qubits": device.num_qubits}
            entries.append(entry | {"queue_length": self.queues[name]})
            if "include_mocks" in query:
                entries.append(entry | {"name": name.replace("test_", "mock_"), "class": "mock", "queue_length": 0})
        return {"devices": entries}

    def describe(self, name: str, part: str, **_: Any) -> dict[str, Any]:
        """Answer `GET /backends/<name>/configuration` and the like, from the fake device's own files."""
        device = self.find(name)
        if part == "status":
            queue = self.queues.get(name, 0)
            return {"state": True, "status": "active", "backend_version": "1.0.0", "length_queue": queue}
        file = device.conf_filename if part == "configuration" else device.props_filename
        return json.loads(Path(device.dirname, file).read_text()) | {"backend_name": name}
