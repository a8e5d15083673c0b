"""Noise models as files."""

import json

import numpy as np
import pytest
import torch
from qiskit.circuit import Instruction
from qiskit.circuit.library import XGate, ZGate
from qiskit.quantum_info import Kraus

from qiskit_qattn import QuantumHead, attention_circuit, get_backend
from qiskit_qattn.backends.aer import AerEstimator
from qiskit_qattn.backends.noise_file import load_noise, save_noise
from qiskit_qattn.errors import ConfigError
from qiskit_qattn.simulation.density_matrix import NoisyEngine
from qiskit_qattn.simulation.estimator import TorchEstimator

noise = pytest.importorskip("qiskit_aer.noise")


def model_of_every_error():
    model = noise.NoiseModel(basis_gates=["rz", "sx", "x", "cx"])
    depolarizing = noise.depolarizing_error(0.02, 1)
    model.add_all_qubit_quantum_error(noise.amplitude_damping_error(0.1), ["sx", "x"])
    model.add_all_qubit_quantum_error(depolarizing.tensor(noise.phase_damping_error(0.1)), "cx")
    model.add_quantum_error(noise.thermal_relaxation_error(50, 30, 1), "x", [1])
    model.add_quantum_error(noise.coherent_unitary_error(np.diag([1, 1j])), "sx", [2])
    model.add_quantum_error(noise.QuantumError([(XGate(), 0.1), (ZGate(), 0.9)]), "rz", [0])
    model.add_quantum_error(noise.pauli_error([("XY", 0.2), ("II", 0.8)]), "cx", [1, 0])
    model.add_quantum_error(noise.reset_error(0.1, 0.2), "x", [2])
    model.add_all_qubit_readout_error([[0.9, 0.1], [0.2, 0.8]])
    model.add_readout_error([[0.97, 0.03], [0.05, 0.95]], [1])
    return model


def test_a_model_comes_back(tmp_path):
    model = model_of_every_error()
    save_noise(model, tmp_path / "noise.json")
    loaded = load_noise(tmp_path / "noise.json")
    assert loaded == model and loaded.basis_gates == model.basis_gates
    bare = load_noise(tmp_path / "noise.json", readout=False)
    assert bare != model and "measure" not in bare.noise_instructions


def test_a_devices_model_comes_back(tmp_path):
    fake = pytest.importorskip("qiskit_ibm_runtime.fake_provider").FakeManilaV2()
    model = noise.NoiseModel.from_backend(fake)
    save_noise(model, tmp_path / "noise.json")
    assert load_noise(tmp_path / "noise.json") == model


def test_what_aers_own_dictionary_holds_can_be_loaded(tmp_path):
    model = noise.NoiseModel()
    model.add_all_qubit_quantum_error(noise.depolarizing_error(0.02, 1), ["sx"])
    (tmp_path / "noise.json").write_text(json.dumps(model.to_dict(serializable=True)))
    assert load_noise(tmp_path / "noise.json") == model


@pytest.mark.parametrize("readout", ["", "&readout=off"])
def test_both_noisy_backends_take_a_file(tmp_path, readout):
    path = tmp_path / "my model.json"
    save_noise(model_of_every_error(), path)
    head = QuantumHead(attention_circuit("qisa", 3)).double()
    x = torch.randn(3, 8, dtype=torch.float64)
    exact = head(x)
    option = f"noise={str(path).replace(' ', '%20')}{readout}"
    noisy = head.to_backend(f"density_matrix?{option}")(x)
    torch.testing.assert_close(head.to_backend(f"aer?{option}")(x), noisy, atol=1e-6, rtol=0)
    assert (noisy - exact).abs().max() > 0.01


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"is not a noise model \(Expecting value"),
        ("[]", "is not a noise model"),
        ("{}", r"\(no 'errors'\); expected a file that save_noise wrote"),
        ('{"errors": 3}', "is not a noise model"),
        ('{"errors": [{"type": "pickle"}]}', "unknown type 'pickle'"),
        (
            '{"errors": [{"type": "qerror", "operations": ["x"], "probabilities": [1.0], '
            '"instructions": [[{"name": "os.system", "qubits": [0]}]]}]}',
            "unknown gate 'os.system'",
        ),
        ('{"errors": [{"type": "roerror", "probabilities": [[0.5, 0.7], [0, 1]]}]}', "is not a noise model"),
        ('{"errors": [{"type": "roerror", "probabilities": []}]}', "is not a noise model"),
    ],
)
def test_what_is_no_model(tmp_path, text, message):
    path = tmp_path / "noise.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        get_backend(f"aer?noise={path}")


