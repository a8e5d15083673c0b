"""The profile of a training as tables and a plot: where the time and the memory of a step go, and whether memory leaks.

It is computed from the folder ``profile`` that :mod:`qiskit_qattn.training.profiling` writes.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from qiskit_qattn.errors import CheckpointError
from qiskit_qattn.evaluation.drawing import COLORS, GRID, INK, QUIET, blank_figure, legend, write_figures
from qiskit_qattn.evaluation.memory_leak import LEAST_STEPS, Leak, leak
from qiskit_qattn.evaluation.profile import OUTSIDE, TraceCosts, trace_costs
from qiskit_qattn.evaluation.rendering import (
    code,
    escaped,
    table,
)
from qiskit_qattn.training.profiling import FOLDER, MEMORY, MEMRAY, TRACE
from qiskit_qattn.untrusted import read_json

PLOT = "profile.png"
COMPILED = "(the compiled model)"
_SHOWN = 14  # parts of a table and a plot
_COLORS = dict(
    zip(
        ("forward", "backward", "circuits forward", "circuits backward"),
        (COLORS[0], "#a9cfe6", COLORS[1], "#f2c9a6"),
        strict=True,
    )
)
_SHADES = {"forward": "#d0e2ff", "backward": "#f2f4f8", "optimizer": "#ffe0c2"}


class Resident(TypedDict):
    """The resident memory of the process after steps, and whether torch compiled the model."""

    steps: list[int]
    resident_mib: list[float]
    compiled: bool


class Allocations(TypedDict):
    """A place in the code, and what it had allocated when most was, in MiB."""

    place: str
    mib: float


class NativeMemory(TypedDict):
    """What memray saw: the most that was allocated at a time during the steps it watched, and by which code."""

    peak_mib: float
    allocations: int
    largest: list[Allocations]


class Profile(TypedDict):
    """The profile of a training; ``native`` is None where memray was not installed."""

    costs: TraceCosts
    resident: Resident
    leak: Leak
    native: NativeMemory | None


def read_profile(folder: Path) -> dict[str, Any] | None:
    """Return the profile of the training in ``folder``, as plain values for JSON; None if there is none.

    Raises:
        CheckpointError: If a file of it is damaged.
    """
    path = folder / FOLDER
    if not path.is_dir():
        return None
    try:
        trace = read_json(path / TRACE)
        if not isinstance(trace, dict) or not isinstance(trace.get("traceEvents"), list):
            raise ValueError(f"{TRACE} is no trace of torch's profiler")
        resident: Resident = read_json(path / MEMORY, Resident)
        if len(resident["steps"]) != len(resident["resident_mib"]):
            raise ValueError(f"{MEMORY} has as many steps as sizes, or is damaged")
        found: Profile = {
            "costs": trace_costs(trace["traceEvents"], COMPILED if resident["compiled"] else OUTSIDE),
            "resident": resident,
            "leak": leak(resident["steps"], resident["resident_mib"]),
            "native": _native(path / MEMRAY),
        }
    except (OSError, ValueError) as error:
        raise CheckpointError(f"The profile {str(path)!r} is damaged: {error}. Remove it.") from error
    return dict(found)


def _native(path: Path) -> NativeMemory | None:
    """Return what memray recorded; None without a record, or without memray to read it."""
    if not path.is_file() or find_spec("memray") is None:
        return None
    import memray

    places: dict[str, int] = {}
    allocations = 0
    reader = memray.FileReader(path)
    try:
        for record in reader.get_high_watermark_allocation_records(merge_threads=True):
            stack = record.stack_trace(max_stacks=1)
            place = _place(*stack[0]) if stack else "code without Python"
            places[place] = places.get(place, 0) + record.size
            allocations += record.n_allocations
    finally:
        reader.close()
    largest = sorted(places.items(), key=lambda item: -item[1])[:5]
    return {
        "peak_mib": sum(places.values()) / 2**20,
        "allocations": allocations,
        "largest": [{"place": place, "mib": size / 2**20} for place, size in largest],
    }


def _place(function: str, file: str, line: int) -> str:
    """Return a line of code, its file by the last parts of its path."""
    return f"{'/'.join(Path(file).parts[-3:])}:{line} {function}"


def render_profile(folder: Path, profile: dict[str, Any]) -> None:
    """Write the plot of a profile into the folder ``profile`` in ``folder``.

    Raises:
        RunFolderError: If it cannot be written.
    """
    write_figures(folder / FOLDER, {Path(PLOT).stem: profile_figure(profile)})


def profile_markdown(profile: dict[str, Any], prefix: str = "") -> list[str]:
    """Return the paragraphs and tables of a profile.

    Args:
        profile: As :func:`read_profile` returned it.
        prefix: Where the folder of its files is, seen from the document, with a slash at the end.
    """
    costs, native = profile["costs"], profile["native"]
    device = "of kernels on the GPU" if costs["device"] == "GPU" else "on the CPU"
    parts = [
        f"Mean of {costs['steps']} steps, time {device}. Tracing slows steps down, so compare shares, not speed."
        f" [{TRACE}]({prefix}{TRACE}) opens in Perfetto and in Chrome's about:tracing.",
        phase_table(costs),
        f"![Time and memory of a step]({prefix}{PLOT})",
        "Memory is what tensors add to that of the weights: a phase's peak is above its beginning, kept is what is"
        " left at its end. By module, without the modules inside it, the blocks together; kept is what its forward pass"
        " leaves, and the peak of one call has the modules inside it:",
        _parts(costs),
    ]
    if profile["resident"]["compiled"]:
        parts.append("The model is compiled, and hooks would compile it anew: its modules are not told apart.")
    if native is None:
        parts.append(
            "Allocations outside tensors were not recorded: memray is not installed. Install it with:"
            ' `pip install "qiskit-qattn[profile]"`'
        )
    else:
        parts.append(
            f"memray: the steps it watched held at most {native['peak_mib']:,.1f} MiB at a time, of Python and native"
            f" code, in {native['allocations']:,} allocations. [{MEMRAY}]({prefix}{MEMRAY}) is for"
            f" {code('memray flamegraph')}. The largest at the peak:"
        )
        rows = [[code(each["place"]), f"{each['mib']:,.2f}"] for each in native["largest"]]
        parts.append(table(["Line", "MiB"], rows))
    parts += [escaped(profile["leak"]["verdict"]), "The functions with the most time of their own:", _functions(costs)]
    return parts


def phase_table(costs: dict[str, Any]) -> str:
    """Return the time and the memory of each phase as a Markdown table."""
    total = sum(phase["ms"] for phase in costs["phases"]) or 1.0
    rows = []
    for phase in costs["phases"]:
        memory = [f"{phase['peak_mib']:,.2f}", f"{phase['kept_mib']:+,.2f}"]
        rows.append([phase["name"], f"{phase['ms']:,.2f}", f"{phase['ms'] / total:.1%}", *memory])
        if phase["circuits_ms"]:
            part = phase["circuits_ms"]
            rows.append([f"– of it circuits, {phase['name']}", f"{part:,.2f}", f"{part / total:.1%}", "", ""])
    rows.append(["**step**", f"{total:,.2f}", "100.0%", "", ""])
    return table(["Phase", "Time, ms", "Share", "Peak, MiB", "Kept, MiB"], rows)


def _parts(costs: dict[str, Any]) -> str:
    total = sum(phase["ms"] for phase in costs["phases"]) or 1.0
    rows = [
        [
            code(part["name"]) + (" (circuits)" if part["circuits"] else ""),
            f"{part['forward_ms']:,.2f}",
            f"{part['backward_ms']:,.2f}",
            f"{(part['forward_ms'] + part['backward_ms']) / total:.1%}",
            f"{part['kept_mib']:,.2f}",
            f"{part['peak_mib']:,.2f}",
        ]
        for part in costs["parts"]
    ]
    return table(["Module", "Forward, ms", "Backward, ms", "Share", "Kept, MiB", "Peak, MiB"], rows)


def _functions(costs: dict[str, Any]) -> str:
    rows = [
        [code(each["name"]), f"{each['calls']:,.1f}", f"{each['self_ms']:,.2f}", f"{each['share']:.1%}"]
        for each in costs["functions"]
    ]
    return table(["Function", "Calls per step", "Self time, ms", "Share"], rows)


def profile_figure(profile: dict[str, Any]) -> Any:
    """Return a figure: time by module, memory during a step, and resident memory by step.

    Raises:
        MissingDependencyError: If matplotlib is not installed.
    """
    figure = blank_figure(figsize=(10, 5.2))
    left, right = figure.subfigures(1, 2, width_ratios=[1.15, 1])
    _bars(left.add_subplot(), profile["costs"])
    top, bottom = right.subplots(2, 1)
    _memory(top, profile["costs"]["curve"])
    _resident(bottom, profile["resident"], profile["leak"])
    return figure


def _bars(axes: Any, costs: dict[str, Any]) -> None:
    """Draw the forward and the backward time of the slowest parts, circuits in colours of their own."""
    parts = costs["parts"][:_SHOWN]
    for i, part in enumerate(parts):
        kind = "circuits " if part["circuits"] else ""
        forward, backward = (_look(f"{kind}{way}") for way in ("forward", "backward"))
        axes.barh(i, part["forward_ms"], height=0.7, **forward)
        axes.barh(i, part["backward_ms"], left=part["forward_ms"], height=0.7, **backward)
    names = [part["name"] if len(part["name"]) < 34 else f"…{part['name'][-32:]}" for part in parts]
    axes.set_yticks(range(len(parts)), names, fontsize=8, parse_math=False)
    axes.invert_yaxis()
    axes.set_xlabel("ms per step")
    axes.set_title("Time by module", loc="left", fontsize=10)
    axes.grid(axis="x", **GRID)
    used = {"forward", "backward"} | {
        name for name in ("circuits forward", "circuits backward") if any(part["circuits"] for part in parts)
    }
    handles = [axes.barh(0, 0, **_look(name)) for name in _COLORS if name in used]
    labels = [name for name in _COLORS if name in used]
    legend(axes, handles, labels, loc="lower right")


def _look(name: str) -> dict[str, Any]:
    """Return how a bar is filled: those of circuits are hatched, so that they are told apart in grey too."""
    hatch = "////" if name.startswith("circuits") else ""
    return {"color": _COLORS[name], "hatch": hatch, "edgecolor": "white", "linewidth": 0}


def _memory(axes: Any, curve: dict[str, Any]) -> None:
    """Draw the memory of tensors during a step over its phases."""
    begin, height = 0.0, max([*curve["mib"], 0.0]) or 1.0
    for name, end in curve["ends"].items():
        axes.axvspan(begin, end, color=_SHADES.get(name, "#ffffff"), linewidth=0, zorder=0, label=name)
        begin = end
    axes.step(curve["ms"], curve["mib"], where="post", color=INK, linewidth=1.2)
    axes.set_ylim(top=height * 1.3)
    legend(axes, ncols=3, loc="upper right", handlelength=1.2)
    axes.margins(x=0)
    axes.set_xlabel("ms since the step began")
    axes.set_ylabel("MiB")
    axes.set_title("Memory of tensors in one step", loc="left", fontsize=10)


def _resident(axes: Any, resident: dict[str, Any], found: dict[str, Any]) -> None:
    """Draw the resident memory after each step, with the slope of the leak check."""
    steps, mib = np.asarray(resident["steps"]), np.asarray(resident["resident_mib"])
    axes.plot(steps, mib, color=QUIET, linewidth=1, marker="." if len(steps) <= 50 else None)
    title = "Resident memory"
    if found["slope_kib"] is not None:
        watched = steps[len(steps) // 4 :]
        line = found["slope_kib"] / 1024 * (watched - watched.mean()) + np.median(mib[len(steps) // 4 :])
        color = COLORS[1] if found["leaks"] else COLORS[2]
        axes.plot(watched, line, color=color, linewidth=1.6, linestyle="--")
        title += f": {found['slope_kib']:+,.1f} KiB per step ({found['low_kib']:+,.1f} to {found['high_kib']:+,.1f})"
    elif len(steps) < LEAST_STEPS:
        title += " (too few for a slope)"
    if len(mib) and np.ptp(mib) < 1:
        axes.set_ylim(mib.mean() - 1, mib.mean() + 1)  # or a page would fill the axis
    axes.set_xlabel("training step")
    axes.locator_params("x", integer=True)
    axes.set_ylabel("MiB")
    axes.set_title(title, loc="left", fontsize=9)
