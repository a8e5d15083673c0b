"""What IBM's client returns, as ours: each function raises for an answer of another form than expected."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import CircuitInstruction
from qiskit.exceptions import QiskitError
from qiskit.primitives.containers.estimator_pub import EstimatorPub

from qiskit_qattn.backends.jobs.device import Calibration, State, Values
from qiskit_qattn.simulation.gates import IDLE
from qiskit_qattn.untrusted import shown

_STATES: dict[str, State] = {
    "INITIALIZING": "queued",
    "QUEUED": "queued",
    "RUNNING": "running",
    "DONE": "done",
    "ERROR": "failed",
    "CANCELLED": "cancelled",
}
_ID = re.compile(r"[\w.:-]{1,200}")
_MOST_PAGES = 50  # of a list of jobs with one tag


class Unexpected(ValueError):
    """An answer of another form than expected."""


class PagedTags(list[str]):
    """Job tags for ``QiskitRuntimeService.jobs``, which reads them once a page.

    The client asks for pages until their count is right, so that it never stops where it is wrong.
    """

    def __init__(self, tags: Iterable[str]) -> None:
        super().__init__(tags)
        self._pages = 0

    def __iter__(self) -> Any:
        self._pages += 1
        if self._pages > _MOST_PAGES:
            raise Unexpected(f"the list of jobs with the tag {shown(self[0])} did not end after {_MOST_PAGES} pages")
        return super().__iter__()


def job_id_of(job: Any) -> str:
    """Return the id of a job."""
    found = job.job_id()
    if not isinstance(found, str) or not _ID.fullmatch(found):
        raise Unexpected(f"the job's id is {shown(found)}")
    return found


def tagged(jobs: Sequence[Any], tag: str) -> dict[str, Any]:
    """Return the jobs that have a tag by their ids, oldest first.

    Args:
        jobs: Jobs, newest first.
        tag: The tag.
    """
    found = {}
    for job in reversed(jobs):
        if not isinstance(job.tags, list):
            raise Unexpected(f"the tags of job {shown(job.job_id())} are {shown(job.tags)}")
        if tag in job.tags:
            found[job_id_of(job)] = job
    return found


def state_of(status: Any) -> State:
    """Return the state that a status word of the client stands for; local jobs have an enum."""
    word = getattr(status, "name", status)
    if not isinstance(word, str) or word not in _STATES:
        raise Unexpected(f"the job's state is {shown(word)}, which this release does not know")
    return _STATES[word]


def position_of(metrics: Any) -> int | None:
    """Return the position in the queue, which is optional."""
    position = metrics.get("position_in_queue") if isinstance(metrics, dict) else None
    return position if type(position) is int and position >= 0 else None


def waiting_of(status: Any) -> int | None:
    """Return how many jobs wait on a device, which is optional."""
    waiting = getattr(status, "pending_jobs", None)
    return waiting if type(waiting) is int and waiting >= 0 else None


def seconds_of(metrics: Any) -> float | None:
    """Return the device time that a job is charged for, in seconds, or None as long as it is not counted."""
    usage = metrics.get("usage", {})
    if usage.get("status", "pending") == "pending":
        return None
    seconds = usage["qpu_charge_time_seconds"]
    if type(seconds) not in (int, float) or not 0 <= seconds < math.inf:
        raise Unexpected(f"the job's usage is {shown(seconds)} seconds")
    return float(seconds)


def values_of(result: Any, pubs: Sequence[EstimatorPub], *, mitigated: bool) -> list[Values]:
    """Return a job's values, finite and of its PUBs' shapes, with the shots that the result reports."""
    if result is None:
        raise Unexpected(f"the result is empty; expected values for {len(pubs)} PUBs")
    if len(result) != len(pubs):
        raise Unexpected(f"the result has values for {len(result)} PUBs; expected {len(pubs)}")
    found = []
    for part, pub in zip(result, pubs, strict=True):
        about = (getattr(each, "metadata", None) or {} for each in (result, part))  # older clients: of the part
        shots = next((item["shots"] for item in about if "shots" in item), None)
        evs, stds = (np.asarray(each, dtype=float) for each in (part.data.evs, part.data.stds))
        values = Values(evs, stds, shots, mitigated)
        if values.evs.shape != pub.shape or values.stds.shape != pub.shape:
            raise Unexpected(
                f"the values have shape {values.evs.shape}, their errors {values.stds.shape}; expected {pub.shape}"
            )
        if not np.isfinite(values.evs).all():
            raise Unexpected(f"{np.isfinite(values.evs).sum()} of {values.evs.size} values are finite")
        found.append(values)
    return found


def device_names(answer: Any) -> list[str]:
    """Return the names in a list of devices."""
    names = [item["name"] for item in answer["devices"]]
    if not all(isinstance(name, str) for name in names):
        raise Unexpected(f"the devices' names are {shown(names)}")
    return names


def calibration_of(properties: Any, circuits: Iterable[QuantumCircuit]) -> Calibration | None:
    """Return what a device's properties say of the qubits and gates of circuits on it; None where it has none."""
    if properties is None:
        return None
    used = {(item.operation.name, _indices(circuit, item)) for circuit in circuits for item in circuit.data}
    names = {"t1": "T1", "t2": "T2", "readout": "readout_error"}
    qubits = {
        qubit: {key: _figure(properties.qubit_property, qubit, name) for key, name in names.items()}
        for qubit in sorted({qubit for name, qubits in used if name not in IDLE for qubit in qubits})
    }
    pairs = {(name, tuple(sorted(where))): where for name, where in sorted(used) if len(where) == 2}
    gates = [
        {"name": name, "qubits": list(pair), "error": _figure(properties.gate_property, name, where, "gate_error")}
        for (name, pair), where in pairs.items()
    ]
    return Calibration(properties.last_update_date.isoformat(), qubits, gates)


def _indices(circuit: QuantumCircuit, item: CircuitInstruction) -> tuple[int, ...]:
    return tuple(circuit.find_bit(qubit).index for qubit in item.qubits)


def _figure(ask: Callable[..., Any], *about: Any) -> float | None:
    """Return a figure that a device may have, in SI units."""
    try:
        value, _ = ask(*about)
    except QiskitError:
        return None
    if type(value) not in (int, float) or not math.isfinite(value):
        raise Unexpected(f"{about[-1]} of {about[0]} is {shown(value)}")
    return float(value)
