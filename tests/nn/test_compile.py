"""Modules under ``torch.compile``: one graph for training and one for inference, and the values of the eager module."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import efficient_su2, zz_feature_map
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning.neural_networks import EstimatorQNN
from torch import nn

import qiskit_qattn as qa
from qiskit_qattn.errors import EncodingError
from qiskit_qattn.library.catalog import CATALOG, Recipe
from qiskit_qattn.library.encodings import amplitude_encoding
from qiskit_qattn.simulation.amplitude import check_finite, unit_vectors
from qiskit_qattn.simulation.derivatives import may_read

NOISE = "density_matrix?noise=depolarizing&p1=0.01&p2=0.02"
RECIPE = Recipe(amplitude_encoding, CATALOG["zz"].ansatz, reps=1, first=lambda n: [], summary="RY and CX")
OWN = qa.HeadKind("own", circuit="own", recipe=RECIPE)
more = pytest.mark.more


@pytest.fixture(autouse=True)
def _compiler():
    """Forget what other tests compiled: of one method only so many graphs are kept."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture
def own_head(own_kinds):
    """Register a head of a user's own."""
    return qa.register_head(OWN)


def gpt(heads, num_qubits=3, **options):
    n_head = sum(int(part.split(":")[1]) for part in heads.split(","))
    config = {"n_layer": 2, "n_head": n_head, "n_embd": 4 * n_head, "heads": heads, "num_qubits": num_qubits}
    return qa.GPT(qa.GPTConfig(vocab_size=11, block_size=16, **(config | options)))


def tokens(batch=3, steps=8):
    return torch.randint(11, (batch, steps))


def connector(circuit, inputs, weights, *, input_gradients=True, backend=None):
    n = circuit.num_qubits
    network = EstimatorQNN(
        circuit=circuit,
        observables=[SparsePauliOp("Z" * n), SparsePauliOp("X" * n)],
        input_params=inputs,
        weight_params=weights,
        estimator=StatevectorEstimator(),
        default_precision=0.0,
        input_gradients=input_gradients,
    )
    return qa.TorchConnector(network, backend=backend)


def feature_map(num_qubits, **options):
    """Return a connector of a ZZ feature map and rotations, whose data enter through one layer of phases."""
    data, ansatz = zz_feature_map(num_qubits, reps=1), efficient_su2(num_qubits, reps=1)
    return connector(data.compose(ansatz), data.parameters, ansatz.parameters, **options)


def mixed(**options):
    """Return a connector of data and weights in all kinds of angles."""
    x, w = ParameterVector("x", 2), ParameterVector("w", 3)
    circuit = QuantumCircuit(2)
    circuit.ry(w[0], 0)
    circuit.rx(x[0] * w[1], 0)
    circuit.ecr(0, 1)
    circuit.crx(x[1] + w[0], 0, 1)
    circuit.rz(x[0].sin() + x[1] * x[0], 0)
    circuit.swap(0, 1)
    circuit.ry(w[2], 0)
    return connector(circuit, x, w, **options)


def loss(found):
    """Return a number that depends on all tensors of what a module returns."""
    found = found if isinstance(found, tuple) else (found,)
    return sum(each.square().sum() for each in found if each is not None)


def check(module, *inputs, training=True, **options):
    """Compare a compiled module with itself in training and inference, twice; the second time nothing is compiled."""
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for stance in ("default", "fail_on_recompile"):
        if training:
            module.train()
            gradients = []
            for call in (module, compiled):
                module.zero_grad()
                with torch.compiler.set_stance(stance):
                    loss(call(*inputs, **options)).backward()
                gradients.append([p.grad for p in module.parameters() if p.requires_grad])
            torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-4)
        module.eval()
        with torch.no_grad(), torch.compiler.set_stance(stance):
            torch.testing.assert_close(compiled(*inputs, **options), module(*inputs, **options), atol=1e-5, rtol=1e-4)


def test_a_gpt_of_mixed_heads():
    idx = tokens()
    check(gpt("qisa:1,zz:1,classical:1", n_layer=1), idx, idx)


@more
@pytest.mark.parametrize("kind", [kind for kind in qa.list_heads() if kind != "classical"])
def test_a_gpt_of_each_kind(kind):
    idx, model = tokens(), gpt(f"{kind}:2", 3)
    check(model, idx, idx)
    check(qa.inference(model), idx, idx, training=False)


@more
@pytest.mark.parametrize("kind", ["overlap", "qmsan", "qcsam"])
def test_scores_of_pairs_on_the_noisy_engine(kind):
    idx, model = tokens(2, 4), gpt(f"{kind}:1", 2, n_layer=1)
    model.to_backend(NOISE)
    check(model, idx, idx)


