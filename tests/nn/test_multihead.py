"""QuantumMultiheadAttention beside torch's: the cases of PyTorch's own tests of MultiheadAttention, and its own."""

import copy
import inspect
import itertools
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import multi_head_attention_forward

import qiskit_qattn as qa
from qiskit_qattn.errors import CheckpointError, CircuitError, ConfigError, EncodingError, UnknownNameError

N, L, S, E, H = 3, 4, 5, 8, 4
ANY_HEADS = ["classical", "qisa", "angle:2,classical:2"]


def pair_of(**options):
    """Return torch's attention and ours of classical heads, from the same seed."""
    torch.manual_seed(1)
    theirs = nn.MultiheadAttention(E, H, **options)
    torch.manual_seed(1)
    return theirs, qa.QuantumMultiheadAttention(E, H, **options, heads="classical")


def same(theirs, ours, *inputs, **options):
    """Compare a call, from the same seed, where there may be no weights and NaN."""
    found = []
    for attention in (theirs, ours):
        torch.manual_seed(2)
        found.append(attention(*inputs, **options))
    (expected, expected_weights), (y, weights) = found
    torch.testing.assert_close(y, expected, equal_nan=True)
    if expected_weights is None:
        assert weights is None
    else:
        torch.testing.assert_close(weights, expected_weights, equal_nan=True)


def masks(steps, total):
    for shape in ((steps, total), (N * H, steps, total)):
        yield torch.rand(shape) < 0.3
        yield torch.randn(shape)
    yield None


def paddings(total):
    return None, torch.rand(N, total) < 0.3, torch.randn(N, total)


def test_the_signature_is_torchs_with_more_keywords():
    for method in ("__init__", "forward"):
        theirs, ours = (
            inspect.signature(getattr(cls, method)).parameters
            for cls in (nn.MultiheadAttention, qa.QuantumMultiheadAttention)
        )
        assert list(ours)[: len(theirs)] == list(theirs)
        for name, parameter in theirs.items():
            assert (ours[name].default, ours[name].kind) == (parameter.default, parameter.kind)
        more = list(ours.values())[len(theirs) :]
        assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in more)
        ours_only = ["heads", "num_qubits", "reps", "sampling", "backend"]
        assert [p.name for p in more] == (ours_only if method == "__init__" else [])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize(
    "added", [{}, {"add_bias_kv": True}, {"add_zero_attn": True}, {"add_bias_kv": True, "add_zero_attn": True}], ids=str
)
@pytest.mark.parametrize("widths", [{}, {"kdim": 5, "vdim": 6}, {"kdim": 5, "vdim": 5, "bias": False}], ids=str)
@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask:UserWarning")
def test_classical_heads_are_torchs_under_all_masks(training, batch_first, added, widths):
    theirs, ours = pair_of(dropout=0.3, batch_first=batch_first, **added, **widths)
    assert list(theirs.state_dict()) == list(ours.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(theirs.parameters(), ours.parameters(), strict=True)), "from one seed"
    theirs.train(training), ours.train(training)
    query, key, value = (torch.randn(N, n, w) for n, w in ((L, E), (S, ours.kdim), (S, ours.vdim)))
    if not batch_first:
        query, key, value = (x.transpose(0, 1).contiguous() for x in (query, key, value))
    cases = [(query, key, value), (query, key, key), (query, query, query)]
    for inputs in cases[:1] if ours.vdim == 6 else cases[:2] if widths else cases:
        steps, total = (x.shape[1 if batch_first else 0] for x in inputs[:2])
        for mask, padding in itertools.product(masks(steps, total), paddings(total)):
            for needed, average in ((True, True), (True, False), (False, True)):
                options = {"key_padding_mask": padding, "attn_mask": mask, "need_weights": needed}
                same(theirs, ours, *inputs, **options, average_attn_weights=average)
                if mask is not None:
                    same(theirs, ours, *inputs, **options, average_attn_weights=average, is_causal=True)


def test_gradients_are_torchs():
    theirs, ours = pair_of(add_bias_kv=True)
    x, mask = torch.randn(S, N, E), torch.rand(S, S) < 0.3
    grads = []
    for attention in (theirs, ours):
        attention(x, x, x, attn_mask=mask, need_weights=False)[0].square().sum().backward()
        grads.append({name: parameter.grad for name, parameter in attention.named_parameters()})
    torch.testing.assert_close(grads[1], grads[0])


