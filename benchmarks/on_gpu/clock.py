"""Times on a device: contenders in turns, each turn up to the end of what it asked the device for."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

Call = Callable[[], object]
_WARM_UP = 3  # calls: in the first torch compiles, in the next it records CUDA graphs


@dataclass(frozen=True)
class Contender:
    """What is timed, and the bytes on the device that it took at most with all that it made; None on a CPU."""

    call: Call
    peak: int | None


@dataclass(frozen=True)
class Bench:
    """Where, how thoroughly and until when to measure.

    Attributes:
        device: Where the tensors are.
        smoke: Whether each thing is done once at a tiny size, to see that it works; no figure then means anything.
        end: When to start nothing more, as ``time.monotonic`` counts.
        absent: What could not be measured, and why.
    """

    device: torch.device
    smoke: bool
    end: float
    absent: list[str] = field(default_factory=list)

    def has_time(self, what: str, seconds: float) -> bool:
        """Return whether ``seconds`` are left, or note that ``what`` was left out."""
        if self.smoke or time.monotonic() + seconds < self.end:
            return True
        self.absent.append(f"{what}: the time was up; `--minutes` sets more")
        return False

    def start_afresh(self) -> None:
        """Forget what was compiled, of which torch keeps eight versions a function, and free the device's memory."""
        torch.compiler.reset()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def wait(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def prepared(self, name: str, make: Callable[[], Call]) -> Contender | None:
        """Return a contender that has been called a few times, or note why there is none."""
        before = self._restart_peak()
        try:
            call = make()
            for _ in range(1 if self.smoke else _WARM_UP):
                call()
            self.wait()
        except (RuntimeError, ImportError, AssertionError, ValueError, AttributeError) as error:
            lines = str(error).strip().splitlines() or [""]
            self.absent.append(f"{name}: {type(error).__name__}: {lines[0][:160]}")
            return None
        peak = torch.cuda.max_memory_allocated(self.device) - before if self.device.type == "cuda" else None
        return Contender(call, peak)

    def _restart_peak(self) -> int:
        if self.device.type != "cuda":
            return 0
        torch.cuda.reset_peak_memory_stats(self.device)
        return torch.cuda.memory_allocated(self.device)

    def times(self, contenders: Mapping[str, Contender]) -> dict[str, float]:
        """Return the median seconds of a call, over rounds in which the contenders take turns."""
        counts = {name: self._calls(each.call) for name, each in contenders.items()}
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(1 if self.smoke else 7):
            for name, each in contenders.items():
                seconds[name].append(self._turn(each.call, counts[name]))
        return {name: statistics.median(each) for name, each in seconds.items()}

    def _calls(self, call: Call) -> int:
        """Return how many calls fill a turn of 50 ms."""
        return 1 if self.smoke else max(1, round(0.05 / self._turn(call, 3)))

    def _turn(self, call: Call, count: int) -> float:
        self.wait()
        begin = time.perf_counter()
        for _ in range(count):
            call()
        self.wait()
        return (time.perf_counter() - begin) / count


def milliseconds(seconds: float | None) -> str:
    """Return a time in words."""
    if seconds is None:
        return "–"
    return f"{1e3 * seconds:.3f} ms" if seconds < 1e-3 else f"{1e3 * seconds:.1f} ms"


def ratio(value: float | None, base: float | None, mark: float | None = None) -> str:
    """Return a quotient, with its mark and whether it is met."""
    if value is None or base is None:
        return "–"
    text = f"{value / base:.2f} ×"
    return text if mark is None else f"{text} (≤ {mark:.2f} {'✓' if value / base <= mark else '✗'})"
