"""Amazon Braket: the SDK's local simulators, AWS's simulators, and QPUs."""

from __future__ import annotations

from qiskit_qattn.backends.braket.device import BraketDevice
from qiskit_qattn.backends.braket.local import BraketLocalEstimator
from qiskit_qattn.backends.braket.noise import GATES, LOCAL_NOISE_OPTIONS, local_noise
from qiskit_qattn.backends.braket.search import aws_device
from qiskit_qattn.backends.gradients import GRADIENT_OPTIONS, gradient_option
from qiskit_qattn.backends.jobs.managed import DEVICE_MODULES, DEVICE_OPTIONS, managed_estimator
from qiskit_qattn.backends.prices import braket_price
from qiskit_qattn.backends.registry import Backend, Provider, precision_of
from qiskit_qattn.backends.sampling import DEDUPE_OPTION, dedupe_option
from qiskit_qattn.backends.spec import BackendSpec
from qiskit_qattn.errors import ConfigError, unknown_name

_LOCAL = {"local": "braket_sv", "local_dm": "braket_dm"}
_SHOTS = 1024
TARGETS = (
    "local (state vectors) or local_dm (density matrices, with noise) in this process; sv1, dm1 or tn1, AWS's "
    "simulators; the name or ARN of an AWS device"
)
AWS_OPTIONS = {
    "region": "AWS region; a device's own by default",
    "s3": "bucket/prefix for results; Braket's default bucket without it",
    "reservation": "ARN of a Braket Direct reservation",
}
OPTIONS = {
    "shots": f"samples a measurement basis; local: exact values without it, AWS: {_SHOTS} by default",
    **LOCAL_NOISE_OPTIONS,
    **AWS_OPTIONS,
    **GRADIENT_OPTIONS,
    **DEDUPE_OPTION,
    **DEVICE_OPTIONS,
}


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
    noise = local_noise(spec)
    shots = spec.integer("shots", minimum=1, maximum=10**6)
    precision = 0.0 if shots is None else precision_of(shots)
    estimator = BraketLocalEstimator(
        _LOCAL[spec.target], default_precision=precision, gates=None if noise is None else GATES, noise=noise
    )
    return Backend(
        str(spec),
        estimator,
        precision=precision,
        shots=shots,
        dedupe=dedupe_option(spec, shots),
        gradient=gradient_option(spec),
    )


def _aws(spec: BackendSpec) -> Backend:
    spec.refuse(LOCAL_NOISE_OPTIONS, "needs the target local_dm")
    shots = spec.integer("shots", minimum=1, maximum=10**9) or _SHOTS
    dedupe = dedupe_option(spec, shots)
    place = _location(spec.options.get("s3"))
    found = aws_device(str(spec.target), spec.options.get("region"))
    device = BraketDevice(found, s3=place, reservation=spec.options.get("reservation"), price=braket_price(found))
    precision = precision_of(shots)
    return Backend(
        str(spec),
        managed_estimator(spec, device, precision=precision),
        precision=precision,
        shots=shots,
        dedupe=dedupe,
        gradient=gradient_option(spec),
        price=device.price,
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
