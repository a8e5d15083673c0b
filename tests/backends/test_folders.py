from pathlib import Path

from qiskit_qattn.backends.folders import cache_folder


def test_the_cache_folder_is_the_one_named(monkeypatch):
    monkeypatch.setenv("QATTN_CACHE_DIR", "~/somewhere")
    assert cache_folder() == Path.home() / "somewhere"


def test_the_cache_folder_is_the_users_by_default(monkeypatch):
    monkeypatch.delenv("QATTN_CACHE_DIR")
    assert cache_folder().name in ("qiskit-qattn", "Cache")
