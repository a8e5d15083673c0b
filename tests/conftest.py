"""Fixtures for all tests: seeds, one thread, and no file outside the test's own folder."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

# Before anything imports what reads them.
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
import torch

from qiskit_qattn.backends.registry import GROUP

SEED = 20240117

torch.set_num_threads(1)  # the tensors of tests are small: threads would only wait for each other


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a random generator that starts from the same seed in each test."""
    return np.random.default_rng(SEED)


@pytest.fixture(autouse=True)
def torch_seed() -> int:
    """Seed every global random state before each test, and return the seed."""
    random.seed(SEED)
    np.random.seed(SEED)
    torch.manual_seed(SEED)
    return SEED


@pytest.fixture(autouse=True)
def no_user_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the user's cache and data folders out of each test, and return the empty cache folder in their place."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("QATTN_CACHE_DIR", str(folder))
    monkeypatch.setenv("QATTN_LEDGER", str(folder / "ledger.sqlite"))
    monkeypatch.delenv("QATTN_DATA_DIR", raising=False)
    return folder


@pytest.fixture
def install_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str, str, str, Mapping[str, str]], None]]:
    """Yield a function that installs a package of one module, with backends as entry points, for the test."""
    modules = []

    def install(package: str, module: str, source: str, backends: Mapping[str, str]) -> None:
        modules.append(module)
        folder = tmp_path / package
        info = folder / f"{package.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True)
        (folder / f"{module}.py").write_text(source, "utf-8")
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"{name} = {value}" for name, value in backends.items()]
        (info / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines]))
        monkeypatch.syspath_prepend(str(folder))

    yield install
    for module in modules:
        sys.modules.pop(module, None)