@more
def test_a_gpt_of_a_users_own_heads(own_head):
    idx, model = tokens(), gpt("own:1,classical:1")
    check(model, idx, idx)
    check(qa.inference(model), idx, idx, training=False)


def test_a_copy_for_inference():
    idx = tokens()
    check(qa.inference(gpt("qisa:1,angle:1", n_layer=1)), idx, idx, training=False)


@more
def test_half_precision_inside_autocast():
    model, idx = gpt("qisa:1,zz:1"), tokens()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        compiled, eager = torch.compile(model, fullgraph=True, backend="aot_eager")(idx, idx), model(idx, idx)
    torch.testing.assert_close(compiled, eager, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("heads", ["qisa:1,zz:1", pytest.param("angle:1,qsann:1,quadratic:1", marks=more)])
def test_lengths_may_vary(heads):
    """Batches and contexts of any size take one graph, and generation goes on to use it."""
    model = gpt(heads, n_layer=1)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=True)
    compiled(tokens())
    with torch.compiler.set_stance("fail_on_recompile"):
        for batch, steps in ((4, 9), (2, 16)):
            idx = tokens(batch, steps)
            torch.testing.assert_close(compiled(idx)[0], model(idx)[0], atol=1e-5, rtol=1e-4)


def test_a_second_model_has_constants_of_its_own_sizes():
    """Dynamo takes sizes that differ from call to call for lengths that vary, unless they are of constants."""
    sizes = []

    def backend(graph, inputs):
        sizes.extend(each for each in inputs if isinstance(each, int | torch.SymInt))
        return graph.forward

    for num_qubits in (2, 3):
        torch.compile(gpt("qisa:1,zz:1", num_qubits), fullgraph=True, backend=backend)(tokens())
    assert not sizes


@more
@pytest.mark.parametrize("heads", ["qisa", "angle", "classical:1,zz:1,classical:1,qsann:1"])
@pytest.mark.parametrize("masks", ["none", "padding", "causal", "both"])
def test_multi_head_attention(heads, masks):
    attention, x = qa.QuantumMultiheadAttention(16, 4, batch_first=True, heads=heads), torch.randn(3, 5, 16)
    padding = torch.zeros(3, 5, dtype=torch.bool)
    padding[:, 3:] = True
    causal = torch.ones(5, 5, dtype=torch.bool).triu(1)
    options = {
        "none": {},
        "padding": {"key_padding_mask": padding, "average_attn_weights": False},
        "causal": {"attn_mask": causal, "is_causal": True, "need_weights": False},
        "both": {"attn_mask": causal, "key_padding_mask": padding},
    }[masks]
    check(attention, x, x, x, **options)
    check(qa.inference(attention), x, x, x, training=False, **options)


def test_a_replaced_encoder():
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True), 1, enable_nested_tensor=False
    )
    qa.replace_attention(encoder, heads="classical:1,qisa:1")
    check(encoder, torch.randn(3, 5, 8), src_key_padding_mask=torch.arange(5).expand(3, 5) > 3)


@pytest.mark.parametrize("backend", [None, *(pytest.param(name, marks=more) for name in ("statevector", NOISE))])
def test_a_connector_of_mixed_angles(backend):
    check(mixed(backend=backend), torch.randn(5, 2))


@more
@pytest.mark.parametrize("input_gradients", [True, False])
@pytest.mark.parametrize(("num_qubits", "rows"), [(3, 5), (3, 700), (6, 5), (9, 5), (11, 3)])
def test_a_connector_by_all_ways_of_simulating(num_qubits, rows, input_gradients):
    layer = feature_map(num_qubits, input_gradients=input_gradients)
    check(layer, torch.randn(rows, num_qubits))
    check(qa.inference(layer), torch.randn(rows, num_qubits), training=False)


@pytest.mark.parametrize("heads", ["qisa:2", pytest.param("zz:1,angle:1", marks=more)])
def test_the_noisy_engine(heads):
    model, idx = gpt(heads, 2, n_layer=1), tokens(2, 4)
    model.to_backend(NOISE)
    check(model, idx, idx)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch reads it after a break
