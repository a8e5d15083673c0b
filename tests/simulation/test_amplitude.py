"""Amplitude encoding prepares x / ‖x‖ and is differentiable everywhere."""

import numpy as np
import pytest
import torch
from qiskit.quantum_info import Statevector

from qiskit_qattn import QuantumHead, attention_circuit
from qiskit_qattn.errors import EncodingError
from qiskit_qattn.library.encodings import amplitude_encoding
from qiskit_qattn.simulation.amplitude import AmplitudeAngles, amplitude_angles, unit_vectors


def prepared(x):
    encoding = amplitude_encoding(x.shape[-1].bit_length() - 1)
    angles = amplitude_angles(x).double().numpy()
    return Statevector(encoding.circuit.assign_parameters(dict(zip(encoding.params, angles, strict=True)))).data


def hard_vectors():
    yield "one-hot", torch.eye(8)[5]
    yield "negative one-hot", -torch.eye(8)[0]
    yield "empty branches", torch.tensor([0.0, 0, 0, -2, 0, 0, 0, 0])
    yield "zeros inside", torch.tensor([1.0, 0, -1, 0, 0, 0, 3, 0])
    yield "tiny", torch.full((8,), 1e-25)
    yield "huge", torch.tensor([1e30, 0, 0, 0, 0, 0, -1e30, 0])


@pytest.mark.parametrize("num_qubits", range(1, 9))
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_random_vectors_are_prepared_with_their_signs(num_qubits, dtype, tolerance):
    x = torch.randn(2**num_qubits, dtype=dtype)
    np.testing.assert_allclose(prepared(x), (x / x.norm()).double(), atol=tolerance)


@pytest.mark.parametrize(("name", "x"), list(hard_vectors()))
def test_hard_vectors_are_prepared_and_have_finite_gradients(name, x):
    scaled = x / x.abs().max()
    np.testing.assert_allclose(prepared(x), (scaled / scaled.norm()).double(), atol=1e-6)
    x = x.clone().requires_grad_()
    (amplitude_angles(x).sin().sum() + unit_vectors(x).sum()).backward()
    assert x.grad.isfinite().all()


def test_the_zero_vector_is_the_ground_state_with_zero_gradient():
    x = torch.zeros(3, 8, requires_grad=True)
    np.testing.assert_allclose(prepared(x[0].detach()), np.eye(8)[0], atol=1e-12)
    torch.testing.assert_close(unit_vectors(x)[1], torch.eye(8)[0])
    (unit_vectors(x).square().sum() + amplitude_angles(x).sum()).backward()
    assert (x.grad == 0).all()


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("rows", [3, 40])
@pytest.mark.parametrize("odd", [0.0, 1e-20, 1e20])
@pytest.mark.parametrize("num_qubits", [3, 9])
def test_a_vector_that_is_zero_or_extreme_changes_no_others_values(num_qubits, odd, rows, gradients):
    """Neither unitaries on few qubits nor gates on many."""
    head = QuantumHead(attention_circuit("qisa", num_qubits, num_observables=4), (2,))
    x = torch.randn(2, rows, head.num_features)
    changed = x.clone()
    changed[:, 1] = odd
    with torch.set_grad_enabled(gradients):
        for function in (head, unit_vectors, amplitude_angles):
            assert torch.equal(function(changed)[:, [0, 2]], function(x)[:, [0, 2]])


def test_gradients_of_zero_and_extreme_vectors_leave_the_others():
    head = QuantumHead(attention_circuit("qisa", 3)).double()
    x = torch.randn(4, 8, dtype=torch.float64)
    x[1], x[2] = 0.0, 1e18 * x[2]
    x.requires_grad_()
    grad = torch.autograd.grad(head(x).square().sum(), x)[0]
    assert grad.isfinite().all() and (grad[1] == 0).all()
    alone = torch.autograd.grad(head(x[[0, 3]]).square().sum(), x)[0]
    torch.testing.assert_close(grad[[0, 3]], alone[[0, 3]])
    assert torch.autograd.gradcheck(lambda rows: head(torch.cat([rows, torch.zeros(1, 8).double()])), x[[0, 3]])


def test_gradcheck():
    x = torch.randn(4, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(amplitude_angles, x)
    assert torch.autograd.gradcheck(unit_vectors, x)


def test_batches_and_empty_batches():
    x = torch.randn(2, 3, 4)
    torch.testing.assert_close(amplitude_angles(x)[1, 2], amplitude_angles(x[1, 2]))
    assert amplitude_angles(torch.zeros(0, 4)).shape == (0, 3)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_nan_and_infinity_are_errors(bad):
    x = torch.randn(5, 4)
    x[3, 1] = bad
    for encode in (unit_vectors, amplitude_angles):
        with pytest.raises(EncodingError, match=r"NaN or infinity \(input of shape \(5, 4\)"):
            encode(x)


@pytest.mark.parametrize("size", [0, 1, 3, 6])
def test_lengths_that_are_no_power_of_two_are_errors(size):
    with pytest.raises(EncodingError, match=f"length {size}"):
        amplitude_angles(torch.ones(2, size))


def test_angles_are_those_of_float32_inside_autocast_and_for_half_precision():
    x, angles = torch.randn(5, 8), AmplitudeAngles(3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = angles(x)
    torch.testing.assert_close(found, amplitude_angles(x))
    torch.testing.assert_close(angles(x.bfloat16()), amplitude_angles(x.bfloat16().float()))
