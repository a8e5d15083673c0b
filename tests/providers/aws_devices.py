"""Devices of the loopback Braket service."""

SV1 = "arn:aws:braket:::device/quantum-simulator/amazon/sv1"
QPU = "arn:aws:braket:eu-north-1::device/qpu/iqm/Test-Garnet"
IONQ = "arn:aws:braket:us-east-1::device/qpu/ionq/Test-Forte"  # which mitigates errors itself
PLAIN = "arn:aws:braket:us-east-1::device/qpu/maker/Test-Plain"  # without program sets


def capabilities(*, kind, qubits, unit, price, program_sets=None, maker="iqm", graph=None):
    """Return a device's capabilities as the service sends them."""
    gates = ["h", "x", "y", "z", "rx", "ry", "rz", "cnot", "cz", "s", "si", "t", "ti", "phaseshift", "swap", "i"]
    openqasm = {
        "actionType": "braket.ir.openqasm.program",
        "version": ["1"],
        "supportedOperations": gates + (["barrier"] if program_sets else []),
        "supportedResultTypes": [],
        "supportedModifiers": [],
        "supportedPragmas": [],
        "forbiddenPragmas": [],
    }
    action = {"braket.ir.openqasm.program": openqasm}
    if program_sets is not None:
        name = "braket.ir.openqasm.program_set"
        most, shots = program_sets
        action[name] = {
            "actionType": name,
            "version": ["1"],
            "maximumExecutables": most,
            "maximumTotalShots": shots,
        }
    paradigm = {"qubitCount": qubits}
    if kind == "simulator":
        header = "braket.device_schema.simulators.gate_model_simulator"
        names = (f"{header}_device_capabilities", f"{header}_paradigm_properties")
    else:
        names = (
            f"braket.device_schema.{maker}.{maker}_device_capabilities",
            "braket.device_schema.gate_model_qpu_paradigm_properties",
        )
        paradigm |= {
            "nativeGateSet": ["cz", "prx"],
            "connectivity": {"fullyConnected": graph is None, "connectivityGraph": graph or {}},
        }
    header = {"name": f"braket.device_schema.{maker}.{maker}_provider_properties", "version": "1"}
    debias = {"braket.device_schema.error_mitigation.debias.Debias": {"minimumShots": 500}}
    own = {"braketSchemaHeader": header, "fidelity": {}, "timing": {}, "errorMitigation": debias}
    return ({"provider": own} if maker == "ionq" else {}) | {
        "braketSchemaHeader": {"name": names[0], "version": "1"},
        "action": action,
        "paradigm": {"braketSchemaHeader": {"name": names[1], "version": "1"}, **paradigm},
        "deviceParameters": {},
        "service": {
            "braketSchemaHeader": {"name": "braket.device_schema.device_service_properties", "version": "1"},
            "executionWindows": [
                {"executionDay": "Weekdays", "windowStartHour": "09:00:00", "windowEndHour": "17:30:00"}
            ],
            "shotsRange": [1, 20000],
            "deviceCost": {"price": price, "unit": unit},
        },
    }


def devices():
    """Return the devices of the service by ARN."""
    simulator = capabilities(kind="simulator", qubits=34, unit="minute", price=0.075)
    sets = capabilities(kind="qpu", qubits=4, unit="shot", price=0.001, program_sets=(6, 30000))
    plain = capabilities(kind="qpu", qubits=4, unit="shot", price=0.002)
    ionq = capabilities(kind="qpu", qubits=4, unit="shot", price=0.03, program_sets=(6, 30000), maker="ionq")
    rows = [
        (SV1, "SV1", "Amazon Braket", "SIMULATOR", simulator),
        (QPU, "Test Garnet", "IQM", "QPU", sets),
        (IONQ, "Test-Forte", "IonQ", "QPU", ionq),
        (PLAIN, "Test-Plain", "Maker", "QPU", plain),
    ]
    keys = ("deviceArn", "deviceName", "providerName", "deviceType", "deviceCapabilities")
    return {row[0]: dict(zip(keys, row, strict=True)) | {"deviceStatus": "ONLINE"} for row in rows}
