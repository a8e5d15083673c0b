"""Noise models as files."""

import json

import numpy as np
import pytest
import torch
from qiskit.circuit.library import XGate, ZGate

from qiskit_qattn import QuantumHead, attention_circuit, get_backend
from qiskit_qattn.backends.noise import load_noise, save_noise
from qiskit_qattn.errors import ConfigError

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
