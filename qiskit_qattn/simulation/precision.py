r"""In which precision unitaries are formed on a device, and angles that float32 can take.

On a CPU unitaries are formed in float64 and rounded once. Most GPUs have few units for float64, so there they are
formed in float32, and expectations stay within 10⁻⁶ of those in float64: cosines and sines of float32 numbers of any
size are good to a rounding error, and sums of angles are taken after each angle was reduced to [−2π, 2π].
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

LARGEST_SUM = 8.0  # of the coefficients of an angle: rounding errors of the parameters, 2⁻²² each, add up with them
_PERIOD = 4 * math.pi  # of half an angle's cosine
_FIRST = 12.5  # 4π in three parts; the first two of so few bits that their multiples are exact
_SECOND = math.floor((_PERIOD - _FIRST) * 2**15) / 2**15
_THIRD = _PERIOD - _FIRST - _SECOND


def forming_dtype(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which a module of ``dtype`` on a device forms its unitaries, float64 or float32.

    It is float64 on CPUs, and after ``module.double()`` everywhere but on Apple's GPUs, which have no float64; also on
    CUDA devices while torch may round the factors of products to TensorFloat-32, whose errors would add up.
    """
    if device.type == "mps":
        return torch.float32
    if dtype == torch.float64 or device.type in ("cpu", "meta"):
        return torch.float64
    return torch.float64 if device.type == "cuda" and _rounds_factors() else torch.float32


def _rounds_factors() -> bool:
    matmul = torch.backends.cuda.matmul
    if hasattr(matmul, "fp32_precision"):  # torch 2.9 and newer, where reading the other may be an error
        return bool(matmul.fp32_precision == "tf32")
    return matmul.allow_tf32


def saves_calls(device: torch.device, forming: torch.dtype) -> bool:
    """Return whether few calls on larger tensors are faster than many on smaller ones, as on every GPU."""
    return device.type not in ("cpu", "meta") or forming == torch.float32


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which autocast rounds no factors of products on a device."""
    if device.type == "meta" or not torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def reduced(angles: Tensor) -> Tensor:
    r"""Return angles modulo 4π, in [−2π, 2π] up to 10⁻⁷ θ and of the same dtype, with the gradient of the identity.

    .. math:: r = \big((\theta - k c_1) - k c_2\big) - k c_3, \qquad k = \lfloor \theta / 4\pi \rceil

    with :math:`c_1 + c_2 + c_3 = 4\pi`. The first two differences are exact, so that r is good to half a unit in the
    last place of 2π, 2.4·10⁻⁷ in float32, for angles up to 5·10⁴; angles within [−2π, 2π] stay as they are.

    Source: W. J. Cody and W. Waite, Software Manual for the Elementary Functions (1980), chapter 8.
    """
    turns = (angles.detach() / _PERIOD).round_()
    for part in (_FIRST, _SECOND, _THIRD):
        angles = torch.add(angles, turns, alpha=-part)
    return angles
