"""On a GPU a step waits for nothing: no value is read, and nothing is copied to the device or from it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import qiskit_qattn as qa

pytestmark = pytest.mark.skipif(
    not hasattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch has no devices that Python registers",
)


@pytest.mark.more
def test_no_step_reads_a_value_or_copies_a_tensor():
    program = Path(__file__).with_name("gpu_steps.py")
    run = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=600, check=False)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found.keys() >= {name for kind in qa.list_heads() for name in (kind, f"{kind}, copy")}
    # Two layers that do are found, so the others do not.
    assert [line.split(" at ")[0] for line in found.pop("Reads")] == ["aten._local_scalar_dense.default"] * 2
    assert any(line.startswith("aten._to_copy") for line in found.pop("Copies"))
    assert not {name: lines for name, lines in found.items() if lines}