@pytest.mark.parametrize("backends", [f"{NOISE} -> statevector", f"{NOISE} + statevector"])
def test_jobs_are_no_part_of_a_graph(backends):
    head, x = qa.QuantumHead(qa.attention_circuit("qisa", 2)).to_backend(backends), torch.randn(3, 4)
    with pytest.raises(torch._dynamo.exc.Unsupported, match="disable"):
        torch.compile(head, fullgraph=True, backend="aot_eager")(x)
    found = torch.compile(lambda x: head(x.sin()) + 1, backend="aot_eager")(x)
    expected = head(x.sin()) + 1
    torch.testing.assert_close(found, expected)
    found, expected = (torch.autograd.grad(each.square().sum(), head.weight) for each in (found, expected))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("copied", [copy.deepcopy, qa.inference, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_of_a_model_that_was_compiled_in_place_compute_by_themselves(copied):
    model, idx = gpt("classical:1", n_layer=1, dropout=0.5), tokens()
    model.compile(backend="aot_eager")
    model(idx)
    twin = copied(model).eval()
    found = twin(idx)[0]
    torch.testing.assert_close(found, copy.deepcopy(model).eval()(idx)[0])
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
        torch.testing.assert_close(twin(idx)[0], found)


@more
def test_inductor():
    model, idx = gpt("qisa:1,zz:1", 2, n_layer=1), tokens()
    expected = model(idx, idx)[1]
    gradients = torch.autograd.grad(expected, model.parameters())
    value = torch.compile(model, fullgraph=True, mode="reduce-overhead")(idx, idx)[1]
    torch.testing.assert_close(value, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(torch.autograd.grad(value, model.parameters()), gradients, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("strict", [pytest.param(True, marks=more), False])
@pytest.mark.parametrize("copied", [pytest.param(False, marks=more), True])
def test_a_gpt_is_exported_and_read_again(strict, copied):
    model = gpt("qisa:1,zz:1", n_layer=1).eval()
    model = qa.inference(model) if copied else model
    lengths = {0: torch.export.Dim("batch", min=1, max=64), 1: torch.export.Dim("steps", min=2, max=16)}
    with torch.no_grad():
        exported = torch.export.export(model, (tokens(),), dynamic_shapes={"idx": lengths}, strict=strict)
        torch.export.save(exported, file := io.BytesIO())
        file.seek(0)
        program = torch.export.load(file).module()
        for idx in (tokens(), tokens(30, 16)):
            torch.testing.assert_close(program(idx)[0], model(idx)[0], atol=1e-5, rtol=1e-4)


HARD = torch.tensor([[0.0, 0, 0, 0], [1e-30, 0, -1e-30, 0], [3e30, 4e30, 0, 0], [1e-44, 0, 0, 0], [3.0, 0, 0, 4]])


@pytest.mark.parametrize("what", ["vectors", "head"])
def test_where_values_cannot_be_read_extreme_vectors_give_the_same_and_nan_gives_nan(what):
    """As on a GPU; on a CPU NaN is an error."""
    encode = unit_vectors if what == "vectors" else qa.QuantumHead(qa.attention_circuit("qisa", 2))
    x = HARD.clone().requires_grad_()
    compiled = torch.compile(encode, fullgraph=True, backend="aot_eager")
    found, expected = compiled(x), encode(x)
    torch.testing.assert_close(found, expected)
    slopes = [torch.autograd.grad(each.square().sum(), x)[0] for each in (found, expected)]
    torch.testing.assert_close(*(each[[0, 1, 2, 4]] for each in slopes), rtol=1e-4, atol=1e-5)  # that of 1e-44 is 1e44
    for wrong in (torch.nan, torch.inf, -torch.inf):
        x = HARD.clone()
        x[2, 1] = wrong
        found, expected = compiled(x), encode(HARD)
        assert found[2].isnan().all()
        torch.testing.assert_close(found[[0, 1, 3, 4]], expected[[0, 1, 3, 4]])
        with pytest.raises(EncodingError, match="holds NaN or infinity"):
            encode(x)


def test_values_are_read_on_a_cpu_only():
    assert may_read(torch.ones(1)) and not may_read(torch.ones(1, device="meta"))
    check_finite(torch.ones(1, device="meta"), wait=True)
    assert not torch.compile(lambda x: x + may_read(x), fullgraph=True, backend="aot_eager")(torch.zeros(1))


@pytest.mark.parametrize(
    "sampling",
    [
        "stratified?samples=4",
        pytest.param("hybrid?samples=4&top=2", marks=more),
        pytest.param("adaptive?samples=4&gradient=exact", marks=more),
        pytest.param("adaptive?pilot=3&samples=4", marks=more),
        pytest.param("naive?samples=4&control=4", marks=more),
    ],
)
def test_sampled_attention_is_one_graph(sampling: str):
    model, idx = gpt("qisa:1,classical:1", n_layer=1, sampling=sampling), tokens()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    found = []
    for call in (model, compiled):
        model.zero_grad()
        torch.manual_seed(4)  # of the step, whose number a compiled graph draws too
        loss = call(idx, idx)[1]
        loss.backward()
        found.append((loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)))
    torch.testing.assert_close(*found)
