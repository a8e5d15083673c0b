"""Requests to devices: equal ones have equal keys in every process, others never, and bytes give them back."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from qiskit import QuantumCircuit, transpile
from qiskit.circuit import Parameter, ParameterVector
from qiskit.circuit.library import UnitaryGate
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import random_unitary

from qiskit_qattn import attention_circuit
from qiskit_qattn.backends.jobs.circuit_text import circuit_text, plain_parameters, with_parameters
from qiskit_qattn.backends.jobs.device import Values
from qiskit_qattn.backends.jobs.request import Request, pack_values, unpack_values
from qiskit_qattn.backends.unroll import unroll
from qiskit_qattn.errors import CircuitError, ConfigError

from .disk_client import small_pubs


def request(pubs=None, precision=0.1, device="disk:test", settings="resilience=0"):
    return Request.of(small_pubs() if pubs is None else pubs, precision, device, settings)


def one(change=None, *, observables="ZZ", values=((0.1, 0.2, 0.3),), gate="rz", qubit=1, angle=0.5):
    """Return a request of one PUB, with a circuit that can be changed in many ways."""
    a, b, c = (Parameter(name) for name in "abc")
    circuit = QuantumCircuit(2)
    circuit.ry(a * b + angle, 0)
    circuit.cx(0, 1)
    getattr(circuit, gate)(c, qubit)
    if change is not None:
        change(circuit)
    return request([(circuit, observables, list(values))])


def custom(circuit, angle=0.7):
    inner = QuantumCircuit(1)  # Qiskit numbers its name
    inner.rx(angle, 0)
    circuit.append(inner.to_gate(), [0])


CHANGED = {
    "precision": lambda: request(one().pubs and [(*_parts(one()), 0.2)]),
    "device": lambda: Request(one().pubs, 0.1, "disk:other", "resilience=0"),
    "settings": lambda: Request(one().pubs, 0.1, "disk:test", "resilience=1"),
    "value": lambda: one(values=[(0.1, 0.2, np.nextafter(0.3, 1))]),
    "order of values": lambda: one(values=[(0.2, 0.1, 0.3)]),
    "more values": lambda: one(values=[(0.1, 0.2, 0.3), (0.1, 0.2, 0.3)]),
    "shape of values": lambda: one(values=[[(0.1, 0.2, 0.3)]]),
    "observable": lambda: one(observables="ZX"),
    "coefficient": lambda: one(observables={"ZZ": 1.0000001}),
    "shape of observables": lambda: one(observables=["ZZ"]),
    "more observables": lambda: one(observables=[["ZZ"], ["XX"]]),
    "gate": lambda: one(gate="rx"),
    "qubit": lambda: one(qubit=0),
    "constant": lambda: one(angle=np.nextafter(0.5, 1)),
    "gate more": lambda: one(lambda circuit: circuit.x(0)),
    "barrier": lambda: one(lambda circuit: circuit.barrier()),
    "delay": lambda: one(lambda circuit: circuit.delay(10, 0, unit="ns")),
    "longer delay": lambda: one(lambda circuit: circuit.delay(11, 0, unit="ns")),
    "unit of a delay": lambda: one(lambda circuit: circuit.delay(10, 0, unit="us")),
    "custom gate": lambda: one(custom),
    "other custom gate": lambda: one(lambda circuit: custom(circuit, 0.8)),
    "control": lambda: one(lambda circuit: circuit.cx(0, 1, ctrl_state=0)),
    "other control": lambda: one(lambda circuit: circuit.cx(0, 1)),
    "unitary": lambda: one(lambda circuit: circuit.append(UnitaryGate(random_unitary(2, seed=1)), [0])),
    "other unitary": lambda: one(lambda circuit: circuit.append(UnitaryGate(random_unitary(2, seed=2)), [0])),
    "two PUBs": lambda: request([_parts(one()), _parts(one())]),
}


def _parts(made):
    [pub] = made.pubs
    return pub.circuit, pub.observables, pub.parameter_values


def test_every_change_changes_the_key():
    keys = {"none": one().key} | {name: change().key for name, change in CHANGED.items()}
    assert len(set(keys.values())) == len(keys)


def test_names_phases_and_metadata_do_not_count():
    x = ParameterVector("x", 3)
    circuit = QuantumCircuit(2, name="another", global_phase=1.0, metadata={"by": "me"})
    circuit.ry(0.5 + x[1] * x[0], 0)
    circuit.cx(0, 1)
    circuit.rz(x[2], 1)
    assert request([(circuit, "ZZ", [[0.1, 0.2, 0.3]])]).key == one().key
    assert one(custom).key == one(custom).key


def test_the_key_is_the_same_in_another_process():
    program = "import disk_client as c; from qiskit_qattn.backends.jobs.request import Request as R;"
    program += "print(R.of(c.small_pubs(), 0.1, 'disk:test', 'resilience=0').key)"
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == request().key


@pytest.mark.parametrize("name", ["qisa", "angle"])
def test_a_transpiled_head_survives_its_bytes(name, rng):
    head = attention_circuit(name, num_qubits=3)
    circuit, params, _ = unroll(head.circuit)
    isa = transpile(circuit, basis_gates=["rz", "sx", "x", "cz"], seed_transpiler=1)
    observables = [[observable.apply_layout(isa.layout)] for observable in head.observables]
    values = {tuple(params): rng.normal(size=(4, len(params)))}
    made = request([(isa, observables, values), (isa, observables[0][0], {tuple(params): values[tuple(params)][0]})])
    again = Request.unpack(made.pack())
    assert again.key == made.key
    assert [pub.shape for pub in again.pubs] == [(len(observables), 4), ()]
    ours, theirs = (StatevectorEstimator(default_precision=0).run(list(_exact(r))).result() for r in (made, again))
    for one_pub, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one_pub.data.evs, other.data.evs, atol=1e-12)


@pytest.mark.parametrize("name", ["zz", "qsann"])
def test_a_circuit_that_was_renamed_and_transpiled_has_a_text(name):
    head = attention_circuit(name, num_qubits=3)
    renamed = plain_parameters(head.circuit)
    isa = transpile(renamed, basis_gates=["rz", "sx", "x", "cz"], seed_transpiler=1)
    assert circuit_text(isa) == circuit_text(plain_parameters(isa))
    made = request([(isa, "ZZZ", np.ones((2, isa.num_parameters)))])
    assert Request.unpack(Request.unpack(made.pack()).pack()).key == made.key


@pytest.mark.parametrize("names", [("p0000001", "q"), ("a", "p0000000"), ("p0000000", "p0000001")])
def test_parameters_may_have_the_names_that_are_given(names):
    def build(*names):
        x, y = map(Parameter, names)
        circuit = QuantumCircuit(1)
        circuit.rx(x + 2 * y, 0)
        circuit.rz(y, 0)
        return circuit

    assert circuit_text(build(*names)) == circuit_text(build("a", "b"))
    swapped = with_parameters(build(*names), list(reversed(build(*names).parameters)))
    assert [parameter.name for parameter in swapped.parameters] == sorted(names)
    assert circuit_text(swapped) == circuit_text(build("b", "a"))


def _exact(made):
    return [(pub.circuit, pub.observables, pub.parameter_values, 0.0) for pub in made.pubs]


def test_bytes_hold_no_pickle_and_share_circuits():
    pubs = small_pubs()
    few, many = (len(request(pubs * count).pack()) for count in (1, 8))
    assert many < 8 * few
    content = np.load(__import__("io").BytesIO(request().pack()), allow_pickle=False)
    assert json.loads(content["about"].tobytes())["device"] == "disk:test"


def test_a_circuit_without_parameters():
    circuit = QuantumCircuit(1)
    circuit.h(0)
    made = request([(circuit, ["X", "Z"])])
    again = Request.unpack(made.pack())
    assert again.key == made.key
    assert again.pubs[0].shape == (2,)


def test_results_survive_their_bytes(rng):
    values = [Values(rng.normal(size=shape), rng.normal(size=shape)) for shape in [(2, 3), (), (0,)]]
    for one_value, other in zip(values, unpack_values(pack_values(values)), strict=True):
        np.testing.assert_array_equal(one_value.evs, other.evs)
        np.testing.assert_array_equal(one_value.stds, other.stds)


def test_one_precision_a_job():
    circuit, observables, values = small_pubs()[0]
    with pytest.raises(ConfigError, match=r"one precision, got PUBs of \[0.1, 0.2\]"):
        request([(circuit, observables, values, 0.2), (circuit, observables, values)])
    with pytest.raises(ConfigError, match="must be above 0, got 0"):
        request(precision=0.0)
    assert request([(circuit, observables, values, 0.2)]).precision == 0.2
    assert request(precision=1 / 64).shots == 4096


def test_an_instruction_without_a_stable_text_is_an_error():
    circuit = QuantumCircuit(1, 1)
    with circuit.if_test((circuit.clbits[0], 1)):
        circuit.x(0)
    with pytest.raises(CircuitError, match="'if_else' cannot be sent"):
        _ = request([(circuit, "Z")]).key
