"""What a job takes on a device of IBM Quantum, before it is sent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from qiskit import QuantumCircuit
from qiskit.exceptions import QiskitError
from qiskit.primitives.containers.estimator_pub import EstimatorPub

from qiskit_qattn.backends.jobs.device import Cost
from qiskit_qattn.backends.measurement import Plan, shots_of
from qiskit_qattn.errors import BackendError

_JOB_SECONDS = 2.0
_REPETITION_SECONDS = 250e-6  # of a device that does not tell
_NOISE_FACTORS = (1, 3, 5)
_EXECUTIONS = 10_000_000  # circuits times shots that the service takes in one job


def estimate(
    pubs: Sequence[EstimatorPub],
    precision: float,
    device: Any,
    *,
    resilience: int,
    twirled: bool,
    seconds_price: float | None = None,
) -> Cost:
    r"""Return what one job takes.

    .. math:: T = 2\,\mathrm{s} + \sum_c N (d + t_c)

    with N shots, the device's repetition delay d and the duration :math:`t_c` of circuit c, one for each set of
    parameters and measurement basis. Level 1 adds a circuit that calibrates the readout, level 2 runs all others with
    their two-qubit gates folded 1, 3 and 5 times. Twirling rounds N up to equal shares of at least 64 shots.

    Args:
        pubs: ISA circuits with their observables and parameters.
        precision: ε; N is :math:`\lceil 1/\varepsilon^2 \rceil` before twirling.
        device: A device of Qiskit Runtime.
        resilience: The resilience level, 0 to 2.
        twirled: Whether gates are twirled; from level 1 on measurements always are.
        seconds_price: US dollars a second, or None where none is known.

    Raises:
        BackendError: For a precision that is no positive number.

    Source: "Workload usage" in IBM's guides for the formula and the two seconds; shots as the client of
        qiskit-ibm-runtime 0.51 sends them.
    """
    shots = shots_of(precision)
    if twirled or resilience > 0:
        share = max(64, math.ceil(shots / 32))
        shots = share * math.ceil(shots / share)
    factors = _NOISE_FACTORS if resilience == 2 else _NOISE_FACTORS[:1]
    delay = getattr(device, "default_rep_delay", None) or _REPETITION_SECONDS
    circuits, seconds = 0, _JOB_SECONDS
    for pub in pubs:
        count = Plan(pub).size
        circuits += count * len(factors)
        seconds += count * shots * sum(delay + factor * duration(pub.circuit, device) for factor in factors)
    if resilience > 0:
        circuits += 1
        seconds += shots * delay
    usd = None if seconds_price is None else seconds * seconds_price
    return Cost(jobs=1, circuits=circuits, shots=circuits * shots, seconds=seconds, usd=usd)


def check_executions(device: str, cost: Cost) -> None:
    """Raise for a job that the service would refuse.

    Raises:
        BackendError: For more than ten million executions.

    Source: "Job limits" in IBM's guides.
    """
    if cost.shots > _EXECUTIONS:
        raise BackendError(
            f"One job on {device} would take {cost.circuits:,} circuits of {cost.shots // cost.circuits:,} shots, "
            f"{cost.shots:,} executions; IBM Quantum takes at most {_EXECUTIONS:,} a job. It was not sent. Give fewer "
            f"shots, a shorter prompt or a smaller batch; where this is training, gradient=spsa or gradient=simulated."
        )


def duration(circuit: QuantumCircuit, device: Any) -> float:
    """Return the seconds that an ISA circuit takes with its measurement, 0 where the device has no durations."""
    measured = circuit.measure_active(inplace=False)
    try:
        return float(measured.estimate_duration(device.target))
    except QiskitError:
        return 0.0
