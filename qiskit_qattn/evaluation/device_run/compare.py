"""How far a generation on a device is from the exact one: of each token's distribution, and of each head's values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qiskit_qattn.evaluation.device_run.trace import HeadValues


@dataclass(frozen=True)
class TokenRow:
    """One token.

    Attributes:
        token: Its number in the vocabulary.
        p_device: Its probability on the device.
        p_exact: Its probability on the exact engine, after the same text.
        error: Standard deviation of that probability in runs of the exact circuits with the device's shots; 0 where
            the device's values are exact.
        tvd: Total variation distance of the two distributions.
        tvd_shots: Its mean in those runs, from their shots alone.
        tvd_shots_95: Its 95 % quantile in those runs.
        kl: Kullback–Leibler divergence D(exact ‖ device) in nats.
        exact_token: What the exact engine draws here, with the same random number.
    """

    token: int
    p_device: float
    p_exact: float
    error: float
    tvd: float
    tvd_shots: float
    tvd_shots_95: float
    kl: float
    exact_token: int


@dataclass(frozen=True)
class HeadRow:
    """One head, over all tokens.

    Attributes:
        layer: Its layer.
        kind: Its kind.
        head: Its number among those of its kind in the layer.
        values: Number of expectations.
        rms: Root mean square of their differences from the exact ones of the same inputs.
        rms_error: Root mean square of their standard errors, which is what ``rms`` would be from shots alone; None
            where the backend gave none.
        largest: Largest difference.
        outside: Share of differences beyond two standard errors; about 0.05 from shots alone. None as above.
        slope: Least-squares slope of the values against the exact ones: how much of the signal is left.
        slope_error: Its standard error from that of the values. None as above.
    """

    layer: int
    kind: str
    head: int
    values: int
    rms: float
    rms_error: float | None
    largest: float
    outside: float | None
    slope: float
    slope_error: float | None


def token_rows(
    tokens: Sequence[int],
    device: Tensor,
    exact_tokens: Sequence[int],
    exact: Tensor,
    sampled: Tensor | None,
    temperature: float,
) -> list[TokenRow]:
    r"""Compare the distributions that n tokens were drawn from.

    With p and q those of the exact engine and of the device,

    .. math:: \mathrm{TVD} = \tfrac12 \sum_v |p_v - q_v|, \qquad D(p \| q) = \sum_v p_v \ln (p_v / q_v)

    Args:
        tokens: The tokens drawn on the device.
        device: The logits on the device, shape ``(n, V)``.
        exact_tokens: The tokens that the exact engine draws after the same text.
        exact: The exact logits, shape ``(n, V)``.
        sampled: The logits of S runs of the exact circuits with shots, shape ``(n, S, V)``; None where the device's
            values are exact.
        temperature: Divides the logits; distributions at 0 are those at 1.
    """
    scale = temperature or 1.0
    log_q, log_p = (torch.log_softmax(logits.double() / scale, -1) for logits in (device, exact))  # (n, V)
    q, p = log_q.exp(), log_p.exp()
    tvd, kl = _distance(p, q), (p * (log_p - log_q)).sum(-1).clamp_min(0)  # (n,)
    at = torch.tensor(tokens)[:, None]
    spread, mean, high = torch.zeros(3, len(tokens), dtype=torch.float64)
    if sampled is not None:
        s = torch.softmax(sampled.double() / scale, -1)  # (n, S, V)
        spread = s.gather(-1, at[:, None].expand(-1, s.shape[1], 1)).std(1).squeeze(-1)
        distances = _distance(p[:, None], s)  # (n, S)
        mean, high = distances.mean(1), distances.quantile(0.95, 1)
    columns = (q.gather(1, at)[:, 0], p.gather(1, at)[:, 0], spread, tvd, mean, high, kl)
    names = ("p_device", "p_exact", "error", "tvd", "tvd_shots", "tvd_shots_95", "kl")
    figures = zip(*(column.tolist() for column in columns), strict=True)
    return [
        TokenRow(token=token, exact_token=other, **dict(zip(names, each, strict=True)))
        for token, other, each in zip(tokens, exact_tokens, figures, strict=True)
    ]


def summary(tokens: Sequence[TokenRow], sampled: Tensor | None, exact: Tensor, temperature: float) -> dict[str, Any]:
    """Return the figures of all tokens together.

    Returns:
        ``tokens``, their number, and ``same``, for how many the exact engine draws the same; the means of ``tvd`` and
        ``kl`` over tokens; ``tvd_shots`` and ``tvd_shots_95``, mean and 95 % quantile of the mean distance in S runs of
        the exact circuits with shots; ``share``, the share of those runs that are at least as far off. Tokens share
        the keys and values of the text before them, so these are no independent measurements; the runs share them
        alike. None where values are exact.

    Args:
        tokens: The rows of all tokens.
        sampled: As for :func:`token_rows`.
        exact: As for :func:`token_rows`.
        temperature: As for :func:`token_rows`.
    """
    mean = {name: fmean(getattr(row, name) for row in tokens) for name in ("tvd", "kl")}
    found: dict[str, Any] = {"tokens": len(tokens), "same": sum(row.token == row.exact_token for row in tokens)}
    found |= mean | {"tvd_shots": None, "tvd_shots_95": None, "share": None}
    if sampled is not None:
        p, s = (torch.softmax(logits.double() / (temperature or 1.0), -1) for logits in (exact[:, None], sampled))
        runs = _distance(p, s).mean(0)  # (S,)
        found["tvd_shots"], found["tvd_shots_95"] = float(runs.mean()), float(runs.quantile(0.95))
        found["share"] = float((runs >= mean["tvd"]).double().mean())
    return found


def _distance(p: Tensor, q: Tensor) -> Tensor:
    return (p - q).abs().sum(-1) / 2


def head_rows(passes: Sequence[Sequence[HeadValues]]) -> list[HeadRow]:
    """Compare the expectations of each head with the exact ones of the same inputs, over all passes."""
    found: dict[tuple[int, str, int], list[np.ndarray]] = {}
    for each in (values for one in passes for values in one):
        table = np.stack([each.values, each.exact, each.errors])  # (3, H, K, M)
        for head in range(table.shape[1]):
            found.setdefault((each.layer, each.kind, head), []).append(table[:, head].reshape(3, -1))
    rows = []
    for (layer, kind, head), tables in sorted(found.items()):
        rows.append(HeadRow(layer=layer, kind=kind, head=head, **_head_figures(np.concatenate(tables, 1))))
    return rows


def _head_figures(table: np.ndarray) -> dict[str, Any]:
    """Return the figures of values, exact values and errors, shape ``(3, n)``."""
    values, exact, errors = table
    difference, power = values - exact, float((exact**2).sum()) or math.inf
    known = bool(np.isfinite(errors).all())
    far = np.abs(difference) > np.maximum(2 * errors, 1e-6)  # rounding of the engine is no difference
    return {
        "values": len(values),
        "rms": _rms(difference),
        "rms_error": _rms(errors) if known else None,
        "largest": float(np.abs(difference).max()),
        "outside": float(far.mean()) if known else None,
        "slope": float((values * exact).sum()) / power,
        "slope_error": math.sqrt(float(((errors * exact) ** 2).sum())) / power if known else None,
    }


def _rms(values: np.ndarray) -> float:
    return math.sqrt(float((values**2).mean()))
