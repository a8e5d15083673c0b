"""What ``--profile`` records of a training: a trace of a few steps, their allocations, and resident memory by step.

The folder ``profile`` of a run gets ``trace.json``, which Perfetto and Chrome's ``about:tracing`` open, ``memory.json``
and, where memray is installed, ``memray.bin``, which ``memray flamegraph`` opens. They are analysed later
(:mod:`qiskit_qattn.evaluation.profile`). Profiling does not change what the model computes.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.profiler import ProfilerActivity, profile, record_function

from qiskit_qattn.nn.gpt import Decoder
from qiskit_qattn.nn.placement import Movable
from qiskit_qattn.training.files import new_folder, write_text, writing

FOLDER = "profile"
TRACE, MEMORY, MEMRAY = "trace.json", "memory.json", "memray.bin"
WARM_UP = 3  # steps before anything is recorded
TRACED = 5  # steps in the trace
TRACKED = 3  # steps that memray watches
_POINTS = 4096  # the most measurements of resident memory that are kept


class StepProfiler:
    """Records a trace of some steps of a training, the allocations of others, and resident memory after the rest.

    The first :data:`WARM_UP` steps are not recorded. Recorded steps are slow, so the training loop does not count them
    in its throughput. As a context manager it ends what is being recorded, and writes what was, however the block ends.

    Args:
        model: The model, not wrapped; None records nothing.
        folder: Where the folder ``profile`` is written.
        compiled: Whether torch compiles the model, which then is one range: hooks would compile it anew.
    """

    def __init__(self, model: nn.Module | None, folder: Path, *, compiled: bool = False) -> None:
        self._model, self._folder, self._compiled = model, folder, compiled
        self._seen = 0
        self._scratch: Path | None = None
        self._recording: AbstractContextManager[Any] | None = None
        self._resident: list[tuple[int, float]] = []  # step, MiB
        self._every = 1

    @property
    def active(self) -> bool:
        """Whether the next step is slowed down."""
        return self._model is not None and WARM_UP <= self._seen < WARM_UP + TRACED + TRACKED

    def __enter__(self) -> Self:
        """Begin."""
        if self._model is not None:
            self._scratch = Path(tempfile.mkdtemp(prefix="qattn-profile-"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End, and write the folder if steps were traced."""
        if self._scratch is None:
            return
        scratch, self._scratch = self._scratch, None
        try:
            self._stop()
            if (scratch / TRACE).is_file():
                self._write(scratch)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def before_step(self) -> None:
        """Start what the next step begins."""
        if self._scratch is None or self._model is None:
            return
        if self._seen == WARM_UP:
            self._recording = traced(self._model, self._scratch / TRACE, modules=not self._compiled)
        elif self._seen == WARM_UP + TRACED and find_spec("memray") is not None:
            self._recording = _tracked(self._scratch / MEMRAY)
        else:
            return
        self._recording.__enter__()

    def after_step(self, step: int) -> None:
        """Stop what the step ended, and note the resident memory after it."""
        if self._scratch is None:
            return
        self._seen += 1
        if self._seen in (WARM_UP + TRACED, WARM_UP + TRACED + TRACKED):
            self._stop()
        if not self.active and self._seen > WARM_UP and step % self._every == 0:
            self._resident.append((step, resident_mib()))
            if len(self._resident) >= _POINTS:
                self._every *= 2
                self._resident = [each for each in self._resident if each[0] % self._every == 0]

    def _stop(self) -> None:
        recording, self._recording = self._recording, None
        if recording is not None:
            recording.__exit__(None, None, None)

    def _write(self, scratch: Path) -> None:
        steps, mib = zip(*self._resident, strict=True) if self._resident else ((), ())
        record = {"steps": list(steps), "resident_mib": list(mib), "compiled": self._compiled}
        path = self._folder / FOLDER
        with new_folder(path) as target, writing(path):
            for name in (TRACE, MEMRAY):
                if (scratch / name).is_file():
                    shutil.copyfile(scratch / name, target / name)
            write_text(target / MEMORY, json.dumps(record) + "\n")


def resident_mib() -> float:
    """Return the resident size of this process in MiB."""
    import psutil

    return float(psutil.Process().memory_info().rss) / 2**20


@contextmanager
def traced(model: nn.Module, path: Path, *, modules: bool = True) -> Iterator[None]:
    """Trace the block into a file for a viewer, in which each call of a part of ``model`` is a range.

    A range is called ``module PATH``, or ``circuits PATH`` for what evaluates circuits, with the path of
    ``named_modules()``.

    Args:
        model: The model, as it is, not wrapped.
        path: The file.
        modules: Whether calls of modules are ranges; they slow the block down.
    """
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    recorder = profile(activities=kinds, profile_memory=True, acc_events=True)
    with ExitStack() as stack:
        if modules:
            stack.enter_context(_ranges(model))
        recorder.start()
        try:
            yield
        finally:
            recorder.stop()
    recorder.export_chrome_trace(str(path))


@contextmanager
def _ranges(model: nn.Module) -> Iterator[None]:
    """Make each call of a module of ``model`` a range.

    Hooks of single modules would change what a quantum head does (its ``foreseeable``), those of all do not.
    """
    names = range_names(model)
    open_ranges: list[record_function] = []

    def before(module: nn.Module, inputs: Any) -> None:
        if id(module) in names:
            entered = record_function(names[id(module)])
            entered.__enter__()
            open_ranges.append(entered)

    def after(module: nn.Module, inputs: Any, output: Any) -> None:
        if id(module) in names:
            open_ranges.pop().__exit__(None, None, None)

    handles = [register_module_forward_pre_hook(before), register_module_forward_hook(after, always_call=True)]
    unitaries = Decoder.unitaries  # forms those of all layers, in no module
    if isinstance(model, Decoder) and model.quantum_heads():
        Decoder.unitaries = _as_range("circuits unitaries", unitaries)  # type: ignore[method-assign]
    try:
        yield
    finally:
        Decoder.unitaries = unitaries  # type: ignore[method-assign]
        for handle in handles:
            handle.remove()


def range_names(model: nn.Module) -> dict[int, str]:
    """Return what the calls of each module of a model are called in a trace, by ``id``, except of those in circuits."""
    names: dict[int, str] = {}
    circuits: set[int] = set()
    for name, module in model.named_modules():
        if id(module) in circuits:
            continue
        kind = "circuits" if isinstance(module, Movable) else "module"
        names[id(module)] = f"{kind} {name or type(module).__name__}"
        if kind == "circuits":
            circuits |= {id(part) for part in module.modules()}
    return names


def _as_range(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def called(*args: Any, **options: Any) -> Any:
        with record_function(name):
            return function(*args, **options)

    return called


@contextmanager
def _tracked(path: Path) -> Iterator[None]:
    """Record the allocations of the block, of Python and of native code, into a file of memray."""
    import memray

    with memray.Tracker(
        destination=memray.FileDestination(path, overwrite=True), file_format=memray.FileFormat.AGGREGATED_ALLOCATIONS
    ):
        yield
