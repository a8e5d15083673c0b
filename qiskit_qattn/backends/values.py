"""Whether what an estimator or a device returned can be the expectations that were asked for."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from qiskit.primitives.containers.observables_array import ObservablesArray

from qiskit_qattn.errors import BackendError
from qiskit_qattn.untrusted import shown

_LOG = logging.getLogger("qiskit_qattn.backends")
LEAST_SHOTS = 0.9  # of those asked for, from which values are taken
_ERRORS = 6  # standard errors by which a value may lie outside
_ROUNDING = 1e-3  # by which an exact one may, in the units of the bound
_MITIGATION = ("measure_mitigation", "zne_mitigation", "pec_mitigation")  # of Qiskit Runtime


@dataclass(frozen=True)
class Answer:
    """What an estimator says besides the expectations of a call.

    Attributes:
        errors: Their standard errors, shape ``(N, M)``, NaN where it gives none; None before the first call.
        metadata: The metadata of the PUBs' results.
    """

    errors: np.ndarray | None = None
    metadata: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def of(cls, results: Sequence[Any], observables: int, count: int) -> Answer:
        """Return it for the results of the PUBs that hold N parameter sets in turn, of M observables each."""
        errors = [getattr(getattr(result, "data", None), "stds", None) for result in results]
        parts = [np.asarray(each) for each in errors]
        fit = [part.T for part in parts if part.dtype.kind == "f" and part.ndim == 2 and len(part) == observables]
        table = np.concatenate([np.zeros((0, observables)), *fit])
        if len(table) != count:
            table = np.full((count, observables), math.nan)
        about = (getattr(result, "metadata", None) for result in results)
        return cls(table, tuple(each for each in about if isinstance(each, Mapping)))

    def rows(self, which: np.ndarray) -> Answer:
        """Return it for some of the N parameter sets, which may be repeated."""
        return self if self.errors is None else replace(self, errors=self.errors[which])


class MitigationWarning(UserWarning):
    """Mitigated values lie outside their observables' bounds, and are kept as they are."""


def precision_of(shots: int) -> float:
    r"""Return the precision :math:`1 / \sqrt N` for which an estimator takes N shots.

    Estimators take :math:`\lceil 1 / \varepsilon^2 \rceil`; a relative 1e-15 is added against rounding to N + 1.
    """
    return (1 + 1e-15) / math.sqrt(shots)


def bounds(observables: ObservablesArray) -> np.ndarray:
    r"""Return :math:`\sum_t |c_t| \ge |\langle O \rangle|` of each observable :math:`\sum_t c_t P_t`."""
    sums = [sum(abs(factor) for factor in terms.values()) for terms in observables.ravel().tolist()]
    return np.array(sums, dtype=float).reshape(observables.shape)


def outside(values: np.ndarray, limits: np.ndarray, precision: float) -> np.ndarray:
    r"""Return which values lie outside :math:`\pm (b + 6 \varepsilon \max(1, b))`, NaN among them.

    Args:
        values: Expectations.
        limits: Their bounds b, which broadcast against them.
        precision: Standard error ε of a Pauli string; 0 for exact values.
    """
    return ~(np.abs(values) <= limits + (_ERRORS * precision + _ROUNDING) * np.maximum(1, limits))


def real(found: Any, where: str) -> np.ndarray:
    """Return numbers as an array of float64.

    Raises:
        BackendError: For anything that is no real number; it starts with ``where``.
    """
    try:
        table = np.asarray(found)
    except ValueError as error:  # lists of several lengths
        raise BackendError(f"{where} returned values that are no array: {error}.") from error
    if np.iscomplexobj(table) and np.allclose(table.imag, 0):
        table = table.real
    if table.dtype.kind not in "fiu":
        raise BackendError(f"{where} returned values that are no real numbers: {shown(found)}.")
    return table.astype(float, copy=False)


