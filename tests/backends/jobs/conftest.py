"""A device whose jobs are files, a ledger, and short waits."""

import pytest

from qiskit_qattn.backends.jobs import retries, runner
from qiskit_qattn.backends.jobs.ledger import Ledger

from .disk_device import DiskDevice


@pytest.fixture
def short_waits(monkeypatch):
    monkeypatch.setattr(retries, "BACKOFF", 0.001)
    monkeypatch.setattr(runner, "FIRST_POLL", 0.001)
    monkeypatch.setattr(runner, "LONGEST_POLL", 0.02)


@pytest.fixture
def device(tmp_path, request):
    return DiskDevice(tmp_path / "device", name=f"disk:{request.node.name}")  # breakers go by name


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "ledger.sqlite")