@pytest.mark.parametrize("heads", ANY_HEADS)
@pytest.mark.parametrize("average", [True, False])
def test_inputs_without_a_batch(heads, average):
    mha = qa.QuantumMultiheadAttention(E, H, heads=heads)
    query, key = torch.randn(L, E), torch.randn(S, E)
    options = {"average_attn_weights": average, "attn_mask": torch.randn(H, L, S), "key_padding_mask": torch.randn(S)}
    y, weights = mha(query, key, key, **options)
    assert y.shape == (L, E) and weights.shape == ((L, S) if average else (H, L, S))
    options["key_padding_mask"] = options["key_padding_mask"][None]
    batched = mha(query[:, None], key[:, None], key[:, None], **options)
    torch.testing.assert_close((y, weights), (batched[0][:, 0], batched[1][0]))
    theirs, ours = pair_of()
    same(theirs, ours, query, key, key, attn_mask=torch.rand(L, S) < 0.3, average_attn_weights=average)


@pytest.mark.parametrize("heads", ANY_HEADS)
def test_a_mask_for_each_sequence_is_the_mask_of_each_sequence_alone(heads):
    mha = qa.QuantumMultiheadAttention(E, H, heads=heads)
    query, key = torch.randn(L, N, E), torch.randn(S, N, E)
    mask = torch.where(torch.rand(N, L, S) < 0.3, -torch.inf, 0.0)
    together = mha(query, key, key, attn_mask=mask.repeat_interleave(H, 0))[0]
    for n in range(N):
        alone = mha(query[:, n : n + 1], key[:, n : n + 1], key[:, n : n + 1], attn_mask=mask[n])[0]
        torch.testing.assert_close(together[:, n : n + 1], alone, equal_nan=True)


@pytest.mark.parametrize("heads", ANY_HEADS)
def test_both_layouts_and_a_key_that_is_the_value(heads):
    first = qa.QuantumMultiheadAttention(E, H, heads=heads, batch_first=True)
    second = copy.deepcopy(first)
    second.batch_first = False
    x, y = torch.randn(N, S, E), torch.randn(N, L, E)
    for inputs in ((x, x, x), (y, x, x), (y, x, x.clone()), (x, x, x.clone())):
        found, weights = first(*inputs)
        other, other_weights = second(*(each.transpose(0, 1) for each in inputs))
        torch.testing.assert_close((found, weights), (other.transpose(0, 1), other_weights))
        assert other.is_contiguous()
    torch.testing.assert_close(first(x, x, x), first(x, x.clone(), x.clone()))


@pytest.mark.parametrize("heads", ANY_HEADS)
def test_no_bias_means_neither_projection_has_one(heads):
    mha = qa.QuantumMultiheadAttention(E, H, bias=False, heads=heads)
    assert mha.in_proj_bias is None and mha.out_proj.bias is None
    x = torch.randn(2, 2, E)
    assert mha(x, x, x)[0].shape == x.shape


