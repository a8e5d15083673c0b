"""A Sampler's PUBs on IBM's devices: Qiskit Runtime's Sampler, what a job costs, and its results."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from qiskit.primitives import BitArray
from qiskit.primitives.containers.sampler_pub import SamplerPub

from qiskit_qattn.backends.ibm.answers import Unexpected
from qiskit_qattn.backends.ibm.runtime import REPETITION_SECONDS, EstimatorSettings, duration, job_cost
from qiskit_qattn.backends.ibm.snapshot import Snapshot
from qiskit_qattn.backends.jobs.device import Bits, Cost
from qiskit_qattn.errors import CircuitError
from qiskit_qattn.simulation.cutting import cut
from qiskit_qattn.simulation.decomposition import device_circuit


def sampler_settings(settings: EstimatorSettings) -> str:
    """Return everything that changes what a Sampler's job returns; nothing is mitigated in one."""
    return f"sampler twirling={settings.twirling} dd={settings.decoupling} seed={settings.seed} noise={settings.noise}"


def sampler_options(settings: EstimatorSettings, tag: str, limit: int | None, seed: int | None) -> dict[str, Any]:
    """Return Qiskit Runtime's options for one job, of at most ``limit`` seconds."""
    options = settings.options(tag, limit, seed)
    known = ("environment", "dynamical_decoupling", "max_execution_time", "simulator")
    twirling = {} if settings.twirling is None else {"twirling": {"enable_gates": settings.twirling}}
    return {name: options[name] for name in known if name in options} | twirling


def runtime_sampler(mode: Any, options: dict[str, Any]) -> Any:
    """Return Qiskit Runtime's Sampler: the one of 0.50 and later, or the older one."""
    from qiskit_ibm_runtime import SamplerV2 as Sampler

    with suppress(ImportError):
        from qiskit_ibm_runtime.executor_sampler import Sampler
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The SamplerV2 class is deprecated", DeprecationWarning)
        return Sampler(mode=mode, options=options)


def device_samples(pubs: Sequence[SamplerPub], snapshot: Snapshot | None) -> tuple[list[SamplerPub], Any]:
    """Return PUBs in gates of Qiskit's own; for a snapshot on the qubits in use, with the simulator of these.

    Raises:
        CircuitError: For a gate with the name of one of Qiskit's that is another.
    """
    circuits = {id(pub.circuit): pub.circuit for pub in pubs}
    ours = {key: device_circuit(circuit) for key, circuit in circuits.items()}
    simulator = None
    if snapshot is not None:
        parts = [cut(circuit, (), classical=True) for circuit in ours.values()]
        qubits = tuple(sorted({qubit for part in parts for qubit in part.qubits}))
        kept = [cut(circuit, qubits, classical=True).circuit for circuit in ours.values()]
        for part, circuit in zip(kept, ours.values(), strict=True):
            part.global_phase = circuit.global_phase  # it may have a parameter that occurs nowhere else
        ours = dict(zip(ours, kept, strict=True))
        simulator = snapshot.simulator(qubits)
    return [SamplerPub(ours[id(pub.circuit)], pub.parameter_values, pub.shots) for pub in pubs], simulator


def check_registers(pubs: Sequence[SamplerPub]) -> None:
    """Raise for what Qiskit Runtime's Sampler returns wrong bits of.

    Raises:
        CircuitError: For registers that share a bit.
    """
    for pub in pubs:
        bits = [bit for register in pub.circuit.cregs for bit in register]
        if len(set(bits)) < len(bits):
            names = ", ".join(register.name for register in pub.circuit.cregs)
            raise CircuitError(
                f"On IBM's devices a classical bit belongs to one register, but some of {names} share bits."
            )


def sampler_cost(pubs: Sequence[SamplerPub], device: Any, seconds_price: float | None) -> Cost:
    """Return the estimated cost of one job, by the formula of an Estimator's without mitigation.

    Args:
        pubs: ISA circuits with their parameters.
        device: A device of Qiskit Runtime.
        seconds_price: US dollars per second, or None where none is known.
    """
    delay = getattr(device, "default_rep_delay", None) or REPETITION_SECONDS
    counts = [math.prod(pub.shape) for pub in pubs]
    seconds = sum(
        count * pub.shots * (delay + duration(pub.circuit, device)) for count, pub in zip(counts, pubs, strict=True)
    )
    shots = sum(count * pub.shots for count, pub in zip(counts, pubs, strict=True))
    return job_cost(sum(counts), shots, seconds, seconds_price)


def bits_of(result: Any, pubs: Sequence[SamplerPub]) -> list[Bits]:
    """Return a job's samples of each classical register, of its PUBs' shapes; twirling takes some more than asked."""
    if result is None:
        raise Unexpected(f"the result is empty; expected samples for {len(pubs)} PUBs")
    if len(result) != len(pubs):
        raise Unexpected(f"the result has samples for {len(result)} PUBs; expected {len(pubs)}")
    found = []
    for part, pub in zip(result, pubs, strict=True):
        registers = {}
        for register in pub.circuit.cregs:
            bits = getattr(part.data, register.name, None)
            if not isinstance(bits, BitArray) or (bits.shape, bits.num_bits) != (pub.shape, register.size):
                raise Unexpected(f"the result has no {register.size} bits of {register.name!r} in shape {pub.shape}")
            registers[register.name] = bits.slice_shots(range(min(bits.num_shots, pub.shots)))
        found.append(Bits(registers))
    return found
