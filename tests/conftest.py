"""Fixtures for all tests: seeds, one thread, and no file outside the test's own folder."""

from __future__ import annotations

import os
import random
from pathlib import Path

# Before anything imports what reads them.
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
import torch

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
