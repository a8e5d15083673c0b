"""Layers on every engine: torch.func, compiled graphs, in-place operations, and data of other dtypes."""

from __future__ import annotations

import copy
import warnings
from functools import partial

import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning.gradients import LinCombEstimatorGradient
from qiskit_machine_learning.neural_networks import EstimatorQNN
from torch import nn
from torch.autograd.functional import jacobian
from torch.nn.attention import SDPBackend, sdpa_kernel

from qiskit_qattn import GPT, GPTConfig, QuantumHead, TorchConnector, attention_circuit, compile_qnn, get_backend
from qiskit_qattn.errors import BackendError, ConfigError

# what torch itself warns of where forward mode is used first
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
EXACT = ["statevector", "density_matrix"]
ENGINES = [*EXACT, "pub", "mps", "network"]
BACKENDS = [
    *EXACT,
    "density_matrix?noise=depolarizing&p1=0.01&p2=0.02",
    "statevector?method=mps",
    "statevector?shots=50&seed=1&gradient=simulated",
    "statevector -> classical",
    "statevector?method=mps -> statevector",
]


class Unknown(StatevectorEstimator):
    """An estimator whose values nothing is known of."""


def connector(engine, num_qubits=2):
    """Return a connector of data and weights in all kinds of angles, on an engine."""
    if engine == "mps":
        pytest.importorskip("qiskit_aer")
        num_qubits = 21
    x, w = ParameterVector("x", 2), ParameterVector("w", 3)
    circuit = QuantumCircuit(num_qubits)
    for q in range(2, num_qubits):
        circuit.x(q)  # qubits that nothing acts on are left out
    circuit.ry(w[0], 0)
    circuit.rx(x[0] * w[1], 0)
    circuit.cx(0, 1)
    circuit.ry(x[1] + w[0], 1)
    circuit.ry(w[2], 0)
    pair = SparsePauliOp("I" * (num_qubits - 2) + "ZZ"), SparsePauliOp("I" * (num_qubits - 2) + "IX")
    options = {"estimator": StatevectorEstimator(), "default_precision": 0.0}
    if engine == "density_matrix":
        options["estimator"] = get_backend("density_matrix").estimator
    elif engine == "pub":
        options["estimator"] = get_backend("statevector?method=mps").estimator
    elif engine == "network":
        options["estimator"] = Unknown()
        options["gradient"] = LinCombEstimatorGradient(options["estimator"])
    network = EstimatorQNN(
        circuit=circuit, observables=pair, input_params=[*x], weight_params=[*w], input_gradients=True, **options
    )
    assert compile_qnn(network).engine == engine
    return TorchConnector(network, initial_weights=[0.4, 0.9, -0.6])


def head_on(backend, name="qisa", num_qubits=3, **options):
    """Return a head and its input."""
    head = QuantumHead(attention_circuit(name, num_qubits, num_observables=4), (2,), **options)
    with warnings.catch_warnings():
        return head.to_backend(backend), torch.randn(2, 5, head.num_features)


SHAPES = [(2,), (1, 2), (5, 2), (2, 3, 2)]


@pytest.mark.parametrize(
    "engine, shape",
    # the parent's backward pass, which "network" runs, takes at most two axes
    [(engine, shape) for engine in ENGINES for shape in SHAPES if engine != "network" or len(shape) < 3],
    ids=str,
)
def test_a_connectors_output_can_be_changed_in_place(engine, shape):
    model = connector(engine)
    x = torch.randn(shape, requires_grad=engine != "network")
    inputs = [x, model.weight] if engine != "network" else [model.weight]
    wanted = torch.autograd.grad((2 * model(x) + 1).relu().sum(), inputs)
    y = model(x)
    y *= 2
    y.add_(1)
    found = torch.autograd.grad(nn.ReLU(inplace=True)(y).sum(), inputs)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "backend, name",
    # only amplitude-encoded circuits have a classical twin
    [(b, name) for b in BACKENDS for name in ("qisa", "zz") if "classical" not in b or name == "qisa"],
)
def test_a_heads_output_can_be_changed_in_place(backend, name):
    if "mps" in backend:
        pytest.importorskip("qiskit_aer")
    head, x = head_on(backend, name, 2)
    program, *arguments = head.call(x.requires_grad_())
    arguments = [tensor.detach().requires_grad_() for tensor in arguments]
    for call, inputs in ((head, [x]), (program, arguments)):
        y = call(*inputs)
        wanted = torch.autograd.grad((2 * y).sin().sum(), inputs, retain_graph=True)
        y *= 2
        torch.testing.assert_close(torch.autograd.grad(y.sin_().sum(), inputs), wanted)


