"""How busy other programs keep the machine."""

from __future__ import annotations

import time

import psutil


class OtherPrograms:
    """Watches the share of all cores that other programs use."""

    def __init__(self) -> None:
        self._now = self._read()

    def share(self) -> float:
        """Return the share since the last call, 0 to 1."""
        before, self._now = self._now, self._read()
        clock, busy, own = (now - then for now, then in zip(self._now, before, strict=True))
        return max(0.0, busy - own) / (clock * (psutil.cpu_count() or 1))

    @staticmethod
    def _read() -> tuple[float, float, float]:
        times = psutil.cpu_times()
        busy = times.user + times.system + getattr(times, "nice", 0.0)
        return time.perf_counter(), busy, time.process_time()
