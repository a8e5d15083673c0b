from __future__ import annotations

import random
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def dice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a text of independent letters: no past tells the next one."""
    draw = random.Random(3)
    path = tmp_path_factory.mktemp("text") / "dice.txt"
    path.write_text("".join(draw.choice("abcd") for _ in range(6000)))
    return path
