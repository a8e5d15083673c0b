from pathlib import Path

import pytest

from qiskit_qattn.backends.folders import cache_folder, path_from
from qiskit_qattn.backends.prices import ibm_second_price
from qiskit_qattn.errors import ConfigError


def test_the_cache_folder_is_the_one_named(monkeypatch):
    monkeypatch.setenv("QATTN_CACHE_DIR", "~/somewhere")
    assert cache_folder() == Path.home() / "somewhere"


def test_the_cache_folder_is_the_users_by_default(monkeypatch):
    monkeypatch.delenv("QATTN_CACHE_DIR")
    assert cache_folder().name in ("qiskit-qattn", "Cache")
    assert cache_folder().is_absolute()


@pytest.mark.parametrize("variable", ["QATTN_LEDGER", "QATTN_CACHE_DIR", "QATTN_DATA_DIR", "QATTN_PRICES"])
def test_a_relative_path_stays_where_it_was_when_it_was_read(tmp_path, monkeypatch, variable):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, f"relative-{variable}")
    found = path_from(variable)
    monkeypatch.chdir("/")
    assert found == path_from(variable) == tmp_path / f"relative-{variable}"
    monkeypatch.setenv(variable, "")
    assert path_from(variable) is None


def test_a_folder_of_nobody_is_an_error(monkeypatch):
    monkeypatch.setenv("QATTN_CACHE_DIR", "~nobody-of-this-name/x")
    with pytest.raises(ConfigError, match="QATTN_CACHE_DIR='~nobody-of-this-name/x' names no folder"):
        cache_folder()


def test_a_relative_path_where_the_current_folder_is_gone_is_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QATTN_CACHE_DIR", "relative-to-nothing")
    tmp_path.rmdir()
    with pytest.raises(ConfigError, match="QATTN_CACHE_DIR='relative-to-nothing' names no folder"):
        cache_folder()


def test_prices_stay_where_they_were_named(tmp_path, monkeypatch):
    (tmp_path / "my-prices.toml").write_text("[ibm]\nplan = 'mine'\n[ibm.second]\nmine = 0.125\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QATTN_PRICES", "my-prices.toml")
    assert ibm_second_price() == 0.125
    monkeypatch.chdir("/")
    assert ibm_second_price() == 0.125
    monkeypatch.setenv("QATTN_PRICES", "/dev/zero")
    with pytest.raises(ConfigError, match="'/dev/zero' cannot be read: it is no regular file"):
        ibm_second_price()
