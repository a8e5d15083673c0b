"""Cells in processes of their own: on this machine through joblib, on a cluster through Ray's joblib backend.

Only the processes import torch: a worker of joblib or Ray just waits for one, so this module imports nothing heavy.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from qiskit_qattn.errors import missing_dependency

if TYPE_CHECKING:
    from qiskit_qattn.evaluation.comparison.study import Cell, Study

Cluster = Literal["none", "ray"]
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def run_cells(study: Study, cells: Sequence[Cell], *, jobs: int = 0, cluster: Cluster = "none") -> dict[Cell, str]:
    """Run cells, several at a time, and return the reasons of those that failed.

    Args:
        study: The study; on a cluster every node must see its folder under the same path.
        cells: The cells to run.
        jobs: How many at a time; 0 for one per physical core, or on a cluster one per CPU of the cluster.
        cluster: ``ray``: on the Ray cluster that ``RAY_ADDRESS`` names or this machine belongs to; without one, on a
            local Ray started for it.

    Raises:
        MissingDependencyError: If joblib or Ray is not installed.
    """
    if find_spec("joblib") is None:
        raise missing_dependency("joblib", "compare")
    import joblib

    if not cells:
        return {}
    with _backend(cluster):
        parallel = joblib.Parallel(n_jobs=cells_at_once(jobs, cluster) or -1, batch_size=1, pre_dispatch="n_jobs")
        run = joblib.delayed(run_in_process)
        folder, threads = str(study.folder), study.config.threads
        here = os.getcwd()  # a worker on a cluster may be elsewhere
        found = parallel(
            run(folder, c.kind, c.seed, threads, str(study.side_file(c, "log")), here, c.rate) for c in cells
        )
    return {cell: reason for cell, reason in zip(cells, found, strict=True) if reason is not None}


def run_in_process(
    folder: str, kind: str, seed: int, threads: int, log: str, here: str = "", rate: float = 0.0
) -> str | None:
    """Run a cell in a process of its own, and return why it failed, or None.

    The process stops when this one ends, for whatever reason: it reads from a pipe to which nothing is written.

    Args:
        folder: The study's folder.
        kind: The cell's kind of head.
        seed: Its seed.
        threads: Number of CPU threads it may use.
        log: A file for the output of the process; it is kept if the cell fails.
        here: The folder that the process runs in, to which paths are relative; empty: the current one.
        rate: The learning rate of a trial; 0 for a cell that is reported.
    """
    path = Path(here, log)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "qiskit_qattn.evaluation.comparison.cell", folder, kind, str(seed), repr(rate)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            cwd=here or None,
            env={**os.environ, **dict.fromkeys(_THREADS, str(threads))},
        )
        with process:
            code = process.wait()
    if code == 0:
        path.unlink(missing_ok=True)  # another comparison in the same folder may have removed it
        return None
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else f"its process ended with exit code {code}"


def cells_at_once(jobs: int, cluster: Cluster) -> int | None:
    """Return how many cells run at a time; None for as many as a cluster has CPUs."""
    import joblib

    return jobs or (None if cluster == "ray" else int(joblib.cpu_count(only_physical_cores=True)))


@contextmanager
def _backend(cluster: Cluster) -> Iterator[None]:
    """Let joblib run on threads of this process, each of which waits for a process, or on Ray."""
    import joblib

    if cluster == "none":
        with joblib.parallel_config(backend="threading"):
            yield
        return
    if find_spec("ray") is None:
        raise missing_dependency("ray", "cluster")
    import ray
    from ray.util.joblib import register_ray

    # Ray's pool warns that it ignores joblib's choice of how to start processes.
    logging.getLogger("ray.util.multiprocessing.pool").setLevel(logging.ERROR)
    started = not ray.is_initialized()
    if started:
        ray.init(log_to_driver=False, configure_logging=False)
    try:
        register_ray()
        with joblib.parallel_config(backend="ray"):
            yield
    finally:
        if started:
            ray.shutdown()
