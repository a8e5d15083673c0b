from __future__ import annotations

from pathlib import Path

import pytest

from qiskit_qattn.errors import RunFolderError
from qiskit_qattn.training.files import new_folder, write_text


def test_a_folder_appears_only_when_it_is_complete(tmp_path: Path):
    with new_folder(tmp_path / "a" / "b") as scratch:
        write_text(scratch / "x", "1")
        assert not (tmp_path / "a" / "b").exists()
    assert (tmp_path / "a" / "b" / "x").read_text() == "1"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


def test_a_failure_leaves_the_old_folder_and_nothing_else(tmp_path: Path):
    with new_folder(tmp_path / "a") as scratch:
        write_text(scratch / "x", "old")
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "a") as scratch:
        write_text(scratch / "x", "new")
        raise KeyboardInterrupt
    assert (tmp_path / "a" / "x").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_folder_replaces_an_older_one(tmp_path: Path):
    for content in ("old", "new"):
        with new_folder(tmp_path / "a") as scratch:
            write_text(scratch / content, content)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["new"]


@pytest.mark.parametrize("name", ["x", "a/x"])
def test_a_file_where_a_folder_should_be_is_one_clear_line(tmp_path: Path, name: str):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match=r"Cannot write .*x.*: '.*file' is not a folder\."):
        write_text(tmp_path / "file" / name, "")
    with pytest.raises(RunFolderError, match="Cannot write"), new_folder(tmp_path / "file" / "x"):
        pass
