"""Which AWS device a name or an ARN means, and in which region it is."""

from __future__ import annotations

from typing import Any

from qiskit_qattn.backends.braket.errors import REGION, aws_errors, one_attempt
from qiskit_qattn.errors import BackendError, ConfigError, unknown_name

SIMULATORS = {name: f"arn:aws:braket:::device/quantum-simulator/amazon/{name}" for name in ("sv1", "dm1", "tn1")}


def aws_device(target: str, region: str | None = None) -> Any:
    """Return Braket's ``AwsDevice``.

    Args:
        target: ``sv1``, ``dm1``, ``tn1``, a device's name in any case, or its ARN.
        region: AWS region, or None for the device's own; simulators are in the region AWS is set up for.

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
    with aws_errors(f"looking up {target}"):
        try:
            return AwsDevice(arn, _session(home))
        except ValueError as error:  # the SDK's way to say that there is none
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
    """Return the ARN and the region of the QPU of a name, looked for in one region and then in all."""
    import boto3
    from braket.aws import AwsDevice

    session, known = boto3.Session(), set(SIMULATORS)
    regions = [region] if region else []
    regions += [other for other in AwsDevice.REGIONS if other not in regions]
    for place in regions:
        with aws_errors(f"looking for device {name!r} in {place}"):
            client = session.client("braket", region_name=place, config=one_attempt())
            pages = client.get_paginator("search_devices").paginate(filters=[])
            devices = [device for page in pages for device in page["devices"]]
        for device in devices:
            if device["deviceType"] != "QPU" or device["deviceStatus"] == "RETIRED":
                continue
            known.add(device["deviceName"])
            if _plain(device["deviceName"]) == _plain(name):
                return device["deviceArn"], place
    raise unknown_name("device of Amazon Braket", name, known)


def _plain(name: str) -> str:
    """Return a name in lower case, with hyphens for spaces: backend strings hold none."""
    return name.lower().replace(" ", "-")
