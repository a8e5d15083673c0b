"""How busy other programs keep the machine."""

from __future__ import annotations

import time

import psutil

QUIET = 0.15  # share of the cores; a tick of the system's clock is a twentieth of a turn of 0.1 s on two cores
_GLANCE = 0.2  # seconds


class OtherPrograms:
    """Watches the share of all cores that other programs use."""

    def __init__(self) -> None:
        self._now = self._read()

    def share(self) -> float:
        """Return the share since the last call, 0 to 1."""
        before, self._now = self._now, self._read()
        clock, busy, own = (now - then for now, then in zip(self._now, before, strict=True))
        return max(0.0, busy - own) / (clock * (psutil.cpu_count() or 1))

    def wait(self, patience: float) -> float:
        """Wait until they are quiet, at most ``patience`` seconds, and return what is left of those."""
        end = time.perf_counter() + patience
        while True:
            self.share()
            time.sleep(min(_GLANCE, max(0.0, patience)))
            left = end - time.perf_counter()
            if left <= 0 or self.share() <= QUIET:
                return max(0.0, left)

    @staticmethod
    def _read() -> tuple[float, float, float]:
        times = psutil.cpu_times()
        busy = times.user + times.system + getattr(times, "nice", 0.0)
        return time.perf_counter(), busy, time.process_time()
