"""A program that runs steps on a device without memory and prints, for each, what a GPU would have to wait for.

Tensors of ``FakeTensorMode`` have a device, a shape and a type but no values, so any read of one fails. On a torch for
CPUs their device cannot be ``cuda``, since autograd asks for its streams; it is one that Python registers, for the
whole process: hence a program of its own.
"""

from __future__ import annotations

import copy
import json
import traceback
from pathlib import Path

import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import efficient_su2, zz_feature_map
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning.neural_networks import EstimatorQNN
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

import qiskit_qattn as qa
from qiskit_qattn.nn.attention import KeyValueCache
from qiskit_qattn.simulation.dense import Dense

GPU = "gpu"


class Device(_DummyBackendModule):
    """The module of the device, which makes no tensor with memory."""

    def is_available(self):
        return False

    def get_amp_supported_dtype(self):
        return [torch.bfloat16]


class Watch(TorchDispatchMode):
    """Records operations that take or give tensors of the CPU, each with the line of ours that calls it."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        if any(isinstance(x, torch.Tensor) and x.device.type != GPU for x in tree_leaves((args, kwargs, result))):
            self.found.append(f"{operation} at {_line(traceback.extract_stack())}")
        return result


def _line(stack):
    own = [frame for frame in stack if "qiskit_qattn" in frame.filename] or list(stack)
    return f"{Path(own[-1].filename).name}:{own[-1].lineno}"


def problems(module, call, training=True):
    """Return what a training step and inference of a module on the device read from it, or move to it or from it."""
    found = []
    for train in [True, False][0 if training else 1 :]:
        twin = copy.deepcopy(module)
        for part in list(twin.modules()):
            if isinstance(part, Dense):  # as it does itself on a GPU, but from numbers, which there are none of below
                part.few_calls = True
                part.sums = part._trigonometric_sums()
                for matrix in part.sums.values():
                    matrix.follow(part)
        with FakeTensorMode(allow_non_fake_inputs=True):
            twin.to(GPU).train(train)
            with Watch() as watch, torch.set_grad_enabled(train):
                try:
                    result = call(twin)
                    if train:
                        result.sum().backward()
                except (DataDependentOutputException, DynamicOutputShapeException) as error:
                    found.append(f"{error.func} at {_line(traceback.extract_tb(error.__traceback__))}")
        found += watch.found
    return found


def on_gpu(*shape, dtype=torch.float32):
    return torch.zeros(*shape, dtype=dtype, device=GPU)


def gpts():
    """Yield the GPT with each kind of head, with copies for inference, and on the noisy engine."""

    def model(heads, n_layer=1, num_qubits=4):
        count = sum(int(part.split(":")[1]) for part in heads.split(","))
        config = {"n_layer": n_layer, "n_head": count, "n_embd": 4 * count, "num_qubits": num_qubits}
        return qa.GPT(qa.GPTConfig(vocab_size=11, block_size=8, heads=heads, dropout=0.1, **config))

    def step(gpt):
        idx = on_gpu(3, 8, dtype=torch.long)
        return gpt(idx, idx)[1]

    def generate(gpt):
        caches = [KeyValueCache() for _ in gpt.blocks]
        for position, steps in ((0, 3), (3, 1), (4, 2)):
            gpt(on_gpu(3, steps, dtype=torch.long), caches=caches, position=position)

    for kind in qa.list_heads():
        gpt = model(f"{kind}:2")
        yield kind, gpt, step, True
        yield f"{kind}, copy", qa.inference(gpt), step, False
    gpt = model("qisa:1,zz:1,classical:1", n_layer=2)
    yield "mix", gpt, step, True
    yield "mix, generation", qa.inference(gpt), generate, False
    for kind in ("qisa", "angle"):
        gpt = model(f"{kind}:2", num_qubits=3)
        gpt.to_backend("density_matrix?noise=depolarizing&p1=0.01&p2=0.02")
        yield f"{kind}, noisy", gpt, step, True


def attentions():
    """Yield multi-head attention of several kinds with masks, and an encoder with replaced attention."""
    heads = "classical:1,qisa:2,angle:1,classical:1,zz:1"
    attention = qa.QuantumMultiheadAttention(24, 6, 0.1, batch_first=True, heads=heads, add_bias_kv=True)

    def call(module, **options):
        return module(*[on_gpu(2, 5, 24)] * 3, **options)[0]

    yield "attention", attention, call, True
    yield (
        "attention, masks",
        attention,
        lambda m: call(m, key_padding_mask=on_gpu(2, 5), attn_mask=on_gpu(12, 5, 5)),
        True,
    )
    yield "attention, copy", qa.inference(attention), lambda m: call(m, need_weights=False), False
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
    qa.replace_attention(encoder, heads="qisa:1,zz:1")
    yield (
        "encoder",
        encoder,
        lambda m: m(on_gpu(2, 5, 8), src_key_padding_mask=on_gpu(2, 5, dtype=torch.bool)),
        True,
    )


def connectors():
    """Yield connectors whose circuits are simulated in all ways."""

    def connector(circuit, inputs, weights, backend=None):
        observables = [SparsePauliOp(letter * circuit.num_qubits) for letter in "ZX"]
        options = {"estimator": StatevectorEstimator(), "default_precision": 0.0, "input_gradients": True}
        network = EstimatorQNN(
            circuit=circuit, observables=observables, input_params=inputs, weight_params=weights, **options
        )
        return qa.TorchConnector(network, backend=backend)

    for num_qubits, rows in ((3, 1), (3, 700), (6, 5), (6, 700), (9, 5), (11, 5)):
        data, ansatz = zz_feature_map(num_qubits, reps=1), efficient_su2(num_qubits, reps=1)
        layer = connector(data.compose(ansatz), data.parameters, ansatz.parameters)
        shape = rows, num_qubits
        yield f"{num_qubits} qubits, {rows} rows", layer, lambda m, shape=shape: m(on_gpu(*shape)), True
    x, w = ParameterVector("x", 2), ParameterVector("w", 3)
    circuit = QuantumCircuit(2)
    circuit.ry(w[0], 0)
    circuit.rx(x[0] * w[1], 0)
    circuit.ecr(0, 1)
    circuit.crx(x[1] + w[0], 0, 1)
    circuit.rz(x[0].sin() + x[1] * x[0], 0)
    circuit.swap(0, 1)
    circuit.ry(w[2], 0)
    for backend in (None, "density_matrix?noise=depolarizing&p1=0.01&p2=0.02"):
        yield f"mixed angles, {backend}", connector(circuit, x, w, backend), lambda m: m(on_gpu(5, 2)), True


class Reads(nn.Linear):
    """A layer that reads a value; the next copies one."""

    def forward(self, x):
        return super().forward(x) * x.sum().item()


class Copies(nn.Linear):
    def forward(self, x):
        return super().forward(x)[:, [2, 1, 0]]


def main():
    _setup_privateuseone_for_python_backend(GPU, Device())
    cases = [
        *gpts(),
        *attentions(),
        *connectors(),
        *((each.__name__, each(3, 3), lambda m: m(on_gpu(2, 3)), True) for each in (Reads, Copies)),
    ]
    print(json.dumps({name: problems(module, call, training) for name, module, call, training in cases}))


if __name__ == "__main__":
    main()
