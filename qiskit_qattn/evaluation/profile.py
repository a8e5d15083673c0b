r"""Where the time and the memory of training steps go: what a trace says of modules and phases.

A trace is one of torch's profiler, in which each call of a module and each phase of a step is a range
(:mod:`qiskit_qattn.training.profiling`). The time of a part is that of its operations without those of the parts inside
it, so that all parts add up to the step. An operation of the backward pass belongs to the part whose forward operation
made its node of the graph: torch gives both the same sequence number. Operations without one, such as the
accumulation of gradients, are listed separately.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, TypedDict

OUTSIDE = "(outside the model)"
NOT_ATTRIBUTED = "(no single module)"
PHASES = ("forward", "backward", "optimizer")
_NODE = "autograd::engine::evaluate_function: "
_CPU, _GPU = 0, 1  # torch's device types
_MIB = 2**20
_MOST_POINTS = 400


class PhaseCost(TypedDict):
    """A phase of a step: milliseconds, the part of them in circuits, and MiB at its peak and kept at its end.

    Memory is counted from the beginning of the phase.
    """

    name: str
    ms: float
    circuits_ms: float
    peak_mib: float
    kept_mib: float


class PartCost(TypedDict):
    """A module, of all layers together, in a step, without the modules inside it.

    ``kept_mib`` is what its forward pass leaves allocated, ``peak_mib`` the most that one call, with the modules inside
    it, allocates at a time.
    """

    name: str
    circuits: bool
    forward_ms: float
    backward_ms: float
    kept_mib: float
    peak_mib: float


class FunctionCost(TypedDict):
    """A function of torch in a step: its calls, its own time and its share of the step."""

    name: str
    calls: float
    self_ms: float
    share: float


class Curve(TypedDict):
    """Allocated memory during one step, in MiB above its beginning, and when its phases end, all in milliseconds."""

    ms: list[float]
    mib: list[float]
    ends: dict[str, float]


class TraceCosts(TypedDict):
    """What a trace says: costs of one step, the mean of ``steps``."""

    steps: int
    device: str
    phases: list[PhaseCost]
    parts: list[PartCost]
    functions: list[FunctionCost]
    curve: Curve


@dataclass
class _Event:
    name: str
    start: float  # µs
    end: float
    thread: Any
    args: Mapping[str, Any]
    size: int = 0  # bytes, of an allocation
    own: float = 0.0  # µs, without the events inside it
    phase: str | None = None
    part: str | None = None  # the range it is in, as in the trace


@dataclass
class _Sums:
    forward: float = 0.0
    backward: float = 0.0
    kept: int = 0
    peak: float = 0.0


def trace_costs(events: Iterable[Mapping[str, Any]], outside: str = OUTSIDE) -> TraceCosts:
    """Return the costs by phase, part and function of the steps in a trace.

    Args:
        events: The ``traceEvents`` of a file that torch's profiler wrote.
        outside: What the part is called that is in no module.

    Raises:
        ValueError: If there is no complete step in it, or an event lacks what the format demands.
    """
    found, kernels = _parsed(events)
    _place(found, outside)
    ranges = [each for each in found if each.name.startswith("phase ")]
    steps = sum(each.name == "phase optimizer" for each in ranges)
    if not steps:
        raise ValueError("the trace has no complete training step")
    kernel_time: dict[Any, float] = defaultdict(float)
    for each in kernels:
        kernel_time[each.args.get("External id")] += each.end - each.start
    live = _Live([each for each in found if each.size])
    sums: dict[str, _Sums] = defaultdict(_Sums)
    functions: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])  # calls, µs
    times, of_circuits = dict.fromkeys(PHASES, 0.0), dict.fromkeys(PHASES, 0.0)
    for each in found:
        if each.phase not in times:
            continue
        time = kernel_time.pop(each.args.get("External id"), 0.0) if kernels else each.own
        times[each.phase] += time
        of_circuits[each.phase] += time if (each.part or "").startswith("circuits ") else 0.0
        if not each.size and not each.name.startswith(("phase ", "module ", "circuits ", _NODE)):
            functions[each.name][0] += 1
            functions[each.name][1] += time
        if each.phase == "optimizer":
            continue
        part = sums[each.part or (outside if each.phase == "forward" else NOT_ATTRIBUTED)]
        if each.phase == "forward":
            part.forward += time
            part.kept += each.size
            if each.name == each.part:
                part.peak = max(part.peak, live.peak(each))
        else:
            part.backward += time
    total = sum(times.values()) or 1.0
    return {
        "steps": steps,
        "device": "GPU" if kernels else "CPU",
        "phases": [_phase_cost(name, times[name], of_circuits[name], ranges, live, steps) for name in PHASES],
        "parts": _part_costs(sums, steps),
        "functions": [
            {"name": name, "calls": calls / steps, "self_ms": time / 1000 / steps, "share": time / total}
            for name, (calls, time) in sorted(functions.items(), key=lambda item: -item[1][1])[:10]
        ],
        "curve": _curve(ranges, live),
    }


def _parsed(events: Iterable[Mapping[str, Any]]) -> tuple[list[_Event], list[_Event]]:
    """Return ranges, operations and allocations in the order in which they begin, and the kernels of a GPU."""
    found, kernels, allocations = [], [], {_CPU: list[_Event](), _GPU: list[_Event]()}
    try:
        for each in events:
            args = dict(each.get("args", {}))
            if each["ph"] == "X" and each.get("cat") in ("cpu_op", "user_annotation"):
                start, name = float(each["ts"]), str(each["name"])
                found.append(_Event(name, start, start + float(each["dur"]), each["tid"], args))
            elif each["ph"] == "X" and each.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset"):
                start = float(each["ts"])
                kernels.append(_Event(str(each["name"]), start, start + float(each["dur"]), each["tid"], args))
            elif each["name"] == "[memory]":
                start, device = float(each["ts"]), int(args["Device Type"])
                event = _Event("[memory]", start, start, each["tid"], args, size=int(args["Bytes"]))
                allocations.setdefault(device, []).append(event)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"an event of the trace is not as torch writes it: {error}") from error
    found += allocations[_GPU] or allocations[_CPU]
    return sorted(found, key=lambda each: (each.start, -each.end)), kernels


def _place(found: Sequence[_Event], outside: str) -> None:
    """Set the own time, the phase and the part of events, which are in the order in which they begin."""
    made_in: dict[int, str | None] = {}  # by sequence number, the part of the last operation that began with it
    stacks: dict[Any, list[_Event]] = defaultdict(list)
    for each in found:
        stack = stacks[each.thread]
        while stack and stack[-1].end < each.end:
            stack.pop()
        parent = stack[-1] if stack else None
        each.own = each.end - each.start
        if parent is not None:
            parent.own -= each.own
            each.phase, each.part = parent.phase, parent.part
        if each.name.startswith("phase "):
            each.phase = each.name.removeprefix("phase ")
        if each.phase == "forward" and each.name.startswith(("module ", "circuits ")):
            inside = each.part is not None and each.part.startswith("circuits ")
            each.part = each.part if inside else each.name
        number = each.args.get("Sequence number")
        if each.name.startswith(_NODE):
            each.phase = "backward"  # on a GPU in a thread of its own
            if not any(other.name.startswith(_NODE) for other in stack):
                each.part = made_in.get(number) if number is not None else None
        elif each.phase == "forward" and number is not None:
            made_in[number] = each.part or outside
        if not each.size:
            stack.append(each)


class _Live:
    """Allocated memory over the time of a trace, in bytes above its beginning."""

    def __init__(self, allocations: Sequence[_Event]) -> None:
        self.times = [each.start for each in allocations]
        self.bytes = [0, *accumulate(each.size for each in allocations)]  # before each, and after the last

    def at(self, time: float) -> int:
        return self.bytes[bisect_left(self.times, time)]

    def peak(self, event: _Event) -> int:
        """Return the most that was allocated during an event, above what was when it began."""
        first, last = bisect_left(self.times, event.start), bisect_right(self.times, event.end)
        return max(self.bytes[first : last + 1]) - self.bytes[first]


def _phase_cost(
    name: str, time: float, circuits: float, ranges: Sequence[_Event], live: _Live, steps: int
) -> PhaseCost:
    own = [each for each in ranges if each.name == f"phase {name}"]
    return {
        "name": name,
        "ms": time / 1000 / steps,
        "circuits_ms": circuits / 1000 / steps,
        "peak_mib": max((live.peak(each) for each in own), default=0) / _MIB,
        "kept_mib": sum(live.at(each.end) - live.at(each.start) for each in own) / _MIB / steps,
    }


def _part_costs(sums: Mapping[str, _Sums], steps: int) -> list[PartCost]:
    """Return the costs of parts, layers together, the slowest first."""
    layers: dict[tuple[str, bool], _Sums] = defaultdict(_Sums)
    for name, found in sums.items():
        kind, _, path = name.partition(" ")
        circuits = kind == "circuits"
        path = re.sub(r"(^|\.)\d+(?=\.|$)", r"\1*", path) if kind in ("module", "circuits") else name
        joined = layers[path, circuits]
        joined.forward += found.forward
        joined.backward += found.backward
        joined.kept += found.kept
        joined.peak = max(joined.peak, found.peak)
    parts: list[PartCost] = [
        {
            "name": name,
            "circuits": circuits,
            "forward_ms": found.forward / 1000 / steps,
            "backward_ms": found.backward / 1000 / steps,
            "kept_mib": found.kept / _MIB / steps,
            "peak_mib": found.peak / _MIB,
        }
        for (name, circuits), found in layers.items()
    ]
    return sorted(parts, key=lambda part: -part["forward_ms"] - part["backward_ms"])


def _curve(ranges: Sequence[_Event], live: _Live) -> Curve:
    """Return the memory of the last complete step, at :data:`_MOST_POINTS` times and at its peak."""
    [*_, last] = [i for i, each in enumerate(ranges) if each.name == "phase optimizer"]
    first = max(i for i in range(last + 1) if ranges[i].name == "phase forward" or i == 0)
    start, end = ranges[first].start, ranges[last].end
    inside = range(bisect_left(live.times, start), bisect_right(live.times, end))
    base = live.at(start)
    stride = max(1, len(inside) // _MOST_POINTS)
    highest = max(inside, key=lambda i: live.bytes[i + 1], default=0)
    kept = [i for i in inside if (i - inside.start) % stride == 0 or i == highest]
    return {
        "ms": [0.0, *((live.times[i] - start) / 1000 for i in kept), (end - start) / 1000],
        "mib": [0.0, *((live.bytes[i + 1] - base) / _MIB for i in kept), (live.at(end) - base) / _MIB],
        "ends": {each.name.removeprefix("phase "): (each.end - start) / 1000 for each in ranges[first : last + 1]},
    }
