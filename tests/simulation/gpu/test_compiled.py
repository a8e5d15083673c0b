"""The kernels compile for GPUs, without one at hand, and fit into what a multiprocessor has."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from qiskit_qattn.simulation import gpu

pytestmark = [
    pytest.mark.more,
    pytest.mark.skipif(not gpu.AVAILABLE, reason="Triton is not installed: it comes for Linux on x86-64"),
]

PROGRAM = """
import json, sys

from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from qiskit_qattn.simulation.gpu import kernels
from qiskit_qattn.simulation.gpu.expectations import LAUNCH, tile

backend, arch, dtype, sizes = json.loads(sys.argv[1])
sizes |= tile(sizes["F"], sizes["M"], 10**6)
found = {}
for name in ("values", "of_data", "of_matrix"):
    kernel = getattr(kernels, name)
    signature, constants, aligned = {}, {}, {}
    for i, argument in enumerate(kernel.arg_names):
        given = sizes["PHASES"] if argument == "turns" else sizes["SHIFTED"] if argument == "offset" else True
        if argument in sizes or not given:
            signature[argument], constants[(i,)] = "constexpr", sizes.get(argument)
        elif argument.startswith("by_"):
            signature[argument], constants[(i, 2)] = ("i32", "i32", "constexpr"), 1
        elif argument in ("rows", "share"):
            signature[argument] = "i32"
        else:
            own = argument == "data" or (name, argument) == ("of_data", "out")
            signature[argument] = "*" + (dtype if own else "fp64" if argument in ("turns", "offset") else "fp32")
            aligned[(i,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constants, aligned)
    made = compile(source, target=GPUTarget(backend, arch, 32 if backend == "cuda" else 64), options=LAUNCH)
    code = made.asm["cubin" if backend == "cuda" else "hsaco"]
    found[name] = made.metadata.shared, made.metadata.num_warps, len(code)
print(json.dumps(found))
"""

VECTORS = {"K": 64, "F": 64, "R": 192, "M": 64, "PHASES": False, "SHIFTED": False, "PARTS": "complex"}
PHASES = {"K": 4, "F": 16, "R": 16, "M": 3, "PHASES": True, "SHIFTED": True, "PARTS": "split"}
TARGETS = {
    "T4, phases": ("cuda", 75, "ieee", "fp16", PHASES),
    "A100, vectors": ("cuda", 80, "tf32x3", "bf16", VECTORS),
    "H100, vectors": ("cuda", 90, "tf32x3", "bf16", VECTORS),
    "H100, phases": ("cuda", 90, "tf32x3", "fp64", PHASES),
    "MI300, vectors": ("hip", "gfx942", "ieee", "bf16", VECTORS),
}


@pytest.mark.parametrize("target", TARGETS)
def test_kernels_compile_for(target, tmp_path):
    backend, arch, precision, dtype, sizes = TARGETS[target]
    arguments = json.dumps([backend, arch, dtype, {**sizes, "PRECISION": precision}])
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, arguments], capture_output=True, text=True, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found) == {"values", "of_data", "of_matrix"}
    limit = 64 if arch in (75, "gfx942") else 99  # KiB that one program may have
    for shared, warps, size in found.values():
        assert shared <= limit * 1024 and warps == 4 and size > 0