def check_values(
    values: np.ndarray, limits: np.ndarray, precision: float, where: str, *, mitigated: bool = False
) -> int:
    """Check that values are finite, and within their bounds plus six standard errors; return how many are outside.

    Mitigated values may lie outside: they are divided by what noise left of a signal, or extrapolated. They are logged,
    and the first are a :class:`MitigationWarning`.

    Args:
        values: Expectations.
        limits: Their bounds, which broadcast against them.
        precision: Standard error of a Pauli string; 0 for exact values.
        where: What returned them, for the error.
        mitigated: Whether errors were mitigated.

    Raises:
        BackendError: For values that are not finite, or that no state gives.
    """
    wrong = outside(values, limits, precision)
    if not wrong.any():
        return 0
    finite = np.isfinite(values)
    if not finite.all():
        raise BackendError(
            f"{where} returned {values.size - finite.sum():,} of {values.size:,} values that are not finite, such as "
            f"{values[~finite][0]}."
        )
    limit = np.broadcast_to(limits, values.shape)[wrong]
    text = (
        f"{where} returned {len(limit):,} of {values.size:,} values that lie outside their observables' bounds, such "
        f"as {values[wrong][0]:.4g} where |⟨O⟩| ≤ {limit[0]:.4g} and the standard error is {precision:.2g}."
    )
    if not mitigated:
        raise BackendError(text)
    _LOG.warning("%s They are mitigated, and kept.", text)
    warnings.warn(  # with the same text each time, so that it is shown once
        "Mitigated values lie outside their observables' bounds, and are kept: mitigation divides by what noise left "
        "of a signal, or extrapolates. The log says which.",
        MitigationWarning,
        stacklevel=1,
    )
    return len(limit)


def check_shots(shots: Any, precision: float, where: str) -> None:
    r"""Check that values come from nine tenths of the :math:`1 / \varepsilon^2` shots that were asked for.

    Raises:
        BackendError: For fewer, or for what is no number.
    """
    least = LEAST_SHOTS / precision**2
    if not isinstance(shots, int | float | np.number) or not shots >= least - 1:
        raise BackendError(f"{where} returned values from {shots} shots, expected at least {least:,.0f}.")


def results_of(found: Any, count: int, precision: float, where: str) -> tuple[Iterator[Any], str, bool]:
    """Return the results of PUBs, what returned them, and whether errors were mitigated, from what a job returned.

    Args:
        found: What the job returned.
        count: How many PUBs it was sent with.
        precision: The standard error that was asked for.
        where: What ran it, for errors; the name of a job on a device takes its place.

    Raises:
        BackendError: For another number of results, or ones that are from too few shots by their own metadata.
    """
    results = list(found) if isinstance(found, Iterable) else []
    if len(results) != count:
        raise BackendError(f"{where} returned {len(results)} results for {count} PUBs.")
    about = [item for result in results if isinstance(item := getattr(result, "metadata", None), dict)]
    if about and "job_id" in about[0]:
        where = f"Job {about[0]['job_id']} on {about[0].get('device', where)}"
    for item in about if precision > 0 else ():
        if "shots" in item and item.get("target_precision") == precision:
            check_shots(item["shots"], precision, where)
    return iter(results), where, is_mitigated(getattr(found, "metadata", None), *about)


def evs_of(result: Any, shape: tuple[int, ...], where: str) -> np.ndarray:
    """Return the expectations of one PUB's result.

    Raises:
        BackendError: If there are none, or they are of another shape.
    """
    values = real(getattr(getattr(result, "data", None), "evs", None), where)
    if values.shape != shape:
        raise BackendError(
            f"{where} returned values of shape {values.shape}, expected {shape}; it must broadcast observables against "
            f"parameter values."
        )
    return values


def is_mitigated(*metadata: Any) -> bool:
    """Tell whether the metadata of results say that errors were mitigated, as ours and Qiskit Runtime's do."""
    for found in metadata:
        if not isinstance(found, Mapping):
            continue
        options = found.get("options")
        resilience = options.get("resilience") if isinstance(options, Mapping) else found.get("resilience")
        resilience = resilience if isinstance(resilience, Mapping) else {}
        if found.get("mitigated") is True or any(resilience.get(name) for name in _MITIGATION):
            return True
    return False