@pytest.mark.parametrize("evaluation", [False, True])
@pytest.mark.parametrize("heads", ANY_HEADS)
@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (((4, 4, 4), (4, 4), (4, 4, 4)), {}, "expected `key` and `value` to be 3-D but found 2-D and 3-D tensors"),
        (((4, 4, 4), (4, 4, 4), (4, 4)), {}, "expected `key` and `value` to be 3-D but found 3-D and 2-D tensors"),
        (((4, 4),) + ((4, 4, 4),) * 2, {}, "expected `key` and `value` to be 2-D but found 3-D and 3-D tensors"),
        (((4,),) * 3, {}, "query should be unbatched 2D or batched 3D tensor but received 1-D"),
        (((4, 4, 4),) * 3, {"key_padding_mask": (4,)}, "expected `key_padding_mask` to be `None` or 2-D but found 1-D"),
        (((4, 4),) * 3, {"key_padding_mask": (4, 4)}, "expected `key_padding_mask` to be `None` or 1-D but found 2-D"),
        (((4, 4, 4),) * 3, {"attn_mask": (4,)}, "expected `attn_mask` to be `None`, 2-D or 3-D but found 1-D"),
        (((4, 4),) * 3, {"attn_mask": (4,)}, "expected `attn_mask` to be `None`, 2-D or 3-D but found 1-D"),
        (((4, 4),) * 3, {"attn_mask": (5, 4, 4)}, r"Expected `attn_mask` shape to be \(4, 4, 4\)"),
        (((4, 4, 4),) * 3, {"attn_mask": (4, 5)}, r"The shape of the 2D attn_mask is .* but should be \(4, 4\)"),
        (((4, 4, 4),) * 3, {"attn_mask": (4, 4, 4)}, r"The shape of the 3D attn_mask is .* should be \(16, 4, 4\)"),
        (((4, 4, 4),) * 3, {"key_padding_mask": (3, 4)}, r"key_padded_mask.shape\[0\] to be 4, but got 3"),
        (((4, 4, 4),) * 3, {"key_padding_mask": (4, 5)}, r"key_padded_mask.shape\[1\] to be 4, but got 5"),
        (((4, 4, 5), (4, 4, 4), (4, 4, 4)), {}, "was expecting embedding dimension of 4, but got 5"),
        (((4, 4, 4), (5, 4, 4), (4, 4, 4)), {}, "key shape .* does not match value shape"),
        (((4, 4, 4), (4, 4, 5), (4, 4, 5)), {}, "was expecting key dimension of 4, but got 5"),
        (((4, 4, 4), (4, 3, 4), (4, 3, 4)), {}, "was expecting key of batch size 4, but got 3"),
    ],
)
def test_shapes_that_do_not_fit(heads, shapes, options, message, evaluation):
    if ":" in heads:
        heads = heads.replace("2", "1").replace("classical:1", "classical:3")
    mha = qa.QuantumMultiheadAttention(4, 4, heads=heads, num_qubits=1 if "angle" in heads else None).train(
        not evaluation
    )
    inputs = [torch.randn(shape) for shape in shapes]
    kept = {name: torch.zeros(shape, dtype=torch.bool) for name, shape in options.items()}
    with torch.set_grad_enabled(not evaluation):
        for attention in (mha, nn.MultiheadAttention(4, 4)):
            with pytest.raises((AssertionError, RuntimeError)) as error:
                attention(*inputs, **kept)
            if attention is mha:
                ours = error
    assert ours.match(message)
    if "batch size" not in message and "key dimension" not in message:  # of which torch's own say less
        assert type(error.value) is type(ours.value)


@pytest.mark.parametrize("heads", ANY_HEADS)
def test_the_other_errors_of_a_call_are_torchs(heads):
    mha, x = qa.QuantumMultiheadAttention(E, H, heads=heads), torch.randn(S, N, E)
    for attention in (mha, nn.MultiheadAttention(E, H)):
        with pytest.raises(RuntimeError, match="Need attn_mask if specifying the is_causal hint"):
            attention(x, x, x, is_causal=True)
        for name, shape in (("attn_mask", (S, S)), ("key_padding_mask", (N, S))):
            with pytest.raises(AssertionError, match=f"only bool and floating types of {name} are supported"):
                attention(x, x, x, **{name: torch.zeros(shape, dtype=torch.int32)})
        with pytest.warns(UserWarning, match="Support for mismatched key_padding_mask and attn_mask is deprecated"):
            attention(x, x, x, key_padding_mask=torch.zeros(N, S) > 0, attn_mask=torch.zeros(S, S))
        with pytest.raises(RuntimeError, match="have the same dtype"):
            attention(x.double(), x.double(), x.double())
    other = qa.QuantumMultiheadAttention(E, H, kdim=3, vdim=2, heads=heads)
    with pytest.raises(AssertionError, match="sequence and batch dims"):
        other(x, torch.randn(S, N, 3), torch.randn(S + 1, N, 2))
    with pytest.raises(AssertionError, match="was expecting value dimension of 2, but got 3"):
        other(x, torch.randn(S, N, 3), torch.randn(S, N, 3))


