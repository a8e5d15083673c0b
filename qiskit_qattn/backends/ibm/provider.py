"""The backend ``ibm``: devices of an IBM Quantum account, and snapshots of devices simulated in this process."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Any, cast

from qiskit_qattn.backends.gradients import GRADIENT_OPTIONS, gradient_option
from qiskit_qattn.backends.ibm.device import IBMDevice
from qiskit_qattn.backends.ibm.errors import Guard
from qiskit_qattn.backends.ibm.isa import ISAPassManager
from qiskit_qattn.backends.ibm.runtime import MODES, EstimatorSettings
from qiskit_qattn.backends.ibm.tiles import ibm_tiling
from qiskit_qattn.backends.measurement import shots_of
from qiskit_qattn.backends.mitigation import METHODS, MITIGATION_OPTIONS, PEC_OPTION, mitigation_option
from qiskit_qattn.backends.noise import fake_device
from qiskit_qattn.backends.options import (
    DEDUPE_OPTION,
    DEVICE_MODULES,
    DEVICE_OPTIONS,
    PRECISION_OPTION,
    dedupe_option,
    shots_option,
    without_sampler,
)
from qiskit_qattn.backends.prices import ibm_second_price
from qiskit_qattn.backends.registry import Backend, Provider
from qiskit_qattn.backends.spec import BackendSpec
from qiskit_qattn.backends.tile_options import TILE_OPTIONS, tiles_option
from qiskit_qattn.errors import BackendError, ConfigError, TransientBackendError, missing_dependency, unknown_name

_SHOTS = 4096
_RESILIENCE = 1
_OPTIMIZATION = 3
_SEQUENCES = ("off", "XX", "XpXm", "XY4")
TARGETS = "a device of your account, such as ibm_fez; least_busy; fake_<device>, a snapshot simulated in this process"
IBM_OPTIONS = {
    "mode": "; ".join(f"{name}: {what}" for name, what in MODES.items()) + "; batch by default",
    "shots": f"samples per measurement basis; {_SHOTS} by default",
    **PRECISION_OPTION,
    "resilience": "0: raw values; 1: readout errors mitigated, the default; 2: zero-noise extrapolation too",
    **MITIGATION_OPTIONS,
    "mitigation": MITIGATION_OPTIONS["mitigation"] + "; pec: the learned noise is inverted; all in place of resilience",
    **PEC_OPTION,
    "twirling": "on or off: twirl two-qubit gates; the resilience level or mitigation decides by default",
    "dd": f"dynamical decoupling of idle qubits: {', '.join(_SEQUENCES)}; off by default",
    "fractional": "on or off: RX and RZZ of any angle as gates, where the device has them; off by default",
    "optimization": f"level of the transpiler, 0 to 3; {_OPTIMIZATION} by default",
    "max_time": "seconds: device time per job in job mode, else how long a session or batch stays open",
    "instance": "the account's instance, as a name or CRN; the saved one by default",
    "seed": "fake_<device> only: seed of the simulation",
    "noise": "fake_<device> only: off leaves the device's noise out; on by default",
    **GRADIENT_OPTIONS,
    **DEDUPE_OPTION,
    **TILE_OPTIONS,
    **DEVICE_OPTIONS,
}
LEAST_BUSY = "least_busy"
_log = logging.getLogger(__name__)


def ibm(spec: BackendSpec) -> Backend:
    """Return a backend of IBM Quantum; credentials come from the saved account or from ``$QISKIT_IBM_TOKEN``.

    Raises:
        ConfigError: Without a target, or for an option out of its range or not for the target.
        UnknownNameError: For a device the account does not have, or an unknown mode or gradient.
        BackendError: Without an account, or where the service refuses.
        MissingDependencyError: For a snapshot without Aer.
    """
    from qiskit_qattn.backends.jobs.estimator import managed_estimator  # it needs the extra `ibm`
    from qiskit_qattn.backends.jobs.sampler import ManagedSampler

    if spec.target is None:
        raise ConfigError(f"Backend 'ibm' needs a target, such as ibm:least_busy. Targets: {TARGETS}.")
    local = spec.target.startswith("fake_")
    if local:
        spec.refuse(["instance"], "is for devices of an account")
    else:
        spec.refuse(["seed", "noise"], "is for fake_<device>")
    mode: Any = _choice(spec, "mode", MODES, "batch")
    settings = _settings(spec)
    fractional = _choice(spec, "fractional", ("on", "off"), "off") == "on"
    max_time = spec.integer("max_time", minimum=1)
    optimization = spec.integer("optimization", minimum=0, maximum=3)
    shots, precision = shots_option(spec, _SHOTS, 10**9)
    gradient, dedupe = gradient_option(spec, settings.seed), dedupe_option(spec, sampled=True)
    tiles = tiles_option(spec)
    choice = ""
    secrets: tuple[str, ...] = ()
    if local:
        backend = _snapshot(spec.target, fractional)
        device = IBMDevice(backend, mode=mode, settings=settings, max_time=max_time)
    else:
        service, secrets = open_service(spec.options.get("instance"))
        backend = find_device(service, spec.target, fractional=fractional, secrets=secrets)
        if spec.target == LEAST_BUSY:
            choice, spec = f"{spec.name}:{spec.target}", replace(spec, target=backend.name)
        price = ibm_second_price()
        device = IBMDevice(
            backend, service, mode=mode, settings=settings, max_time=max_time, seconds_price=price, secrets=secrets
        )
    level = _OPTIMIZATION if optimization is None else optimization
    estimator = managed_estimator(spec, device, precision=precision, choice=choice)
    return Backend(
        str(spec),
        estimator,
        sampler=without_sampler(spec) or ManagedSampler(estimator, shots=shots_of(precision), dedupe=dedupe),
        pass_manager=ISAPassManager(backend, level, call=Guard(*secrets)),
        precision=precision,
        shots=shots,
        dedupe=dedupe,
        gradient=gradient,
        tiling=None if tiles is None else ibm_tiling(tiles, backend, level, Guard(*secrets)),
        mitigation=settings.mitigation,
    )


def _settings(spec: BackendSpec) -> EstimatorSettings:
    level = spec.integer("resilience", minimum=0, maximum=2)
    local = str(spec.target).startswith("fake_")
    mitigation = mitigation_option(spec, ("trex", "zne") if local else METHODS, twirls=True)
    twirling = _choice(spec, "twirling", ("on", "off"), "")
    sequence = _choice(spec, "dd", _SEQUENCES, "off")
    noise = _choice(spec, "noise", ("on", "off"), "on") == "on"
    if sequence != "off" and not noise:
        raise ConfigError(f"dd={sequence} reduces noise, but {str(spec)!r} has noise=off; leave one out.")
    if mitigation is not None:
        given = f"mitigation={spec.options['mitigation']}"
        if level is not None:
            raise ConfigError(f"resilience={level} and {given} both say what is mitigated; leave one out.")
        if not noise:
            raise ConfigError(f"{given} mitigates noise, but {str(spec)!r} has noise=off; leave one out.")
        if spec.options.get("fractional") == "on" and mitigation.methods != ("trex",):
            raise ConfigError(f"{given} folds or twirls CZ and ECR gates; leave fractional=on out.")
    return EstimatorSettings(
        resilience=cast("Any", _RESILIENCE if level is None else level),
        twirling=twirling == "on" if twirling else None,
        decoupling=cast("Any", None if sequence == "off" else sequence),
        seed=spec.integer("seed", minimum=0),
        noise=noise,
        mitigation=mitigation,
    )


def _snapshot(name: str, fractional: bool) -> Any:
    device = fake_device(name)
    if fractional and "rzz" not in device.target.operation_names:
        raise ConfigError(f"fractional=on: {name} has no fractional gates; fake_fractional has.")
    if find_spec("qiskit_aer") is None:
        raise missing_dependency("qiskit-aer", "aer")
    return device


def _choice(spec: BackendSpec, key: str, known: Iterable[str], default: str) -> str:
    value = spec.options.get(key, default)
    if key in spec.options and value not in known:
        raise unknown_name(key, value, known)
    return value


PROVIDER = Provider(
    summary="IBM Quantum through Qiskit Runtime, and snapshots of its devices",
    build=ibm,
    options=IBM_OPTIONS,
    targets=TARGETS,
    choices=(LEAST_BUSY,),
    extra="ibm",
    modules=("qiskit_ibm_runtime", *DEVICE_MODULES),
)


def open_service(instance: str | None = None) -> tuple[Any, tuple[str, ...]]:
    """Return a client of the service, and the texts that no message may contain.

    The account is the saved one, or that of ``$QISKIT_IBM_TOKEN``, ``$QISKIT_IBM_INSTANCE`` and ``$QISKIT_IBM_URL``.

    Args:
        instance: Name or CRN of an instance, or None for the account's own.

    Raises:
        TransientBackendError: If the service cannot be reached.
        BackendError: Without an account, or with one that the service refuses.
    """
    from qiskit_ibm_runtime import QiskitRuntimeService

    from qiskit_qattn.backends.ibm.transport import in_time, set_up

    service = Guard()("opening the account", in_time, QiskitRuntimeService, instance=instance)
    set_up(service)
    account = service.active_account() or {}
    return service, (account.get("token") or "",)


def find_device(service: Any, name: str, *, fractional: bool = False, secrets: Sequence[str] = ()) -> Any:
    """Return a device of an account.

    Args:
        service: The client.
        name: The device's name, or ``least_busy``.
        fractional: Whether the device's fractional gates are used.
        secrets: Texts that no message may contain.

    Raises:
        UnknownNameError: If the service's list does not hold the device; the message lists those that it holds.
        BackendError: If the service does not say, the account has no device in operation, or the device no fractional
            gates.
    """
    from qiskit.providers import QiskitBackendNotFoundError

    from qiskit_qattn.backends.ibm.transport import check_described, listed_devices

    def look() -> Any:
        try:
            if name == LEAST_BUSY:
                return service.least_busy(use_fractional_gates=fractional)
            return service.backend(name, use_fractional_gates=fractional)
        except QiskitBackendNotFoundError:
            return None

    call = Guard(*secrets)
    device = call(f"looking for {name}", look)
    if device is None:
        known = call("listing devices", listed_devices, service)
        if name not in (*known, LEAST_BUSY):
            raise unknown_name("device of this IBM Quantum account", name, [*known, LEAST_BUSY])
        for each in known if name == LEAST_BUSY else [name]:
            call(f"reading the configuration of {each}", check_described, service, each)
        if name != LEAST_BUSY:
            raise TransientBackendError(
                f"IBM Quantum lists {name}, but its configuration could not be read. Try again."
            )
        kind = "device with fractional gates" if fractional else "device"
        raise BackendError(f"No {kind} of this IBM Quantum account is in operation; check its instances and plan.")
    if name == LEAST_BUSY:
        _log.info("ibm:%s is %s.", LEAST_BUSY, device.name)
    return device
