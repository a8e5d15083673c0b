"""The machine: its threads, and a line that describes it."""

from __future__ import annotations

import os
import platform
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

_PACKAGES = ("qiskit-qattn", "qiskit", "qiskit-machine-learning", "torch", "numpy")


def num_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare() -> None:
    """Use all cores, and bring the heap to the state it has after a while of training.

    glibc hands freed blocks back to the system, and pays for their pages again, up to a size that grows with the
    largest block freed so far. One block of nearly 32 MiB, its limit, makes figures independent of what ran before.
    """
    torch.set_num_threads(num_cores())
    torch.zeros(31 * 2**18)


def load() -> float:
    """Mean number of processes that wanted a core in the last minute, this one included."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def describe(*more_packages: str) -> str:
    versions = []
    for package in (*_PACKAGES, *more_packages):
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return (
        f"{date.today().isoformat()}, {_cpu()}, {num_cores()} cores, {torch.get_num_threads()} torch threads, "
        f"{platform.system()}, Python {platform.python_version()}, {', '.join(versions)}"
    )


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))}
    name = fields.get("model name") or platform.processor() or platform.machine()
    if not {"cpu family", "model"} <= fields.keys():
        return name
    return f"{name} (family {fields['cpu family']}, model {fields['model']})"