def test_an_attentions_output_can_be_changed_in_place():
    model = GPT(GPTConfig(vocab_size=9, block_size=4, n_layer=1, n_head=2, n_embd=8, heads="qisa:1,zz:1"))
    attention, x = model.blocks[0].attn, torch.randn(2, 4, 8, requires_grad=True)
    wanted = torch.autograd.grad((2 * attention(x)).relu().sum(), x)
    y = attention(x)
    y *= 2
    torch.testing.assert_close(torch.autograd.grad(y.relu_().sum(), x), wanted)


@pytest.mark.parametrize("engine", EXACT)
def test_connectors_in_torch_func(engine):
    model, x = connector(engine).double(), torch.randn(4, 2, dtype=torch.float64)
    parameters = dict(model.named_parameters())
    weight = model.weight.detach().clone()

    def call(weight, x):
        return torch.func.functional_call(model, dict.fromkeys(parameters, weight), (x,))

    of_weight, of_data = jacobian(call, (weight, x))
    own = torch.stack([of_data[b, :, b] for b in range(len(x))])
    close = partial(torch.testing.assert_close, rtol=0, atol=1e-10)
    close(torch.func.vmap(model)(x), model(x))
    close(torch.func.vmap(torch.func.jacrev(model))(x), own)
    close(torch.func.vmap(torch.func.jacfwd(model))(x), own)
    close(torch.func.jacrev(call)(weight, x), of_weight)
    close(torch.func.jacfwd(call)(weight, x), of_weight)
    close(torch.func.grad(lambda w: call(w, x).sum())(weight), of_weight.sum((0, 1)))
    per_row = torch.func.vmap(torch.func.grad(lambda w, row: call(w, row).sum()), (None, 0))(weight, x)
    close(per_row, of_weight.sum(1))
    close(jacobian(call, (weight, x), vectorize=True), (of_weight, of_data))
    second = jacobian(torch.func.grad(lambda w: call(w, x).sum()), weight)
    close(torch.func.hessian(lambda w: call(w, x).sum())(weight), second)
    close(torch.func.jvp(model, (x,), (torch.ones_like(x),)), (model(x), own.sum(-1)))


@pytest.mark.parametrize("engine", ["pub", "mps"])
def test_estimators_in_torch_func(engine):
    model, x = connector(engine).double(), torch.randn(3, 2, dtype=torch.float64)
    of_data = jacobian(model, x)
    own = torch.stack([of_data[b, :, b] for b in range(len(x))])
    close = partial(torch.testing.assert_close, rtol=0, atol=1e-8)
    close(torch.func.vmap(model)(x), model(x))
    close(torch.func.jacrev(model)(x), of_data)
    close(torch.func.vmap(torch.func.jacrev(model))(x), own)
    close(torch.func.grad(lambda x: model(x).sum())(x), own.sum(1))
    close(torch.func.grad(lambda x: torch.func.vmap(model)(x).sum())(x), own.sum(1))
    with pytest.raises(BackendError, match="Forward-mode derivatives"):
        torch.func.jacfwd(model)(x)
    with pytest.raises(BackendError, match="differentiated twice"):
        torch.func.jacrev(torch.func.jacrev(model))(x)
    with pytest.raises(BackendError, match="vectorize=False"):
        jacobian(model, x, vectorize=True)


