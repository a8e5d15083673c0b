"""What a job of Qiskit Runtime needs besides circuits: options, a session or batch, a cost estimate."""

from __future__ import annotations

import logging
import math
import warnings
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from qiskit import QuantumCircuit
from qiskit.exceptions import QiskitError
from qiskit.primitives.containers.estimator_pub import EstimatorPub

from qiskit_qattn.backends.ibm.answers import Unexpected
from qiskit_qattn.backends.ibm.errors import http_status, service_code
from qiskit_qattn.backends.jobs.device import Cost
from qiskit_qattn.backends.measurement import Plan, shots_of
from qiskit_qattn.backends.mitigation import Mitigation
from qiskit_qattn.errors import BackendError
from qiskit_qattn.forks import ForkLock, in_forked_process
from qiskit_qattn.untrusted import shown

Kind = Literal["batch", "job", "session"]
MODES: dict[Kind, str] = {
    "batch": "jobs are charged for their own time; every plan has it",
    "job": "each job is queued separately",
    "session": "the device is reserved between jobs and charged for that time too, which a budget does not count; "
    "not on the open plan",
}
_NO_SESSIONS = 1352  # the service's code where the plan has none
_CLOSED = 1217
_JOB_SECONDS = 2.0
REPETITION_SECONDS = 250e-6  # of a device that does not report it
_LEARNING_SHOTS = 4 * 6 * 9 * 32 * 128  # at most: layers, depths, bases, twirls, and samples of each
_EXECUTIONS = 10_000_000  # circuits times shots that the service takes in one job
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EstimatorSettings:
    """What Qiskit Runtime's Estimator does besides running circuits.

    Attributes:
        resilience: 0 for raw values; 1 mitigates readout errors; 2 also extrapolates to zero gate noise.
        twirling: Whether two-qubit gates are twirled; None leaves it to the resilience level.
        decoupling: The dynamical decoupling sequence of idle qubits, or None.
        seed: Seed of the simulation of a snapshot; each job's seed is derived from it.
        noise: Whether a snapshot's noise is simulated.
        mitigation: How errors are mitigated, in place of what ``resilience`` and ``twirling`` say, or None.
    """

    resilience: Literal[0, 1, 2] = 1
    twirling: bool | None = None
    decoupling: Literal["XX", "XpXm", "XY4"] | None = None
    seed: int | None = None
    noise: bool = True
    mitigation: Mitigation | None = field(default=None, repr=False)  # keys of earlier releases are without it

    def __str__(self) -> str:
        """Return everything that changes what a job returns."""
        return repr(self) + ("" if self.mitigation is None else f" {self.mitigation!r}")

    @property
    def effective(self) -> Mitigation | None:
        """How errors are mitigated, by a resilience level too; None for raw values."""
        if self.mitigation is not None or self.resilience == 0:
            return self.mitigation
        if self.resilience == 1:
            return Mitigation(methods=("trex",), twirling=bool(self.twirling))
        return Mitigation(methods=("trex", "zne"), fit="exponential", twirling=self.twirling is not False)

    def options(self, tag: str, limit: int | None, seed: int | None) -> dict[str, Any]:
        """Return the Estimator's options for one job, of at most ``limit`` seconds."""
        options: dict[str, Any] = {"resilience_level": self.resilience, "environment": {"job_tags": [tag]}}
        if self.mitigation is not None:
            options |= self.mitigation.resilience()
        elif self.twirling is not None:
            options["twirling"] = {"enable_gates": self.twirling}
        if self.decoupling is not None:
            options["dynamical_decoupling"] = {"enable": True, "sequence_type": self.decoupling}
        if limit is not None:
            options["max_execution_time"] = limit
        if seed is not None:
            options["simulator"] = {"seed_simulator": seed}
        return options


def runtime_estimator(mode: Any, options: dict[str, Any]) -> Any:
    """Return Qiskit Runtime's Estimator: the one of 0.50 and later, or the older one.

    The older one learns the noise that ``pec`` inverts within the job; the new one needs another job for that.
    """
    from qiskit_ibm_runtime import EstimatorV2 as Estimator

    if not options.get("resilience", {}).get("pec_mitigation"):
        with suppress(ImportError):
            from qiskit_ibm_runtime.executor_estimator import Estimator
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The EstimatorV2 class is deprecated", DeprecationWarning)
        return Estimator(mode=mode, options=options)


