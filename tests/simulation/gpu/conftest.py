"""Triton's kernels run on a GPU where there is one, and in Triton's interpreter on the CPU otherwise."""

from __future__ import annotations

import os

import pytest
import torch

from qiskit_qattn.simulation import gpu


@pytest.fixture(params=["cpu", "cuda"])
def device(request, monkeypatch) -> str:
    """Return the device whose tensors the kernels take in the test."""
    if not gpu.AVAILABLE:
        pytest.skip("Triton is not installed: it comes for Linux on x86-64, or with torch for CUDA")
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    if request.param == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("Triton compiles for the GPU in this process, so its interpreter is off")
    monkeypatch.setattr(gpu, "DEVICES", (request.param,))
    return request.param
