from __future__ import annotations

import pytest
import typer

from qiskit_qattn.cli.app import app
from qiskit_qattn.training.config import SETTINGS, resolve


@pytest.mark.parametrize("command", ["train", "compare"])
def test_the_defaults_in_the_help_are_those_of_nano(command: str):
    nano = resolve({}).to_dict()
    options = {option.name: option for option in typer.main.get_command(app).commands[command].params}
    shown = {name: option.show_default for name, option in options.items() if name in SETTINGS and name != "out"}
    assert len(shown) >= 30
    for name, text in shown.items():
        expected = str(nano[name])
        assert text in (expected, f"nano: {expected}") if text else not nano[name], name
