"""Kinds whose scores compare the states of a query and a key, each with its control."""

from __future__ import annotations

from qiskit_qattn.nn.controls import LinearValues, QuadraticValues
from qiskit_qattn.nn.head_kind import HeadKind
from qiskit_qattn.nn.pairs import Pairing

PAIR_KINDS = (
    HeadKind(
        "overlap",
        score="overlap",
        summary="linear v; scores are overlaps of the states of amplitude-encoded q and k",
        values=lambda shape: LinearValues(),
        num_features=lambda shape: shape.head_size,
        pairs=Pairing("overlap", "qisa-v3"),
        control="kernel",
    ),
    HeadKind(
        "qmsan",
        "qisa-v3",
        summary="v a circuit; scores are overlaps of q and k as mixed states",
        pairs=Pairing("mixed", "qisa-v3"),
        control="low-rank",
    ),
    HeadKind(
        "qcsam",
        "qisa-v3",
        score="complex",
        summary="v a circuit; weights are complex overlaps of the states of q and k",
        pairs=Pairing("complex", "qisa-v3"),
        control="complex",
    ),
    HeadKind(
        "kernel",
        score="overlap",
        summary="control: overlap with free complex linear maps in place of circuits",
        values=lambda shape: LinearValues(),
        num_features=lambda shape: shape.head_size,
        pairs=Pairing("overlap"),
    ),
    HeadKind(
        "low-rank",
        summary="control: qmsan with free complex linear maps, whose mixed states are M M†, and quadratic v",
        values=lambda shape: QuadraticValues(shape.count, 2**shape.num_qubits, shape.head_size),
        num_features=lambda shape: 2**shape.num_qubits,
        pairs=Pairing("mixed"),
    ),
    HeadKind(
        "complex",
        score="complex",
        summary="control: qcsam with free complex linear maps, and quadratic v",
        values=lambda shape: QuadraticValues(shape.count, 2**shape.num_qubits, shape.head_size),
        num_features=lambda shape: 2**shape.num_qubits,
        pairs=Pairing("complex"),
    ),
)
