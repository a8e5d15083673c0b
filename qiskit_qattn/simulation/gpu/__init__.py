"""Triton kernels for GPUs: features, amplitudes, squares and signs in one pass over the batch.

The modules of this folder import Triton, so they are imported when a kernel is first used. Builds of torch for CUDA and
ROCm bring it; where it is missing, torch's operations are used, which give the same values and gradients.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import Tensor, nn

from qiskit_qattn.simulation.derivatives import transforms

AVAILABLE = find_spec("triton") is not None
DEVICES = ("cuda",)  # also the name of AMD's in torch
LARGEST_FEATURES = LARGEST_OUTPUTS = 64  # what 64 rows can hold in registers


def takes(data: Tensor, signs: Tensor, num_features: int) -> bool:
    """Return whether kernels compute a circuit's expectations: in float32, on a GPU, with few features and observables.

    Inside ``torch.compile`` too, which records them as an operator; transforms of ``torch.func`` exclude them.

    Args:
        data: What is encoded.
        signs: As for ``simulation.gpu.expectations``.
        num_features: F there.
    """
    if not AVAILABLE or data.device.type not in DEVICES or signs.dtype != torch.float32:
        return False
    if num_features > LARGEST_FEATURES or signs.shape[-1] > LARGEST_OUTPUTS:
        return False
    if not torch.compiler.is_compiling() and (transforms() or type(data) not in (Tensor, nn.Parameter)):
        return False
    return data.dtype.is_floating_point
