"""Circuits by name."""

import dataclasses

import numpy as np
import pytest
from qiskit import qasm3, qpy
from qiskit.quantum_info import Operator

from qiskit_qattn.errors import CircuitError, ConfigError, QattnError, UnknownNameError
from qiskit_qattn.library.ansatzes import qisa_ansatz
from qiskit_qattn.library.attention_circuit import AttentionCircuit
from qiskit_qattn.library.catalog import CATALOG, attention_circuit, list_circuits, register_circuit
from qiskit_qattn.library.encodings import amplitude_encoding


@pytest.mark.parametrize("name", list_circuits())
@pytest.mark.parametrize("num_qubits", [1, 2, 4])
@pytest.mark.parametrize("reps", [0, 1, 3])
def test_any_size_builds_and_its_parameters_are_all_named(name, num_qubits, reps):
    try:
        built = attention_circuit(name, num_qubits, reps=reps)
    except CircuitError as error:
        # angle without layers, for instance, has fewer live strings, and one qubit holds no pair
        assert "not always zero" in str(error) or "at least 2" in str(error)
        return
    assert len(built.observables) == (1 if (name, num_qubits) == ("compound", 2) else num_qubits)
    assert set(built.circuit.parameters) == {*built.input_params, *built.weight_params}
    assert built.circuit.num_qubits == built.num_qubits == num_qubits


@pytest.mark.parametrize("name", list_circuits())
def test_twelve_qubits_build(name):
    assert attention_circuit(name, 12).circuit.num_qubits == 12


def test_qisa_is_an_alias():
    assert attention_circuit("qisa", 2).name == "qisa-v3"


def test_an_unknown_name_lists_the_known_and_the_nearest():
    with pytest.raises(UnknownNameError, match=r"'qsan'. Did you mean 'qsann'\? Known: angle, .*zz"):
        attention_circuit("qsan", 4)


@pytest.mark.parametrize(
    "options",
    [
        {"num_qubits": 0},
        {"num_qubits": 2, "num_observables": 16},
        {"num_qubits": 2, "reps": -1},
        {"num_qubits": 2, "observables": "best"},
        {"num_qubits": 2, "observables": ["ZZZ"]},
        {"num_qubits": 2, "observables": ["ZA"]},
        {"num_qubits": 2, "observables": []},
        {"num_qubits": 2, "observables": ["ZZ"], "num_observables": 2},
    ],
)
def test_bad_options_are_our_errors(options):
    with pytest.raises(QattnError):
        attention_circuit("qisa", **options)


def test_observables_can_be_given_or_drawn_as_published():
    assert attention_circuit("zz", 2, observables=["XX", "IZ"]).labels == ("XX", "IZ")
    drawn = attention_circuit("zz", 3, num_observables=8, observables="random", seed=1).labels
    assert len(drawn) == 8
    assert drawn == attention_circuit("zz", 3, num_observables=8, observables="random", seed=1).labels


def test_a_registered_circuit_is_in_the_catalog(monkeypatch):
    monkeypatch.setitem(CATALOG, "mine", CATALOG["zz"])  # takes the name out again at the end, whatever stands there
    del CATALOG["mine"]
    recipe = dataclasses.replace(CATALOG["zz"], reps=1)
    register_circuit("mine", recipe)
    register_circuit("mine", recipe)
    assert "mine" in list_circuits() and len(attention_circuit("mine", 3).weight_params) == 6
    for name in ("mine", "qisa"):
        with pytest.raises(ConfigError, match="choose another name"):
            register_circuit(name, CATALOG["qsann"])


def test_a_circuit_prints_its_sizes():
    assert repr(attention_circuit("qisa", 2, num_observables=4)) == (
        "<AttentionCircuit qisa-v3: 2 qubits, 3 input parameters, 6 weights, 4 observables in 2 measurement bases>"
    )


def test_parts_must_fit():
    with pytest.raises(CircuitError, match="must match"):
        AttentionCircuit("mine", amplitude_encoding(2), qisa_ansatz(3), ("ZZ",))


@pytest.mark.parametrize("name", list_circuits())
def test_qasm_and_qpy_round_trip(name, rng, tmp_path):
    built = attention_circuit(name, 3)
    values = dict(zip(built.circuit.parameters, rng.normal(size=built.circuit.num_parameters), strict=True))
    with (tmp_path / "circuit.qpy").open("wb") as file:
        qpy.dump(built.circuit, file)
    with (tmp_path / "circuit.qpy").open("rb") as file:
        loaded = qpy.load(file)[0]
    by_name = {p.name: v for p, v in values.items()}
    again = loaded.assign_parameters({p: by_name[p.name] for p in loaded.parameters})
    assert Operator(again) == Operator(built.circuit.assign_parameters(values))
    assert built.qasm3().startswith("OPENQASM 3.0;")
    assert qasm3.dumps(built.circuit) == built.qasm3()


def test_drawing_separates_its_parts():
    text = str(attention_circuit("qisa", 2).draw())
    assert text.index("encoding") < text.index("ansatz") < text.index("measure")
    labels = [i.operation.label for i in attention_circuit("qisa", 2).annotated().data if i.operation.name == "barrier"]
    assert labels == ["encoding", "ansatz", "measure"]


def test_default_observables_are_alive_for_other_weights(rng):
    from qiskit.quantum_info import Statevector

    for name in list_circuits():
        count = 12 if CATALOG[name].readout is None else 3
        built = attention_circuit(name, 3, num_observables=count)
        largest = np.zeros(count)
        for _ in range(4):
            bound = built.circuit.assign_parameters(rng.uniform(-3, 3, built.circuit.num_parameters))
            state = Statevector(bound)
            values = [abs(state.expectation_value(op)) for op in built.observables]
            largest = np.maximum(largest, values)
        assert largest.min() > 1e-6, name


def test_num_observables_must_match_those_given():
    with pytest.raises(ConfigError, match="2 observables were given"):
        attention_circuit("zz", 2, observables=["XX", "IZ"], num_observables=3)


def test_shots_count_bases_not_strings():
    one = attention_circuit("qisa", 4, num_observables=15).shots(0.1)
    assert (one.bases, one.shots, one.total) == (("ZZZZ",), 100, 100)
    two = attention_circuit("qisa", 4, num_observables=16).shots(0.1)
    assert (two.bases, two.shots, two.total) == (("ZZZZ", "ZZZX"), 100, 200)
    assert str(two) == (
        "16 observables in 2 measurement bases, 100 shots each: 200 executions per input for standard errors of at "
        "most 0.1."
    )
    for precision in (0, -1, float("nan"), float("inf"), 1e-200):
        with pytest.raises(CircuitError, match="precision must be at least 1e-9"):
            attention_circuit("qisa", 2).shots(precision)


def test_printing_a_circuit_says_what_it_is_and_draws_it():
    circuit = attention_circuit("qisa", 2)
    assert repr(circuit) in str(circuit) and "IZ, ZI" in str(circuit) and "encoding" in str(circuit)
