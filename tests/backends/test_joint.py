"""Programs that share jobs: the values, gradients and number of jobs of several evaluated at once."""

import pytest
import torch

from qiskit_qattn import attention_circuit, get_backend
from qiskit_qattn.backends.counting import CountingEstimator
from qiskit_qattn.backends.gradients import SPSA, ParameterShift, Simulated
from qiskit_qattn.backends.joint import evaluate
from qiskit_qattn.backends.pub import attention_program
from qiskit_qattn.backends.registry import Backend
from qiskit_qattn.errors import BackendError
from qiskit_qattn.simulation.estimator import TorchEstimator


def calls(backend, names=("zz", "qsann", "angle"), rows=3):
    """Return a call of each circuit on a backend, with two heads each."""
    generator = torch.Generator().manual_seed(7)
    found = []
    for name in names:
        circuit = attention_circuit(name, 2)
        x = torch.randn(2, rows, len(circuit.input_params), dtype=torch.float64, generator=generator)
        w = torch.randn(2, len(circuit.weight_params), dtype=torch.float64, generator=generator)
        program = backend.program(circuit) if backend.program else attention_program(circuit, backend)
        found.append((program.double(), x.requires_grad_(), w.requires_grad_()))
    return found


def leaves(some):
    return [tensor for _, *pair in some for tensor in pair]


def counted(**options):
    return Backend("counted", CountingEstimator(estimator=TorchEstimator()), **options)


def assert_like_the_engine(values, some):
    exact = calls(get_backend("statevector?method=dense"))
    expected = [program(x, w) for program, x, w in exact]
    torch.testing.assert_close(values, expected, atol=1e-12, rtol=0)
    slopes = [torch.randn(v.shape, dtype=v.dtype, generator=torch.Generator().manual_seed(1)) for v in expected]
    ours = torch.autograd.grad(values, leaves(some), slopes)
    torch.testing.assert_close(ours, torch.autograd.grad(expected, leaves(exact), slopes), atol=1e-10, rtol=0)


@pytest.mark.parametrize(("gradient", "jobs"), [(ParameterShift(), 2), (Simulated(), 1)])
def test_one_job_forward_and_one_backward(gradient, jobs):
    backend = counted(gradient=gradient)
    some = calls(backend)
    assert_like_the_engine(evaluate(some), some)
    assert backend.estimator.pubs[0] == [6, 6, 6] and backend.estimator.total.jobs == jobs


def test_spsa_shares_jobs():
    backend = counted(gradient=SPSA(samples=2))
    some = calls(backend)
    torch.autograd.grad([value.sum() for value in evaluate(some)], leaves(some))
    assert backend.estimator.pubs == [[6] * 3, [6 * 2 * 2] * 3]


def test_programs_of_other_estimators_and_engines_keep_to_themselves():
    first, second, third = counted(), counted(), get_backend("statevector")
    groups = zip(*(calls(backend) for backend in (first, third, second)), strict=True)
    some = [call for group in groups for call in group]
    values = evaluate(some)
    assert_like_the_engine(values[::3], some[::3])
    assert_like_the_engine(values[1::3], some[1::3])
    assert_like_the_engine(values[2::3], some[2::3])
    assert [backend.estimator.total.jobs for backend in (first, second)] == [2, 2]


def test_precisions_are_not_mixed():
    estimator = CountingEstimator(estimator=TorchEstimator(seed=1))
    some = [calls(Backend("a", estimator, precision=p), ["zz"])[0] for p in (0.0, 0.1, 0.1)]
    evaluate(some)
    assert estimator.pubs == [[6], [6, 6]]


def test_only_what_needs_a_gradient_is_shifted():
    backend = counted()
    zz, qsann, angle = calls(backend)
    zz = (zz[0], zz[1].detach(), zz[2].detach())
    values = evaluate([zz, qsann, angle])
    (values[0].sum() + values[1].sum()).backward()
    assert backend.estimator.pubs[1] == [6 * 2 * len(qsann[0].params)]
    assert angle[1].grad.eq(0).all() and qsann[1].grad.ne(0).any()


def test_a_large_batch_keeps_each_programs_rows_apart():
    backend = counted(max_pub_size=4)
    some = calls(backend)
    assert_like_the_engine(evaluate(some), some)
    assert backend.estimator.pubs[0] == [4, 2, 4, 2, 4, 2]


def test_second_derivatives_are_an_error():
    some = calls(counted())
    first = torch.autograd.grad([value.sum() for value in evaluate(some)], leaves(some), create_graph=True)
    with pytest.raises(BackendError, match="first derivatives only"):
        first[0].sum().backward()


def test_an_empty_batch_takes_part():
    backend = counted()
    zz, qsann = calls(backend, ["zz", "qsann"])
    values = evaluate([(zz[0], zz[1][:, :0], zz[2]), qsann])
    assert values[0].shape == (2, 0, 2) and values[1].shape == (2, 3, 2)
    assert evaluate([]) == []


@pytest.mark.parametrize("options", ["", "&dedupe=off"])
def test_a_program_may_be_in_a_job_twice(options):
    """As a head is that two places of a model share; what is said of a call stays said of it after the backward."""
    [(program, x, w)] = calls(get_backend(f"statevector?shots=10000&seed=1{options}"), ["zz"], rows=5)
    some = [(program, x, w), (program, x[:, :1].detach(), w)]
    values = evaluate(some)
    exact = calls(get_backend("statevector?method=dense"), ["zz"], rows=5)[0][0]
    for found, (_, inputs, weights) in zip(values, some, strict=True):
        assert (found - exact(inputs, weights)).abs().max() < 0.05
    errors = program.answer.errors
    assert errors.shape == (2, values[1].shape[-1])
    sum(each.sum() for each in values).backward()
    assert program.answer.errors is errors
