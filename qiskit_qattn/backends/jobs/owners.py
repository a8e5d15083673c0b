"""Which process works on a row of the ledger, and whether it still lives."""

from __future__ import annotations

import os
import secrets
import socket
import time

import psutil

_SAME_START = 2.0  # seconds by which two readings of one process's start may differ
_ELSEWHERE = 900.0  # seconds after which a silent owner on another host counts as gone


def new_owner() -> str:
    """Return a mark of its own for a piece of work in this process: host, process id, its start, and a random part."""
    start = psutil.Process().create_time()
    return f"{socket.gethostname()} {os.getpid()} {start:.2f} {secrets.token_hex(4)}"


def lives(owner: str | None, updated: float) -> bool:
    """Return whether the process that left a mark still runs.

    Processes of another host cannot be asked; they count as living for a quarter of an hour after their last word.

    Args:
        owner: A mark of :func:`new_owner`, or None for nobody's work.
        updated: When the owner last wrote, in seconds since 1970.
    """
    if owner is None:
        return False
    host, pid, start, _ = owner.split(" ")
    if host != socket.gethostname():
        return time.time() - updated < _ELSEWHERE
    try:
        process = psutil.Process(int(pid))
        return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - float(start)) < _SAME_START
    except psutil.NoSuchProcess:
        return False
