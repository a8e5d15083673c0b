"""Snapshots of IBM's devices, by name."""

from __future__ import annotations

from typing import Any

from qiskit_qattn.errors import missing_dependency, unknown_name


def fake_device(name: str) -> Any:
    """Return the snapshot that Qiskit Runtime ships under a name such as ``fake_manila``.

    Raises:
        UnknownNameError: For a name that it does not have.
        MissingDependencyError: Without qiskit-ibm-runtime.
    """
    try:
        from qiskit_ibm_runtime import fake_provider
    except ImportError as error:
        raise missing_dependency("qiskit-ibm-runtime", "ibm") from error
    found = [(getattr(kind, "backend_name", None), kind) for kind in vars(fake_provider).values()]
    devices = {label: kind for label, kind in found if isinstance(kind, type) and label}
    if name not in devices:
        raise unknown_name("fake device", name, devices)
    return devices[name]()