class Mode:
    """A session or a batch that is opened when the first job is sent, or neither. A forked process opens its own.

    Args:
        kind: One of ``MODES``.
        max_time: Seconds after which the service closes it, or None for the service's own limit.
    """

    def __init__(self, kind: Kind, max_time: int | None = None) -> None:
        self.kind, self._max_time = kind, max_time
        self._opened: Any = None
        self._device: Any = None  # that the session or batch is on
        self._lock = ForkLock()
        _MODES.add(self)

    def target(self, device: Any) -> Any:
        """Return what an estimator of Qiskit Runtime takes as its mode to send a job to a device.

        A session or batch on another device is closed.
        """
        if self.kind == "job":
            return device
        with self._lock:
            if self._device is not device:
                self.close()
            if self._opened is None:
                opened = self._open(device)
                if hasattr(device, "service") and not isinstance(opened.session_id, str):  # jobs would run outside it
                    raise Unexpected(f"the id of the new {self.kind} is {shown(opened.session_id)}")
                self._opened, self._device = opened, device
            return self._opened

    def renew(self, closed: Any) -> None:
        """Open another session or batch the next time, in place of one that the service closed."""
        with self._lock:
            if self._opened is closed:
                self._opened = None

    def close(self) -> None:
        """Close the session or batch for new jobs; queued ones still run."""
        with self._lock:
            opened = self._opened
            if opened is not None:
                opened.close()
                self._opened = None  # not before: a close that failed can be tried again

    def _open(self, device: Any) -> Any:
        from qiskit_ibm_runtime import Batch, Session
        from qiskit_ibm_runtime.api.exceptions import RequestsApiError

        if self.kind == "session":
            try:
                return Session(device, max_time=self._max_time)
            except RequestsApiError as error:
                if service_code(error) != _NO_SESSIONS:
                    raise
            notice = f"The open plan of IBM Quantum has no sessions; jobs for {device.name} run in a batch."
            _log.warning(notice)
            warnings.warn(notice, stacklevel=2)
            self.kind = "batch"
        return Batch(device, max_time=self._max_time)


_MODES: weakref.WeakSet[Mode] = weakref.WeakSet()


@in_forked_process
def _leave_to_parent() -> None:
    for mode in list(_MODES):
        mode.renew(mode._opened)


def is_closed(error: BaseException) -> bool:
    """Tell whether a job was refused because its session or batch is closed."""
    status = http_status(error)
    if status is None:
        return "The session is closed" in str(error)  # by us
    return 400 <= status < 500 and service_code(error) == _CLOSED


def estimated_cost(
    pubs: Sequence[EstimatorPub],
    precision: float,
    device: Any,
    *,
    mitigation: Mitigation | None,
    twirled: bool,
    seconds_price: float | None = None,
) -> Cost:
    r"""Return the cost of one job.

    .. math:: T = 2\,\mathrm{s} + \sum_c N (d + t_c)

    with N shots, the device's repetition delay d and the duration :math:`t_c` of circuit c, one for each set of
    parameters and measurement basis. Level 1 adds a circuit that calibrates the readout, level 2 runs all others with
    their two-qubit gates folded 1, 3 and 5 times. Twirling rounds N up to equal shares of at least 64 shots. What
    ``mitigation=pec`` takes is bounded by its overhead and by what the service learns noise from at most.

    Args:
        pubs: ISA circuits with their observables and parameters.
        precision: ε; N is :math:`\lceil 1/\varepsilon^2 \rceil` before twirling.
        device: A device of Qiskit Runtime.
        mitigation: How errors are mitigated, or None.
        twirled: Whether gates are twirled without.
        seconds_price: US dollars per second, or None where none is known.

    Raises:
        BackendError: For a precision that is no positive number.

    Source: "Workload usage" in IBM's guides for the formula and the two seconds; shots as the client of
        qiskit-ibm-runtime 0.51 sends them.
    """
    shots = shots_of(precision)
    plain = mitigation or Mitigation(methods=(), twirling=twirled)
    shots = plain.shots(shots)
    factors = plain.runs
    delay = getattr(device, "default_rep_delay", None) or REPETITION_SECONDS
    circuits, seconds = 0, 0.0
    for pub in pubs:
        count = Plan(pub).size
        circuits += count * len(factors)
        seconds += count * shots * sum(delay + factor * duration(pub.circuit, device) for factor in factors)
    if "pec" in plain.methods:
        circuits, seconds = plain.overhead * circuits, plain.overhead * seconds
        circuits += math.ceil(_LEARNING_SHOTS / shots)
        seconds += _LEARNING_SHOTS * delay
    circuits += plain.calibrations
    seconds += plain.calibrations * shots * delay
    return job_cost(circuits, circuits * shots, seconds, seconds_price)


def job_cost(circuits: int, shots: int, seconds: float, seconds_price: float | None) -> Cost:
    """Return what a job costs whose circuits take some seconds."""
    total = _JOB_SECONDS + seconds
    usd = None if seconds_price is None else total * seconds_price
    return Cost(jobs=1, circuits=circuits, shots=shots, seconds=total, usd=usd)


def check_executions(device: str, cost: Cost) -> None:
    """Raise for a job that the service would refuse.

    Raises:
        BackendError: For more than ten million executions.

    Source: "Job limits" in IBM's guides.
    """
    if cost.shots > _EXECUTIONS:
        raise BackendError(
            f"One job on {device} would take {cost.circuits:,} circuits of {cost.shots // cost.circuits:,} shots, "
            f"{cost.shots:,} executions; IBM Quantum takes at most {_EXECUTIONS:,} per job. It was not sent. Give "
            f"fewer shots, a shorter prompt or a smaller batch; in training, also gradient=spsa or gradient=simulated."
        )


def duration(circuit: QuantumCircuit, device: Any) -> float:
    """Return the seconds that an ISA circuit takes with its measurement, 0 where the device has no durations."""
    names = {item.operation.name for item in circuit.data}
    measured = circuit if "measure" in names else circuit.measure_active(inplace=False)
    try:
        return float(measured.estimate_duration(device.target))
    except QiskitError:
        return 0.0
