"""The backend ``braket``: the SDK's local simulators, AWS's simulators, and QPUs found by name or ARN."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from typing import Any, TypedDict

from qiskit_qattn.backends.braket.aws import one_attempt
from qiskit_qattn.backends.braket.capabilities import Capabilities
from qiskit_qattn.backends.braket.device import BraketDevice
from qiskit_qattn.backends.braket.errors import REGION, aws_errors, pages
from qiskit_qattn.backends.braket.local import (
    GATES,
    LOCAL_NOISE_OPTIONS,
    BraketLocalEstimator,
    BraketLocalSampler,
    local_noise,
)
from qiskit_qattn.backends.braket.tiles import side_by_side
from qiskit_qattn.backends.gradients import GRADIENT_OPTIONS, gradient_option
from qiskit_qattn.backends.measurement import shots_of
from qiskit_qattn.backends.mitigation import MITIGATION_OPTIONS, Fit, mitigation_option
from qiskit_qattn.backends.options import (
    DEDUPE_OPTION,
    DEVICE_MODULES,
    DEVICE_OPTIONS,
    PRECISION_OPTION,
    Sampling,
    dedupe_option,
    shots_option,
    without_sampler,
)
from qiskit_qattn.backends.prices import braket_price
from qiskit_qattn.backends.registry import Backend, Provider
from qiskit_qattn.backends.spec import BackendSpec
from qiskit_qattn.backends.tile_options import TILE_OPTIONS, tiles_option
from qiskit_qattn.errors import BackendError, ConfigError, TransientBackendError, unknown_name
from qiskit_qattn.untrusted import as_type, one_line

_LOCAL = {"local": "braket_sv", "local_dm": "braket_dm"}
_SHOTS = 1024
TARGETS = (
    "local (state vectors) or local_dm (density matrices, with noise) in this process; sv1, dm1 or tn1, AWS's "
    "simulators; the name or ARN of an AWS device"
)
AWS_OPTIONS = {
    "region": "AWS region; the device's by default",
    "s3": "bucket/prefix for results; Braket's default bucket without it",
    "reservation": "ARN of a Braket Direct reservation",
}
_FITS: tuple[Fit, ...] = ("linear", "richardson")
BRAKET_MITIGATION = {
    "mitigation": "zne: two-qubit gates' errors, extrapolated to zero noise; debias: IonQ's own mitigation",
    "zne_factors": MITIGATION_OPTIONS["zne_factors"],
    "zne_fit": "zne: linear, the default, or richardson, through all points",
}
OPTIONS = {
    "shots": f"samples per measurement basis; local: exact values without it, AWS: {_SHOTS} by default",
    **PRECISION_OPTION,
    **LOCAL_NOISE_OPTIONS,
    **BRAKET_MITIGATION,
    **AWS_OPTIONS,
    **GRADIENT_OPTIONS,
    **DEDUPE_OPTION,
    **TILE_OPTIONS,
    **DEVICE_OPTIONS,
}
SIMULATORS = {name: f"arn:aws:braket:::device/quantum-simulator/amazon/{name}" for name in ("sv1", "dm1", "tn1")}


class Found(TypedDict):
    """What this package reads of a device in a list."""

    deviceType: str
    deviceStatus: str
    deviceName: str
    deviceArn: str


def braket(spec: BackendSpec) -> Backend:
    """Return a backend of Amazon Braket.

    Raises:
        ConfigError: Without a target, or for an option the target does not take.
        UnknownNameError: For a device no region has, or an unknown noise or gradient.
        BackendError: For an AWS device, without credentials or a region, or where AWS refuses.
    """
    if spec.target is None:
        raise ConfigError(f"Backend 'braket' needs a target, such as braket:local. Targets: {TARGETS}.")
    return _local(spec) if spec.target.startswith("local") else _aws(spec)


def _local(spec: BackendSpec) -> Backend:
    if spec.target not in _LOCAL:
        raise unknown_name("local simulator of Braket", str(spec.target), _LOCAL)
    spec.refuse([*AWS_OPTIONS, *DEVICE_OPTIONS], "is for AWS devices")
    if spec.target != "local_dm":
        spec.refuse(LOCAL_NOISE_OPTIONS, "needs the target local_dm")
    noise, tiles = local_noise(spec), tiles_option(spec)
    mitigation = mitigation_option(spec, ("zne",) if spec.target == "local_dm" else (), fits=_FITS)
    if mitigation is not None and noise is None:
        raise ConfigError(f"{str(spec)!r} has no noise to mitigate: give noise=…, or leave mitigation out.")
    shots, precision = shots_option(spec, most=10**6)
    estimator = BraketLocalEstimator(
        _LOCAL[spec.target],
        default_precision=precision,
        gates=None if noise is None else GATES,
        noise=noise,
        mitigation=mitigation,
    )
    dedupe = dedupe_option(spec, sampled=precision > 0)
    sampler = without_sampler(spec) or BraketLocalSampler(
        estimator, **Sampling(shots, precision, None, dedupe).of_samplers
    )
    return Backend(
        str(spec),
        estimator,
        precision=precision,
        shots=shots,
        dedupe=dedupe,
        gradient=gradient_option(spec),
        mitigation=mitigation,
        sampler=sampler,
        tiling=None if tiles is None else side_by_side(str(spec.target), estimator.num_qubits, tiles),
    )


def _aws(spec: BackendSpec) -> Backend:
    from qiskit_qattn.backends.jobs.estimator import managed_estimator  # it needs the extra `braket`
    from qiskit_qattn.backends.jobs.sampler import ManagedSampler

    spec.refuse(LOCAL_NOISE_OPTIONS, "needs the target local_dm")
    shots, precision = shots_option(spec, _SHOTS, 10**9)
    dedupe, tiles = dedupe_option(spec, sampled=True), tiles_option(spec)
    s3 = _location(spec.options.get("s3"))
    found = aws_device(str(spec.target), spec.options.get("region"))
    spec = replace(spec, target=_target(found))
    if tiles is not None and str(spec.target) in SIMULATORS:
        spec.refuse(["tiles"], "is for devices and for local simulators; one of AWS computes all tiles as one circuit")
    mitigation = mitigation_option(spec, tuple(Capabilities.of(found).mitigation), fits=_FITS)
    reservation, price = spec.options.get("reservation"), braket_price(found)
    device = BraketDevice(found, s3=s3, reservation=reservation, price=price, mitigation=mitigation)
    estimator = managed_estimator(spec, device, precision=precision)
    return Backend(
        str(spec),
        estimator,
        sampler=without_sampler(spec) or ManagedSampler(estimator, shots=shots_of(precision), dedupe=dedupe),
        precision=precision,
        shots=shots,
        dedupe=dedupe,
        gradient=gradient_option(spec),
        mitigation=mitigation,
        price=device.price,
        tiling=None if tiles is None else device.tiling(tiles),
    )


def _location(text: str | None) -> tuple[str, str] | None:
    """Return bucket and prefix of ``bucket/prefix``, with or without ``s3://``."""
    if text is None:
        return None
    bucket, slash, prefix = text.removeprefix("s3://").strip("/").partition("/")
    if not (bucket and slash and prefix):
        raise ConfigError(f"Backend option s3 must be of the form bucket/prefix, got {text!r}.")
    return bucket, prefix


