"""A ledger that is made on a disk with too little space is there as a whole, or not at all."""

import shutil
import subprocess
import sys

import pytest

SCRIPT = """
import subprocess, sys
from qiskit_qattn.backends.jobs.ledger import Ledger
from qiskit_qattn.errors import BackendError

refused = 0
for number, size in enumerate(range(40, 160, 4)):
    disk = f"{sys.argv[1]}/{number}"
    subprocess.run(["mkdir", disk], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", disk], check=True)
    for _ in range(2):
        try:
            Ledger(f"{disk}/ledger.sqlite").rows()
        except BackendError:
            refused += 1
    subprocess.run(["mount", "-o", "remount,size=4m", disk], check=True)
    assert Ledger(f"{disk}/ledger.sqlite").rows() == []
print(refused)
"""
#: Runs a command where it may mount disks of its own.
ALONE = ("unshare", "--user", "--map-root-user", "--mount")


def can_mount(folder):
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*ALONE, "mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True).returncode == 0


def test_it_is_whole_or_absent(tmp_path):
    if not can_mount(tmp_path):
        pytest.skip("no disk can be mounted here")
    ended = subprocess.run([*ALONE, sys.executable, "-c", SCRIPT, tmp_path], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert 0 < int(ended.stdout) < 2 * 30