@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of its own insides
@pytest.mark.parametrize("engine", [*EXACT, "pub"])
def test_connectors_in_compiled_graphs(engine):
    model, x = connector(engine), torch.randn(3, 2)
    inputs = [x.requires_grad_(), model.weight]
    wanted = torch.autograd.grad(model(x).square().sum(), inputs)
    values = torch.compile(model, backend="aot_eager", fullgraph=engine != "pub")(x)
    torch.testing.assert_close(torch.autograd.grad(values.square().sum(), inputs), wanted)


@pytest.mark.parametrize("name", ["qisa", "zz"])
@pytest.mark.parametrize("backend", EXACT)
def test_heads_in_torch_func(name, backend):
    head, x = head_on(backend, name)
    head, x = head.double(), x.double()
    expected = jacobian(head, x)
    close = partial(torch.testing.assert_close, rtol=0, atol=1e-9)
    close(torch.func.jacrev(head)(x), expected)
    close(torch.func.jacfwd(head)(x), expected)
    close(jacobian(head, x, vectorize=True), expected)
    close(torch.func.vmap(head, 1, 1)(x[:, :, None])[:, :, 0], head(x))


def test_a_gradient_of_another_program_in_torch_func():
    head, x = head_on("statevector?shots=1000000&seed=1&gradient=simulated", "zz")
    exact, _ = head_on("statevector", "zz")
    exact.load_state_dict(head.state_dict())
    expected = jacobian(exact, x)
    for way in (torch.func.jacrev, torch.func.jacfwd, lambda call: partial(jacobian, call, vectorize=True)):
        torch.testing.assert_close(way(head)(x), expected)
    torch.testing.assert_close(torch.func.vmap(head, 1, 1)(x[:, :, None])[:, :, 0], exact(x), rtol=0, atol=0.05)


def test_chains_say_that_torch_func_is_not_for_them():
    head, x = head_on("statevector -> classical")
    with pytest.raises(ConfigError, match=r"inside torch\.func"):
        torch.func.jacrev(head)(x)
    torch.testing.assert_close(jacobian(head, x, vectorize=True), jacobian(head, x))


def test_per_sample_gradients_of_a_model():
    model = GPT(GPTConfig(vocab_size=9, block_size=4, n_layer=1, n_head=2, n_embd=8, heads="qisa:1,zz:1", num_qubits=2))
    tokens = torch.randint(9, (3, 4))
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(parameters, row):
        return torch.func.functional_call(model, parameters, (row[None], row[None]))[1]

    with sdpa_kernel(SDPBackend.MATH):  # torch has no rule for the other
        found = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, tokens)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        logits = torch.func.vmap(lambda row: model(row[None])[0][0])(tokens)
    torch.testing.assert_close(logits, model(tokens)[0])
    for i, row in enumerate(tokens):
        model.zero_grad()
        model(row[None], row[None])[1].backward()
        for name, p in model.named_parameters():
            torch.testing.assert_close(found[name][i], p.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("engine", ["statevector", "density_matrix", "pub", "mps"])
def test_large_angles_in_float64_into_a_float32_connector(engine):
    model = connector(engine)
    x = (1e6 + torch.rand(4, 2, dtype=torch.float64)).requires_grad_()
    wide = copy.deepcopy(model).double()
    expected = torch.autograd.grad(wide(x).sum(), x)[0]
    y = model(x)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, wide(x).float(), rtol=0, atol=2e-6)
    (found,) = torch.autograd.grad(y.sum(), x)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("backend", EXACT)
@pytest.mark.parametrize("name", ["angle", "zz"])
def test_large_angles_in_float64_into_a_float32_head(backend, name):
    head, x = head_on(backend, name)
    x = 1e5 + x.double()
    expected = copy.deepcopy(head).double()(x)
    assert head(x).dtype == torch.float32
    torch.testing.assert_close(head(x), expected.float(), rtol=0, atol=1e-5)


def test_data_of_other_dtypes_into_a_connector():
    model = connector("statevector")
    x = torch.tensor([[1, 2], [0, 3]])
    for dtype in (torch.int64, torch.float16, torch.bfloat16, torch.bool):
        given = x.to(dtype)
        torch.testing.assert_close(model(given), model(given.float()))
