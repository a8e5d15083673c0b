from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from qiskit_qattn.errors import RunFolderError
from qiskit_qattn.training.files import new_folder, remove_leftovers, write_text


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


def test_a_restarted_container_does_not_collide_with_what_its_predecessor_left(tmp_path: Path):
    """The predecessor was killed while it wrote, and had the same process id."""
    code = f"""
import os, signal
import os
import signal
import subprocess
import sys
from pathlib import Path
from qiskit_qattn.training.files import new_folder
os.getpid = lambda: 1
with new_folder(Path({str(tmp_path)!r}) / "step-5") as scratch:
    (scratch / "part").write_text("x")
    os.kill({{pid}}, signal.SIGKILL)
""".replace("{pid}", 'int(os.readlink("/proc/self"))')
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    [left] = tmp_path.iterdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "getpid", lambda: 1)
        with new_folder(tmp_path / "step-5") as scratch:
            write_text(scratch / "part", "whole")
    assert (tmp_path / "step-5" / "part").read_text() == "whole"
    os.utime(left, (0, 0))
    write_text(tmp_path / "x", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-5", "x"]


def test_only_leftovers_are_removed_and_only_old_ones(tmp_path: Path):
    write_text(tmp_path / ".hidden.tmp", "the user's")
    (tmp_path / ".0123.qattn-tmp").write_text("another process's")
    for name in (".hidden.tmp", ".0123.qattn-tmp"):
        os.utime(tmp_path / name, (0, 0) if name == ".hidden.tmp" else None)
    write_text(tmp_path / "x", "")
    assert len(list(tmp_path.iterdir())) == 3
    remove_leftovers(tmp_path, older_than=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden.tmp", "x"]


def test_the_longest_name_can_be_written(tmp_path: Path):
    write_text(tmp_path / ("x" * 255), "long")
    with new_folder(tmp_path / ("y" * 255)):
        pass
    assert len(list(tmp_path.iterdir())) == 2
