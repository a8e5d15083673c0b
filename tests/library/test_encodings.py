"""Encodings are hardware-legal and prepare the states they say."""

import numpy as np
import pytest
from qiskit.quantum_info import Statevector

from qiskit_qattn.errors import CircuitError
from qiskit_qattn.library.encodings import (
    amplitude_encoding,
    angle_encoding,
    qsann_encoding,
    walsh_gray_matrix,
    zz_encoding,
)


@pytest.mark.parametrize("num_qubits", range(1, 9))
def test_amplitude_encoding_holds_only_few_ry_and_cx(num_qubits):
    encoding = amplitude_encoding(num_qubits)
    counts = encoding.circuit.count_ops()
    assert set(counts) <= {"ry", "cx"}
    assert counts["ry"] == 2**num_qubits - 1 == len(encoding.params)
    assert counts.get("cx", 0) <= 2**num_qubits - 2
    assert encoding.num_features == 2**num_qubits
    assert encoding.circuit.num_ancillas == 0


@pytest.mark.parametrize("num_controls", range(5))
def test_walsh_gray_matrix_is_orthogonal_up_to_its_norm(num_controls):
    matrix = walsh_gray_matrix(num_controls)
    np.testing.assert_allclose(matrix @ matrix.T * 2**num_controls, np.eye(2**num_controls), atol=1e-12)


def test_angle_encoding_is_a_product_of_rx(rng):
    encoding = angle_encoding(3)
    angles = rng.normal(size=3)
    state = Statevector(encoding.circuit.assign_parameters(dict(zip(encoding.params, angles, strict=True))))
    factors = [np.array([np.cos(a / 2), -1j * np.sin(a / 2)]) for a in angles]
    np.testing.assert_allclose(state.data, np.kron(factors[2], np.kron(factors[1], factors[0])), atol=1e-12)


@pytest.mark.parametrize("num_qubits", [1, 2, 3, 4])
def test_zz_encoding_has_its_published_phases(num_qubits, rng):
    encoding = zz_encoding(num_qubits)
    x = rng.normal(size=num_qubits)
    z = [1 - 2 * ((np.arange(2**num_qubits) >> q) & 1) for q in range(num_qubits)]
    pairs = {frozenset((i, (i + 1) % num_qubits)) for i in range(num_qubits)} if num_qubits > 1 else set()
    phase = sum(x[i] * z[i] for i in range(num_qubits))
    phase = phase + sum((np.pi - x[i]) * (np.pi - x[j]) * z[i] * z[j] for i, j in pairs)
    bound = encoding.circuit.assign_parameters(dict(zip(encoding.params, x, strict=True)))
    assert Statevector(bound).equiv(Statevector(np.exp(-1j * phase) / 2 ** (num_qubits / 2)))


@pytest.mark.parametrize(("num_qubits", "reps", "count"), [(1, 1, 4), (2, 1, 12), (4, 1, 24), (3, 2, 30)])
def test_qsann_encoding_takes_its_published_number_of_angles(num_qubits, reps, count):
    encoding = qsann_encoding(num_qubits, reps)
    assert len(encoding.params) == count == len(encoding.circuit.parameters)
    zero = encoding.circuit.assign_parameters([0.0] * count)
    plus = Statevector.from_label("+" * num_qubits)
    assert Statevector(zero).equiv(plus)  # CX leaves |+…+⟩ alone


@pytest.mark.parametrize("build", [amplitude_encoding, angle_encoding, zz_encoding, qsann_encoding])
@pytest.mark.parametrize("num_qubits", [0, -1, 13])
def test_a_number_of_qubits_outside_the_range_is_an_error(build, num_qubits):
    with pytest.raises(CircuitError, match="between 1 and 12"):
        build(num_qubits)