def test_vectors_that_are_not_finite_are_refused():
    mha, x = qa.QuantumMultiheadAttention(E, H), torch.randn(S, N, E)
    x[0, 0, 0] = torch.nan
    with pytest.raises(EncodingError, match="NaN"):
        mha(x, x, x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("heads", ANY_HEADS)
def test_dtypes(heads, dtype):
    mha = qa.QuantumMultiheadAttention(E, H, heads=heads, dtype=dtype, add_bias_kv=True)
    assert {t.dtype for name, t in mha.state_dict().items() if "observables" not in name} == {dtype}
    x = torch.randn(S, N, E, dtype=dtype)
    for needed in (True, False):
        y, weights = mha(x, x, x, need_weights=needed)
        assert y.dtype == dtype and (weights is None or weights.dtype == dtype)
    expected = copy.deepcopy(mha).double()(x.double(), x.double(), x.double())[0]
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=30 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("heads", ANY_HEADS)
def test_autocast(heads):
    mha, x = qa.QuantumMultiheadAttention(E, H, heads=heads), torch.randn(S, N, E)
    mask = torch.ones(S, S, dtype=torch.bool).triu(1)
    for needed in (True, False):
        expected = mha(x, x, x, attn_mask=mask, need_weights=needed)[0]
        with torch.autocast("cpu", torch.bfloat16):
            y = mha(x, x, x, attn_mask=mask, need_weights=needed)[0]
            assert y.dtype == torch.bfloat16
            y.float().sum().backward()
        torch.testing.assert_close(y.float(), expected, rtol=0, atol=0.05)


@torch.no_grad()
def test_a_bias_of_another_dtype():
    mha = qa.QuantumMultiheadAttention(4, 4, batch_first=True, dtype=torch.float64, heads="classical").eval()
    mha.in_proj_bias = nn.Parameter(mha.in_proj_bias.half())
    x = torch.randn(4, 4, 4, dtype=torch.float64)
    assert mha(x, x, x)[0].dtype == torch.float64


@pytest.mark.parametrize("heads", ANY_HEADS)
def test_evaluation_and_both_masks_are_the_functional_form(heads):
    """The value of the heads that are classical, whatever the others."""
    mha = qa.QuantumMultiheadAttention(E, H, heads=heads, batch_first=True).eval()
    x, mask, padding = torch.randn(N, S, E), torch.rand(S, S) < 0.3, torch.rand(N, S) < 0.3
    mask[:, 0] = padding[:, 0] = False
    with torch.no_grad():
        weights = mha(x, x, x, attn_mask=mask, key_padding_mask=padding, average_attn_weights=False)[1]
        parameters = (
            mha.in_proj_weight,
            mha.in_proj_bias,
            None,
            None,
            False,
            0.0,
            mha.out_proj.weight,
            mha.out_proj.bias,
        )
        tokens = x.transpose(0, 1)
        _, expected = multi_head_attention_forward(
            tokens,
            tokens,
            tokens,
            E,
            H,
            *parameters,
            key_padding_mask=padding,
            attn_mask=mask,
            average_attn_weights=False,
        )
    linear = [head for head, kind in enumerate(kind_of_each(mha)) if mha.kinds[kind].projections == "v"]
    torch.testing.assert_close(weights[:, linear], expected[:, linear])


def kind_of_each(mha):
    return [name for item in mha.heads.split(",") for name in [item.split(":")[0]] * int(item.split(":")[1])]


def test_empty_sequences_and_batches():
    mha = qa.QuantumMultiheadAttention(E, H, heads="qisa:1,angle:1,classical:2")
    x = torch.randn(S, N, E)
    assert mha(x[:0], x, x)[0].shape == (0, N, E)
    assert mha(x[:, :0], x[:, :0], x[:, :0])[0].shape == (S, 0, E)


def test_states_load_into_each_other():
    theirs, ours = pair_of()
    ours.load_state_dict(theirs.state_dict())
    quantum = qa.QuantumMultiheadAttention(E, H, heads="qisa:2,zz:2")
    missing, unexpected = quantum.load_state_dict(theirs.state_dict(), strict=False)
    assert not unexpected
    circuits = ["weight", "gain", "observables"]
    names = [f"maps.{kind}.{name}" for kind in ("qisa-v3", "zz") for name in circuits]
    assert sorted(missing) == sorted([*names, "encodings.zz.weight"])
    with pytest.raises(RuntimeError, match=r"Missing key.*maps.qisa-v3.weight"):
        quantum.load_state_dict(theirs.state_dict())
    x, twin = torch.randn(S, N, E), qa.QuantumMultiheadAttention(E, H, heads="qisa:2,zz:2")
    twin.load_state_dict(quantum.state_dict())
    torch.testing.assert_close(twin(x, x, x), quantum(x, x, x))
    for same_one in (copy.deepcopy(quantum), pickle.loads(pickle.dumps(quantum))):
        torch.testing.assert_close(same_one(x, x, x), quantum(x, x, x))
    with torch.device("meta"):
        meta = qa.QuantumMultiheadAttention(E, H, heads="qisa:2,zz:2")
    also = qa.QuantumMultiheadAttention(E, H, heads="qisa:2,zz:2", device="meta")
    for empty in (meta, also):
        assert all(tensor.is_meta for tensor in empty.state_dict().values())
        empty.load_state_dict(quantum.state_dict(), assign=True)
        torch.testing.assert_close(empty(x, x, x), quantum(x, x, x))


@pytest.mark.parametrize("heads", ["qisa", "classical", "classical:1,qsann:1,classical:1,qisa:1"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kdim": 3, "vdim": 5},
        {"bias": False},
        {"add_bias_kv": True},
        {"add_zero_attn": True, "batch_first": True, "dropout": 0.1},
    ],
    ids=str,
)
def test_from_classical_keeps_the_projections(heads, options):
    theirs = nn.MultiheadAttention(E, H, **options, dtype=torch.float64).eval()
    theirs.out_proj.weight.requires_grad_(False)
    ours = qa.QuantumMultiheadAttention.from_classical(theirs, heads, reps=2)
    assert not ours.training and ours.heads.startswith(heads.split(":")[0])
    parameters = dict(ours.named_parameters())
    for name, parameter in theirs.named_parameters():
        assert parameters.pop(name) is parameter, "an optimizer that holds it goes on"
    assert all(parameter.dtype == torch.float64 for parameter in parameters.values())
    for name in ("embed_dim", "num_heads", "kdim", "vdim", "dropout", "batch_first", "add_zero_attn"):
        assert getattr(ours, name) == getattr(theirs, name)
    inputs = [torch.randn(S, S, width, dtype=torch.float64) for width in (E, ours.kdim, ours.vdim)]
    expected, found = (each(*inputs, average_attn_weights=False) for each in (theirs, ours))
    linear = [head for head, kind in enumerate(kind_of_each(ours)) if ours.kinds[kind].projections == "v"]
    torch.testing.assert_close(found[1][:, linear], expected[1][:, linear])
    assert torch.allclose(found[0], expected[0]) is (heads == "classical")


def test_from_classical_takes_what_computes_as_torchs_class():
    class Own(nn.MultiheadAttention):
        def forward(self, *inputs, **options):
            return super().forward(*inputs, **options)

    parametrized = nn.MultiheadAttention(E, H)
    nn.utils.parametrizations.weight_norm(parametrized, "in_proj_weight")
    quantizable = torch.ao.nn.quantizable.MultiheadAttention(E, H)
    own = nn.MultiheadAttention(E, H)
    own.forward = lambda *inputs: inputs
    for bad in (Own(E, H), parametrized, quantizable, own):
        with pytest.raises(ConfigError, match="has a forward of its own or is quantized, pruned or parametrized"):
            qa.QuantumMultiheadAttention.from_classical(bad)
    for bad in (None, nn.Linear(2, 2)):
        with pytest.raises(ConfigError, match=r"must be a torch.nn.MultiheadAttention, got a \w+"):
            qa.QuantumMultiheadAttention.from_classical(bad)
    again = qa.QuantumMultiheadAttention.from_classical(qa.QuantumMultiheadAttention(E, H), "zz")
    assert again.heads == "zz:4"


def test_a_projected_vector_is_encoded_as_it_is():
    """Widths between powers of two are padded with zeros: three of four amplitudes here."""
    mha = qa.QuantumMultiheadAttention(6, 2, heads="qisa", dtype=torch.float64)
    assert mha.in_proj_weight.shape == (18, 6) and mha.maps["qisa-v3"].circuit.num_qubits == 2
    seen = []
    mha.maps["qisa-v3"].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    x = torch.randn(S, 1, 6, dtype=torch.float64)
    mha(x, x, x)
    values = (x[:, 0] @ mha.in_proj_weight[12:].T).unflatten(-1, (2, 3)).transpose(0, 1)
    torch.testing.assert_close(seen[0], nn.functional.pad(values, (0, 1)))
    wide = qa.QuantumMultiheadAttention(6, 2, heads="qisa:1,quadratic:1", num_qubits=4)
    assert wide.maps["qisa-v3"].circuit.num_qubits == 4 and wide.maps["quadratic"].factor.shape[1] == 16


@pytest.mark.parametrize(
    ("sizes", "options", "kind", "message"),
    [
        ((0, 1), {}, ValueError, "embed_dim and num_heads must be greater than 0, got embed_dim=0 and num_heads=1"),
        ((8, -1), {}, ValueError, "embed_dim and num_heads must be greater than 0"),
        ((8, 3), {}, AssertionError, "embed_dim must be divisible by num_heads"),
        ((8.5, 2), {}, ConfigError, r"embed_dim must be an integer of at least 1, got 8.5"),
        ((8, "2"), {}, ConfigError, "num_heads must be an integer of at least 1, got '2'"),
        ((8, 2), {"kdim": 0}, ConfigError, "kdim must be an integer of at least 1, got 0"),
        ((8, 2), {"vdim": -1}, ConfigError, "vdim must be an integer of at least 1, got -1"),
        ((8, 2), {"dropout": 1.5}, ConfigError, r"dropout must be a number from 0 to 1, got 1.5"),
        ((8, 2), {"dropout": "x"}, ConfigError, "dropout must be a number from 0 to 1, got 'x'"),
        ((8, 2), {"dtype": "float32"}, ConfigError, "dtype must be a floating type of torch such as torch.float32"),
        ((8, 2), {"dtype": torch.int64}, ConfigError, "dtype must be a floating type of torch"),
        ((8, 2), {"heads": 3}, ConfigError, "heads must be a kind, or a string 'kind:count,…'; got 3"),
        ((8, 2), {"heads": "qiza"}, UnknownNameError, "Did you mean 'qisa'.* Known: angle, .*classical"),
        ((8, 2), {"heads": ""}, UnknownNameError, "Unknown head kind ''. Known: angle, .*classical"),
        ((8, 2), {"heads": "qisa 2"}, UnknownNameError, "Unknown head kind 'qisa 2'.* Known: angle, .*classical"),
        ((8, 2), {"heads": "qisa:1"}, ConfigError, "heads='qisa:1' has 1 heads, but num_heads is 2"),
        ((8, 2), {"heads": "qisa:x,zz:1"}, ConfigError, "with counts of at least 1, got 'qisa:x'"),
        ((32, 2), {"num_qubits": 3}, ConfigError, "head_dim=16 numbers and needs num_qubits of at least 4, got 3"),
        ((8, 2), {"num_qubits": 0}, ConfigError, "num_qubits must be an integer of at least 1, got 0"),
        ((8, 2), {"num_qubits": "3"}, ConfigError, "num_qubits must be an integer of at least 1, got '3'"),
        ((8, 2), {"reps": 1.5}, ConfigError, "reps must be an integer of at least 0, got 1.5"),
        ((8, 2), {"num_qubits": 13}, CircuitError, "num_qubits must be between 1 and 12, got 13"),
        ((8, 2), {"num_qubits": 30, "heads": "quadratic"}, ConfigError, "quadratic heads of .* weights or more takes"),
        ((8, 2), {"reps": -1}, ConfigError, "reps must be an integer of at least 0, got -1"),
        ((8, 2), {"backend": "statevectr"}, UnknownNameError, "statevector"),
    ],
)  # fmt: skip
def test_each_wrong_argument_has_its_error(sizes, options, kind, message):
    with pytest.raises(kind, match=message):
        qa.QuantumMultiheadAttention(*sizes, **options)


def test_sizes_may_be_numpys():
    mha = qa.QuantumMultiheadAttention(np.int64(8), np.int32(2), num_qubits=np.int64(3))
    assert mha.maps["qisa-v3"].circuit.num_qubits == 3


def test_what_is_printed():
    text = repr(qa.QuantumMultiheadAttention(8, 4, heads="classical:1,qisa:2,classical:1"))
    assert "embed_dim=8, num_heads=4, heads='classical:1,qisa-v3:2,classical:1'" in text
    assert "(qisa-v3): QuantumHead(" in text


@pytest.mark.parametrize("heads", ANY_HEADS)
def test_the_whole_layer_compiles_without_graph_breaks(heads):
    mha, x = qa.QuantumMultiheadAttention(E, H, heads=heads), torch.randn(S, N, E)
    compiled = torch.compile(mha, fullgraph=True, backend="aot_eager")
    padding = torch.zeros(N, S, dtype=torch.bool)
    padding[0, -1] = True
    for needed in (True, False):
        found = compiled(x, x, x, key_padding_mask=padding, need_weights=needed)
        torch.testing.assert_close(found, mha(x, x, x, key_padding_mask=padding, need_weights=needed))


def test_a_copy_for_inference_gives_the_same():
    mha = qa.QuantumMultiheadAttention(E, H, heads="qisa:1,angle:1,classical:1,rff:1").eval()
    x = torch.randn(S, N, E)
    torch.testing.assert_close(qa.inference(mha)(x, x, x), mha(x, x, x))


def test_weights_of_other_observables_are_refused():
    mha = qa.QuantumMultiheadAttention(E, H)
    state = mha.state_dict()
    state["maps.qisa-v3.observables"] = 3 - state["maps.qisa-v3.observables"]
    with pytest.raises((RuntimeError, CheckpointError), match="observables differ"):
        mha.load_state_dict(state)