PROVIDER = Provider(
    summary="Amazon Braket: local simulators, AWS simulators and QPUs",
    build=braket,
    options=OPTIONS,
    targets=TARGETS,
    extra="braket",
    modules=("braket", "qiskit_braket_provider", *DEVICE_MODULES),
)


def aws_device(target: str, region: str | None = None) -> Any:
    """Return Braket's ``AwsDevice``.

    Args:
        target: ``sv1``, ``dm1``, ``tn1``, a device's name in any case, or its ARN.
        region: AWS region, or None for the device's; simulators are in the configured region.

    Raises:
        UnknownNameError: For a name no region has.
        ConfigError: For a device in another region than the one given.
        BackendError: Without credentials or a region, or where AWS refuses.
        TransientBackendError: Where AWS cannot be reached.
    """
    from braket.aws import AwsDevice

    arn, home = SIMULATORS.get(target.lower(), target), region
    if not arn.startswith("arn:"):
        arn, home = _search(target, region)
    elif arn.count(":") < 5:
        raise ConfigError(f"{arn!r} is no ARN of a device; expected arn:aws:braket:<region>::device/….")
    else:
        home = arn.split(":")[3] or region
    if region is not None and home != region:
        raise ConfigError(f"{target} is in region {home}, not in {region}: leave the option region out.")
    with aws_errors(f"looking up {target}"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Unable to determine device capabilities")  # its reader raises
        try:
            return AwsDevice(arn, _session(home))
        except ValueError as error:
            # The SDK's way to say that there is none; those of json and pydantic are subclasses.
            if type(error) is not ValueError or "not found" not in str(error):
                raise
            where = f" in {home}" if home else ""
            raise BackendError(
                f"There is no device {arn}{where}. Not all regions have AWS's simulators. {REGION}"
            ) from error


def _session(region: str | None) -> Any:
    """Return a session on AWS's own credentials chain."""
    import boto3
    from braket.aws import AwsSession

    # Without a region the SDK also looks at AWS_REGION.
    return AwsSession(boto3.Session(region_name=region) if region else None, config=one_attempt())


def _search(name: str, region: str | None) -> tuple[str, str]:
    """Return the ARN and the region of a QPU by name, searched in the configured region and then in all.

    Raises:
        UnknownNameError: If all regions were searched, and none has it.
        BackendError: If it was not found, and a region could not be searched.
    """
    import boto3
    from braket.aws import AwsDevice

    with aws_errors(f"looking for device {name!r}"):
        session = boto3.Session()
    regions = [region] if region else []
    regions += [other for other in AwsDevice.REGIONS if other not in regions]
    known, failed = set(SIMULATORS), []
    for place in regions:
        try:
            with aws_errors(f"looking for device {name!r} in {place}"):
                client = session.client("braket", region_name=place, config=one_attempt())
                found = [_qpu(device) for device in pages(client.search_devices, "devices", filters=[])]
        except BackendError as error:
            failed.append(error)
            if session.get_credentials() is None:
                break  # it is the same everywhere
            continue
        for title, arn in filter(None, found):
            known.add(title)
            if _plain(title) == _plain(name):
                return arn, place
    if failed:
        raise next((error for error in failed if isinstance(error, TransientBackendError)), failed[0])
    raise unknown_name("device of Amazon Braket", name, known)


def _target(device: Any) -> str:
    """Return the one target that stands for a device, however it was written: its name, or its ARN if that has none."""
    name = _plain(device.name)
    return name if re.fullmatch(r"[\w.-]+", name) else device.arn


def _qpu(device: dict[str, Any]) -> tuple[str, str] | None:
    """Return the name and ARN of a device in a list, or None for a simulator or a device that is retired."""
    found = as_type(device, Found, "a device")
    if found["deviceType"] != "QPU" or found["deviceStatus"] == "RETIRED":
        return None
    return one_line(found["deviceName"]), found["deviceArn"]


def _plain(name: str) -> str:
    """Return a name in lower case, with hyphens for spaces, which backend strings cannot have."""
    return name.lower().replace(" ", "-")