def test_files_that_cannot_be_used(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        get_backend("density_matrix?noise=nothing.json")
    with pytest.raises(ConfigError, match=r"saved as <file>.json, got .*noise.pkl"):
        save_noise(noise.NoiseModel(), tmp_path / "noise.pkl")
    with pytest.raises(ConfigError, match=r"cannot be written .*: No such file"):
        save_noise(noise.NoiseModel(), tmp_path / "no folder" / "noise.json")


def entry_of(kind="qerror", **changes):
    """Return a file's content: a good error, then one with changes."""
    good = {
        "type": "qerror",
        "operations": ["cx"],
        "instructions": [[{"name": "id", "qubits": [0]}, {"name": "x", "qubits": [1]}], [PAULI]],
        "probabilities": [0.25, 0.75],
        "gate_qubits": [[0, 1]],
    }
    if kind == "roerror":
        good = {"type": "roerror", "probabilities": [[0.9, 0.1], [0.2, 0.8]], "gate_qubits": [[3]]}
    return {"errors": [good, {**good, **changes}]}


PAULI = {"name": "pauli", "qubits": [0, 1], "params": ["XZ"]}
HALF = [[[0.5, 0], [0, 0]], [[0, 0], [0.5, 0]]]
BIG = 10**30


def one(name, params, qubits=(0,)):
    """Return changes to an error of one instruction."""
    item = {"name": name, "qubits": list(qubits), "params": params}
    return {
        "operations": ["x" if len(qubits) == 1 else "cx"],
        "instructions": [[item]],
        "probabilities": [1.0],
        "gate_qubits": [list(qubits)],
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (one("kraus", [HALF]), r"instructions\[0\]\[0\]: kraus is not trace preserving: .* 0.75"),
        (one("kraus", [HALF] * 5), "kraus has 5 matrices"),
        (one("kraus", []), "kraus has 0 matrices"),
        (one("kraus", [HALF], [0, 1]), r"kraus\[0\] has the shape \(2, 2, 2\); expected 4 rows of 4"),
        (one("kraus", [[[[1, 0]], [[0, 0]]]]), "has the shape"),
        (one("kraus", [[[1, 0], [0, 1]]]), r"kraus\[0\]\[0\]\[0\] is 1, but must be a list"),
        (one("unitary", [HALF]), "unitary is not unitary"),
        (one("unitary", [[[["a", 0]]]]), "is 'a', but must be a number"),
        (one("pauli", ["XQ"], [0, 1]), "pauli is 'XQ' on 2 qubits"),
        (one("pauli", ["X"], [0, 1]), "pauli is 'X' on 2 qubits"),
        (one("x", [], [0, 1]), "x on 2 qubits with parameters"),
        (one("rx", []), "rx on 1 qubit with parameters"),
        (one("rx", ["pi"]), "is 'pi', but must be a number"),
        (one("reset", [1.0]), "reset on 1 qubit with parameters"),
        (one("measure", []), "unknown gate 'measure'"),
        (one("x", [], [-1]), r"qubits is \[-1\]; expected different numbers from 0 to 4"),
        (one("x", [], [BIG]), "expected different numbers from 0 to 4"),
        (one("cx", [], [0, 0]), "expected different numbers"),
        (one("x", []) | {"operations": ["cx"]}, "an error on 1 qubit of the gate 'cx', which has 2"),
        (one("x", []) | {"operations": "x"}, "operations is 'x', but must be a list"),
        (one("x", []) | {"instructions": [[]]}, r"instructions\[0\] is empty"),
        ({"probabilities": [0.5, 0.6]}, r"from 0.5 to 0.6 with sum 1.1; expected 0 to 1 with sum 1"),
        ({"probabilities": [1.5, -0.5]}, r"from -0.5 to 1.5 with sum 1"),
        ({"probabilities": [1.0]}, "1 probabilities of 2 lists of instructions"),
        ({"probabilities": [], "instructions": []}, "0 probabilities of 0 lists"),
        ({"probabilities": ["0.5", 0.5]}, "must be a number"),
        ({"instructions": [[PAULI], [{"name": "x", "qubits": [0]}]]}, "has 1 qubit, and those before have 2"),
        ({"gate_qubits": [[0]]}, "has 1 qubit, but the error is on 2"),
        ({"gate_qubits": [[0, 0]]}, r"gate_qubits\[0\] is \[0, 0\]"),
        ({"gate_qubits": [[0, 1.5]]}, "must be a whole number"),
        ({"gate_qubits": [[0, BIG]]}, "expected different numbers"),
        ({"kind": "roerror", "probabilities": [[0.5, 0.7], [0, 1]]}, r"probabilities\[0\] are from 0.5 to 0.7"),
        ({"kind": "roerror", "probabilities": [[1.1, -0.1], [0, 1]]}, "from -0.1 to 1.1"),
        ({"kind": "roerror", "probabilities": [[1.0], [1.0]]}, r"2 rows of \[1\]; expected 2ⁿ rows of 2ⁿ"),
        ({"kind": "roerror", "probabilities": [[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]}, "3 rows"),
        ({"kind": "roerror", "gate_qubits": [[0, 1]]}, "has 2 qubits, but the error is on 1"),
    ],
)
@pytest.mark.parametrize("backend", ["density_matrix", "aer"])
def test_what_is_no_noise_is_named(tmp_path, changes, message, backend):
    path = tmp_path / "noise.json"
    path.write_text(json.dumps(entry_of()))
    assert load_noise(path).noise_instructions == ["cx"]
    path.write_text(json.dumps(entry_of(**changes)))
    for option in ("", "&readout=off"):  # which leaves nothing unread
        with pytest.raises(ConfigError, match=rf"is not a noise model \(errors\[1\]: .*{message}") as caught:
            get_backend(f"{backend}?noise={path}{option}")
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 700


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_not_finite(tmp_path, number):
    path = tmp_path / "noise.json"
    path.write_text(json.dumps(entry_of()).replace("0.25", number, 1))
    with pytest.raises(ConfigError, match="which is not finite"):
        load_noise(path)


def test_files_of_any_size_or_depth_are_refused(tmp_path):
    path = tmp_path / "noise.json"
    path.write_text('{"errors": ' + "[" * 10**6)
    with pytest.raises(ConfigError, match="nested too deeply"):
        load_noise(path)
    with path.open("wb") as file:
        file.truncate(2**27)
    with pytest.raises(ConfigError, match="it has 134,217,728 bytes, and at most"):
        load_noise(path)
    with pytest.raises(ConfigError, match="cannot be read: it is no regular file"):
        load_noise("/dev/zero")


def test_random_channels_come_back(tmp_path, rng):
    model = noise.NoiseModel(basis_gates=["rz", "sx", "cx"])
    for size, gate in ((1, "sx"), (2, "cx")):
        for qubit in range(3):
            vectors = rng.normal(size=(2, 4**size * 2**size, 2**size))
            isometry = np.linalg.qr(vectors[0] + 1j * vectors[1])[0]
            channel = Kraus(list(isometry.reshape(4**size, 2**size, 2**size)))
            model.add_quantum_error(noise.QuantumError(channel), gate, [(qubit + i) % 3 for i in range(size)])
    save_noise(model, tmp_path / "noise.json")
    assert load_noise(tmp_path / "noise.json") == model


@pytest.mark.parametrize("size", [1, 2])
def test_models_given_as_objects_are_checked_too(size):
    """Aer takes an instruction in an error as it is."""
    circuit = attention_circuit("qisa", 2)
    wrong = Instruction("kraus", size, 0, [np.eye(2**size) * 0.7])
    model = noise.NoiseModel(basis_gates=["ry", "h", "cx"])
    gate = "ry" if size == 1 else "cx"
    model.add_all_qubit_quantum_error(noise.QuantumError([(wrong, 1.0)]), gate)
    pub = (circuit.circuit, circuit.observables[0], np.zeros(circuit.circuit.num_parameters))
    simulator = pytest.importorskip("qiskit_aer").AerSimulator(method="density_matrix")
    for estimator in (TorchEstimator(NoisyEngine(model)), AerEstimator(simulator, model)):
        with pytest.raises(ConfigError, match=f"error of '{gate}' on qubits .* is no channel"):
            estimator.run([pub]).result()
