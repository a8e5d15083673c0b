from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from qiskit_qattn import list_backends
from qiskit_qattn.backends.registry import registration

Run = Callable[..., Any]


@pytest.mark.parametrize("columns", ["80", "120"])
def test_the_list_names_every_backend_and_option(qattn: Run, monkeypatch: pytest.MonkeyPatch, columns: str):
    monkeypatch.setenv("COLUMNS", columns)
    result = qattn("backends")
    assert result.exit_code == 0, result.output
    found = [registration(name) for name in list_backends()]
    words = set(result.stdout.replace(",", " ").split())
    for each in found:
        assert {each.name, *each.provider.options} <= words
    assert max(map(len, result.stdout.splitlines())) <= int(columns)
    assert result.stdout.count("not installed:") == sum(bool(each.provider.missing()) for each in found)


def test_one_backend_with_what_its_options_mean(qattn: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "200")
    result = qattn("backends", "aer")
    assert result.exit_code == 0, result.output
    for option, meaning in registration("aer").provider.options.items():
        assert any(option in line and meaning in line for line in result.stdout.splitlines())
    assert registration("aer").provider.targets in result.stdout


def test_the_extra_that_brings_in_what_is_missing(qattn: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setitem(sys.modules, "qiskit_aer", None)
    for arguments in (["backends"], ["backends", "aer"]):
        assert 'not installed: qiskit_aer; pip install "qiskit-qattn[aer]"' in qattn(*arguments).stdout


def test_a_broken_package_does_not_hide_the_others(
    qattn: Run, monkeypatch: pytest.MonkeyPatch, install_package: Callable[..., None]
):
    install_package("broken-pack", "broken_pack", "", {"broken": "no_such_module:X"})
    monkeypatch.setenv("COLUMNS", "200")
    result = qattn("backends")
    assert result.exit_code == 0, result.output
    assert "of the package 'broken-pack' cannot be loaded" in result.stdout
    assert "statevector" in result.stdout
    assert qattn("backends", "broken").exit_code == 2


def test_an_unknown_backend_is_one_line(qattn: Run):
    result = qattn("backends", "statevectr")
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert "Did you mean 'statevector'" in result.stderr
