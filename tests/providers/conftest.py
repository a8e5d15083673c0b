"""Fixtures for tests that talk to a provider's real client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from qiskit_ibm_runtime import QiskitRuntimeService
from qiskit_ibm_runtime.accounts import management
from qiskit_ibm_runtime.api.session import PostForcelistRetry
from urllib3.util import connection

from .ibm_client import Pub, small_pub
from .ibm_server import IBMServer


@pytest.fixture(autouse=True)
def own_breakers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the failures of devices in other tests."""
    monkeypatch.setattr("qiskit_qattn.backends.jobs.retries._BREAKERS", {})


@pytest.fixture
def ibm_server(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[IBMServer]:
    """Serve IBM Quantum on the loopback, to a client that finds its account in the environment."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    accounts = tmp_path_factory.mktemp("qiskit") / "qiskit-ibm.json"
    monkeypatch.setattr(management, "_DEFAULT_ACCOUNT_CONFIG_JSON_FILE", str(accounts))
    # The client waits 0, 1, 2, 4 and 8 seconds between its own tries.
    monkeypatch.setattr(PostForcelistRetry, "get_backoff_time", lambda _: 0.0)
    with IBMServer() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(connection, "create_connection", server.connect)
        yield server


@pytest.fixture
def service(ibm_server: IBMServer) -> QiskitRuntimeService:
    """Return a client of the test server."""
    return QiskitRuntimeService()


@pytest.fixture
def device(service: QiskitRuntimeService) -> Any:
    """Return the server's five-qubit device."""
    return service.backend("test_manila")


@pytest.fixture(scope="session")
def pub() -> Pub:
    """Return a small PUB for that device."""
    return small_pub()


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """Serve Amazon Braket on the loopback."""
    from .aws_server import aws_service

    monkeypatch.setenv("QATTN_LEDGER", str(tmp_path / "ledger.sqlite"))
    with aws_service(monkeypatch, tmp_path) as server:
        yield server
