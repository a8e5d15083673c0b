"""The functions in which training spends its time."""

from __future__ import annotations

from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

WARM_UP = 3  # steps before profiling starts
STEPS = 5  # steps profiled


class StepProfiler:
    """Profiles :data:`STEPS` training steps after :data:`WARM_UP` others.

    Profiled steps are slow, so the clock of the training loop leaves them out.
    """

    def __init__(self, *, enabled: bool) -> None:
        self._seen = 0
        self._done = not enabled
        self._profile: profile | None = None

    @property
    def active(self) -> bool:
        """Whether the coming step is one that is profiled."""
        return not self._done and self._seen >= WARM_UP

    def before_step(self) -> None:
        """Start profiling when it is time."""
        if self.active and self._profile is None:
            kinds = [ProfilerActivity.CPU]
            if torch.cuda.is_available():
                kinds.append(ProfilerActivity.CUDA)
            self._profile = profile(activities=kinds, acc_events=True)
            self._profile.start()

    def after_step(self) -> list[dict[str, Any]] | None:
        """Return the hottest functions after the last profiled step, else None."""
        if self._done:
            return None
        self._seen += 1
        if self._profile is None or self._seen < WARM_UP + STEPS:
            return None
        return self.stop()

    def stop(self) -> list[dict[str, Any]] | None:
        """End profiling and return what was found; None if it never started."""
        self._done = True
        if self._profile is None:
            return None
        running, self._profile = self._profile, None
        running.stop()
        return hottest(running)


def hottest(finished: profile, count: int = 10) -> list[dict[str, Any]]:
    """Return the ``count`` functions with the most time of their own: name, calls, milliseconds, share of all."""
    events = list(finished.key_averages())

    def own(event: Any) -> float:
        return float(event.self_cpu_time_total + event.self_device_time_total)

    total = sum(own(event) for event in events) or 1.0
    return [
        {"name": e.key, "calls": e.count, "self_ms": own(e) / 1000, "share": own(e) / total}
        for e in sorted(events, key=own, reverse=True)[:count]
    ]
