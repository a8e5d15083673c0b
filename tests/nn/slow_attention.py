"""Multi-head attention by its definitions, in float64: one head, one pair of tokens, one circuit at a time."""

import math

import numpy as np
import torch
from qiskit.quantum_info import Statevector, partial_trace

KINDS = ["qisa-v1", "qisa-v2", "qisa-v3", "qsann", "zz", "angle", "frozen", "classical", "quadratic", "rff"]
KINDS += ["orthogonal", "unit-linear", "mps", "qasa", "bottleneck", "probabilities", "born", "compound", "pair-linear"]
SCORES = {"qisa-v1": "qisa", "qisa-v2": "qisa", "qsann": "gaussian"}
COMPARED = {"overlap": "overlap", "kernel": "overlap", "qmsan": "mixed", "low-rank": "mixed"}
COMPARED |= {"qcsam": "complex", "complex": "complex"}
KINDS += COMPARED
QKV = ("qisa-v1", "qisa-v2", "qsann", "angle", "orthogonal", "unit-linear")


def attention(mha, query, key, value, padding=None, mask=None):
    """Return the output ``(N, L, E)`` and weights ``(N, H, L, S)`` for inputs with N first.

    Args:
        mha: The module, in evaluation mode.
        query: Shape ``(N, L, E)``.
        key: Shape ``(N, S, kdim)``.
        value: Shape ``(N, S, vdim)``.
        padding: Boolean (True excludes) or float, shape ``(N, S)``.
        mask: The same, shape ``(L, S)`` or ``(N * H, L, S)``.
    """
    state = {name: tensor.detach().double().numpy() for name, tensor in mha.state_dict().items()}
    size, heads, width = mha.embed_dim, mha.num_heads, mha.head_dim
    if "in_proj_weight" in state:
        projections = np.split(state["in_proj_weight"], 3)
    else:
        projections = [state[f"{name}_proj_weight"] for name in "qkv"]
    biases = np.split(state.get("in_proj_bias", np.zeros(3 * size)), 3)
    kinds = [name for item in mha.heads.split(",") for name in [item.split(":")[0]] * int(item.split(":")[1])]
    inputs = [x.detach().double().numpy() for x in (query, key, value)]
    batch, steps, total = len(inputs[0]), inputs[0].shape[1], inputs[1].shape[1]
    added = total + ("bias_k" in state) + mha.add_zero_attn
    weights, mixed = np.zeros((batch, heads, steps, added)), np.zeros((batch, steps, size))
    for n in range(batch):
        for head, kind in enumerate(kinds):
            rows = slice(head * width, (head + 1) * width)
            vectors = [
                [w[rows] @ x + b[rows] for x in each[n]] for w, b, each in zip(projections, biases, inputs, strict=True)
            ]
            if "bias_k" in state:
                vectors[1].append(state["bias_k"].reshape(-1)[rows])
                vectors[2].append(state["bias_v"].reshape(-1)[rows])
            which = kinds[:head].count(kind)
            if kind in QKV:
                q, k, v = (
                    [mapped(mha, state, kind, which, part, x) for x in each] for part, each in enumerate(vectors)
                )
                used = {"qisa-v1": 1, "qsann": 1}.get(kind)
                used = mha.maps[kind].circuit.num_qubits if kind == "angle" else used
                q, k = ([x[:used] for x in each] for each in (q, k))
            else:
                q, k, v = vectors[0], vectors[1], [mapped(mha, state, kind, which, None, x) for x in vectors[2]]
            if kind in COMPARED:
                q, k = ([prepared(mha, kind, which, part, x) for x in each] for part, each in enumerate((q, k)))
            if mha.add_zero_attn:
                k, v = [*k, np.zeros_like(k[0])], [*v, np.zeros_like(v[0])]
            for i in range(steps):
                if kind in COMPARED:
                    logits = [compared(mha, kind, which, q[i], k[j]) for j in range(added)]
                else:
                    logits = [logit(q[i], k[j], SCORES.get(kind)) for j in range(added)]
                phases = np.ones(added)
                if COMPARED.get(kind) == "complex":
                    phases = np.exp(1j * np.angle(logits))
                    logits = [math.log(max(abs(each), 1e-300)) for each in logits]  # of moduli
                    half = width // 2
                    pairs = [np.concatenate([x[:half] + 1j * x[half : 2 * half], x[2 * half :]]) for x in v]
                for j in range(total):
                    if padding is not None:
                        logits[j] += _added(padding[n, j])
                    if mask is not None:
                        logits[j] += _added(mask[i, j] if mask.ndim == 2 else mask[n * heads + head, i, j])
                exponentials = [math.exp(each - max(logits)) for each in logits]
                row = [each / sum(exponentials) for each in exponentials]
                weights[n, head, i] = row
                if COMPARED.get(kind) == "complex":
                    sums = sum(w * phase * x for w, phase, x in zip(row, phases, pairs, strict=True))
                    mixed[n, i, rows] = np.concatenate([sums.real[:half], sums.imag[:half], sums.real[half:]])
                else:
                    mixed[n, i, rows] = sum(w * x for w, x in zip(row, v, strict=True))
    y = mixed @ state["out_proj.weight"].T + state.get("out_proj.bias", 0.0)
    return torch.from_numpy(y), torch.from_numpy(weights)


def logit(q, k, score):
    """Return the argument of the softmax."""
    if score is None:
        return sum(a * b for a, b in zip(q, k, strict=True)) / math.sqrt(len(q))
    distance = sum((a - b) ** 2 for a, b in zip(q, k, strict=True))
    return -distance if score == "gaussian" else math.exp(-distance)


