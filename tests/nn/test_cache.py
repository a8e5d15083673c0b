"""A cache holds all keys and values so far, part by part."""

from __future__ import annotations

import torch

from qiskit_qattn.nn.attention import KeyValueCache


def test_keys_and_values_are_appended_part_by_part():
    cache = KeyValueCache()
    k, v = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 5, 6)
    first = cache.extend("linear", k[:, :, :2], v[:, :, :2])
    assert torch.equal(first[0], k[:, :, :2]) and torch.equal(first[1], v[:, :, :2])
    other = cache.extend("circuit", v, k)
    before = dict(cache.pairs)
    all_keys, all_values = cache.extend("linear", k[:, :, 2:], v[:, :, 2:])
    assert torch.equal(all_keys, k) and torch.equal(all_values, v)
    assert torch.equal(other[0], v) and torch.equal(cache.pairs["circuit"][1], k)
    assert torch.equal(before["linear"][0], k[:, :, :2]), "what was there is not written to"
