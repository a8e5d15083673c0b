from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace

import pytest

from qiskit_qattn.backends.prices import VARIABLE, braket_price, ibm_price_note, ibm_second_price
from qiskit_qattn.errors import ConfigError, UnknownNameError

SHIPPED = tomllib.loads((files("qiskit_qattn.backends") / "prices.toml").read_text("utf-8"))
FORTE = "arn:aws:braket:us-east-1::device/qpu/ionq/Forte-1"
SV1 = "arn:aws:braket:::device/quantum-simulator/amazon/sv1"


@pytest.fixture(autouse=True)
def own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(VARIABLE, raising=False)
    return tmp_path / "prices.toml"


def device(arn: str, price: float | None = None, unit: str = "shot") -> SimpleNamespace:
    cost = None if price is None else SimpleNamespace(price=price, unit=unit)
    return SimpleNamespace(arn=arn, properties=SimpleNamespace(service=SimpleNamespace(deviceCost=cost)))


def set_own(file: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(text)
    monkeypatch.setenv(VARIABLE, str(file))


def test_the_shipped_file_is_dated_and_names_its_sources() -> None:
    for table in SHIPPED.values():
        assert table["date"].year >= 2025
        assert table["source"].startswith("https://")


def test_a_plan_decides_the_price_of_a_second(own_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ibm_second_price() == SHIPPED["ibm"]["second"]["pay-as-you-go"] == 1.6
    assert f"plan pay-as-you-go, prices of {SHIPPED['ibm']['date']}" in ibm_price_note()
    set_own(own_file, '[ibm]\nplan = "flex"', monkeypatch)
    assert ibm_second_price() == SHIPPED["ibm"]["second"]["flex"]
    set_own(own_file, '[ibm]\nplan = "ours"\ndate = 2026-01-02\n[ibm.second]\nours = 0.5', monkeypatch)
    assert ibm_second_price() == 0.5
    assert ibm_price_note().startswith("plan ours, prices of 2026-01-02")


def test_a_shot_costs_what_the_user_says_then_the_device_then_the_file(
    own_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, shots = SHIPPED["braket"]["task"], SHIPPED["braket"]["shot"]
    assert braket_price(device(FORTE)) == (task, shots["ionq/forte"]) == (0.3, 0.08)
    assert braket_price(device(FORTE, 0.07)) == (task, 0.07)
    set_own(own_file, '[braket.shot]\nionq = 0.01\n"ionq/forte" = 0.02', monkeypatch)
    assert braket_price(device(FORTE, 0.07)) == (task, 0.02)
    assert braket_price(device("arn:aws:braket:us-east-1::device/qpu/ionq/New-1", 0.07)) == (task, 0.01)
    set_own(own_file, "[braket]\ntask = 0", monkeypatch)
    assert braket_price(device(FORTE, 0.07)) == (0, 0.07)


def test_simulators_and_unknown_devices_have_no_price_of_a_shot() -> None:
    assert braket_price(device(SV1, 0.075, "minute")) is None
    assert braket_price(device("arn:aws:braket:us-east-1::device/qpu/maker/New")) is None
    assert braket_price(device("arn:aws:braket:us-east-1::device/qpu/maker/New", 2.0, "hour")) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[ibm", "are no TOML"),
        ("ibm = " + "[" * 100_000, "are no TOML: it is nested too deeply"),
        ("#" * 2**21, "cannot be read: it has 2,097,152 bytes, and at most"),
        (f"ibm = [{'1, ' * 1000}]", r"must be a table, got \[1, 1, 1, 1, 1, 1, \.\.\.\]"),
        ("[ibn]\n", "Did you mean 'ibm'"),
        ("ibm = 1", "must be a table, got 1"),
        ("[ibm]\nseconds = 1", "Did you mean 'second'"),
        ("[ibm]\nsecond = 1.6", "must be a table of prices, got 1.6"),
        ("[ibm]\nplan = 3", "must be a text, got 3"),
        ("[ibm.second]\nflex = -1", "at least 0, got -1"),
        ("[ibm.second]\nflex = nan", "at least 0, got nan"),
        ("[braket]\ntask = true", "at least 0, got True"),
        ('[braket.shot]\nionq = "1"', "at least 0, got '1'"),
    ],
)
def test_a_bad_file_is_refused(own_file: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str) -> None:
    set_own(own_file, text, monkeypatch)
    with pytest.raises(ConfigError, match=message):
        ibm_second_price()
    with pytest.raises(ConfigError, match=message):
        braket_price(device(FORTE))


def test_a_missing_file_and_an_unknown_plan(own_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(own_file))
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        ibm_second_price()
    set_own(own_file, '[ibm]\nplan = "premum"', monkeypatch)
    with pytest.raises(UnknownNameError, match="Did you mean 'premium'"):
        ibm_second_price()