def mapped(mha, state, kind, which, part, x):
    """Return what head ``which`` of a kind makes of a projected vector; ``part`` is 0, 1, 2 for q, k, v circuits."""
    index = which if part is None else (part, which)
    if kind in ("classical", "overlap", "kernel"):
        return x
    if kind in ("quadratic", "low-rank", "complex"):
        factor, coefficient = (state[f"maps.{kind}.{name}"][which] for name in ("factor", "coefficient"))
        padded = np.pad(x, (0, len(factor) - len(x)))
        columns = (padded / np.linalg.norm(padded) @ factor).reshape(coefficient.shape)
        return (coefficient * columns**2).sum(-1)
    if kind == "rff":
        frequency, phase, readout = (state[f"maps.rff.{name}"][which] for name in ("frequency", "phase", "readout"))
        features = math.sqrt(2 / frequency.shape[1]) * np.cos(x @ frequency + phase[0])
        return features @ readout
    if kind == "unit-linear":
        return x / np.linalg.norm(x) @ state["maps.unit-linear.weight"][index]
    if kind == "mps":
        first, cores, readout = (state[f"maps.mps.{name}"][which] for name in ("first", "cores", "readout"))
        coefficients = first  # of all 3ⁿ products, by the bond
        for core in cores:
            coefficients = np.einsum("...d,sde->...se", coefficients, core)
        weight = state.get("encodings.mps.weight")
        series = coefficients @ readout
        for u in x if weight is None else x @ weight[which]:
            series = np.tensordot([1, math.cos(u), math.sin(u)], series, 1)
        return series
    if kind == "bottleneck":
        weights = ("narrow", "wide", "bias", "readout")
        narrow, wide, bias, readout = (state[f"maps.bottleneck.{name}"][which] for name in weights)
        encoding = state.get("encodings.bottleneck.weight")
        data = x if encoding is None else x @ encoding[which]
        return np.tanh(np.tanh(np.pad(data, (0, len(narrow) - len(data)))) @ narrow @ wide + bias[0]) @ readout
    if kind == "born":
        gain = state["maps.born.gain"][which]
        return x**2 / (x @ x) * gain
    if kind == "pair-linear":
        weight = state["maps.pair-linear.weight"][which]
        return x / np.linalg.norm(x) @ weight[: len(x)]
    circuit = mha.maps[kind].circuit
    angles = dict(zip(circuit.weight_params, state[f"maps.{kind}.weight"][index], strict=True))
    ansatz = circuit.ansatz.assign_parameters({p: angles[p] for p in circuit.ansatz.parameters})
    if circuit.encoding.kind == "amplitude":
        padded = np.pad(x, (0, 2**circuit.num_qubits - len(x)))
        prepared = Statevector(padded / np.linalg.norm(padded))
    elif circuit.encoding.kind == "unary":
        amplitudes = np.zeros(2**circuit.num_qubits)
        amplitudes[0], amplitudes[2 ** np.arange(len(x))] = 1, x / np.linalg.norm(x)
        prepared = Statevector(amplitudes / math.sqrt(2))
    elif circuit.encoding.kind == "matrix":
        rows = circuit.num_qubits // 2
        columns = circuit.num_qubits - rows
        amplitudes = np.zeros(2**circuit.num_qubits)
        for place, entry in enumerate(x / np.linalg.norm(x)):
            amplitudes[2 ** (place // columns) + 2 ** (rows + place % columns)] = entry
        amplitudes[0] = 1
        prepared = Statevector(amplitudes / math.sqrt(2))
    else:
        encoding = state[f"encodings.{kind}.weight"]
        data = x @ encoding[index if encoding.ndim == 4 else which]
        data = np.tanh(data) if kind == "qasa" else data
        bound = dict(zip(circuit.input_params, data, strict=True))
        prepared = Statevector(circuit.encoding.circuit.assign_parameters(bound))
    final = prepared.evolve(ansatz)
    expectations = np.array([final.expectation_value(observable).real for observable in circuit.observables])
    gain = state[f"maps.{kind}.gain"][index]
    return expectations @ gain if kind == "qasa" else gain * expectations


def prepared(mha, kind, which, part, x):
    """Return the state of a projected query (part 0) or key (part 1)."""
    head = mha.scores[kind]
    weight = head.weight.detach().double().numpy()
    if kind in ("kernel", "low-rank", "complex"):
        real, imag = np.split(x @ weight[part, which], 2)
        return (real + 1j * imag) / np.linalg.norm(real + 1j * imag)
    padded = np.pad(x, (0, 2**head.states.num_qubits - len(x)))
    angles = dict(zip(head.states.weight_params, np.split(weight[which], 2)[part], strict=True))
    return Statevector(padded / np.linalg.norm(padded)).evolve(head.states.ansatz.assign_parameters(angles)).data


def compared(mha, kind, which, q, k):
    """Return τ times what compares two states, or their overlap."""
    if COMPARED[kind] == "complex":
        return np.vdot(q, k)
    tau = len(q) * mha.scores[kind].gain.detach().double().reshape(-1)[which].item() ** 2
    if COMPARED[kind] == "overlap":
        return tau * abs(np.vdot(q, k)) ** 2
    n = len(q).bit_length() - 1
    rho, sigma = (partial_trace(Statevector(each), list(range((n + 1) // 2, n))).data for each in (q, k))
    return tau * np.trace(rho @ sigma).real


def _added(entry):
    if entry.dtype == torch.bool:
        return -math.inf if entry else 0.0
    return float(entry)
